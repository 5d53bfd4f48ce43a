//! The attribute of rpc: one trait in, the trait and its siblings out.
//!
//! Use it through the facade as `#[rpc::service]`. This crate imports none of ours; what it writes names only
//! `::rpc::__private`, so that core and transport can move without it.
//!
//! ```text
//! attr ──► parse ──► check ──► expand ─┬─ trait_item   the trait itself
//!            │         │               ├─ info         names, ranks, fingerprint
//!          model ◄─────┘               ├─ server       one match on the rank
//!            │                         ├─ client       one call a method, and the trait again
//!          shape, hash                 ├─ local        the dyn-safe twin
//!                                      ├─ assertion    errors at the argument, not in here
//!          fault: all of them at once  └─ fallback     what stands when there are faults
//! ```

mod attr;
mod check;
mod expand;
mod fault;
mod hash;
mod model;
mod parse;
mod shape;

/// Makes a service of a trait: a server, a client, and both of them still speak the trait.
///
/// ```text
/// #[rpc::service]
/// pub trait Kv {
///     /// Doc comments go to the trait and to the client.
///     async fn get(&self, key: &str) -> rpc::Result<Option<Bytes>, KvError>;
///     async fn put(&self, key: &str, value: &[u8]) -> rpc::Result<(), KvError>;
///     async fn watch(&self, prefix: &str) -> rpc::Result<rpc::Streaming<Event>, KvError>;
///     async fn import(&self, rows: rpc::Streaming<Row>) -> rpc::Result<Stats, KvError>;
///     #[rpc(oneway)]
///     async fn log(&self, cx: &rpc::Context, line: &str) -> rpc::Result<()>;
/// }
/// ```
///
/// # What it emits
///
/// * **`Kv`**, the trait as it was written, with the supertraits `Send + Sync`, and each `async fn` as
///   `fn .. -> impl Future<Output = ..> + Send`. Implementors write plain `async fn`.
/// * **`Kv` for `Arc<T>`** where `T: Kv`.
/// * **`KvServer<S>`** with `KvServer::new(service)`: it holds the service in one `Arc` and asks `S: Kv + 'static` of it, no `Clone`.
/// * **`KvClient`**, which is `Clone` and has one inherent method for each method of the trait and nothing else. They return an
///   `rpc::Call`, which owns what it needs and is awaited, given options (`.timeout(..)`), or spawned. Of the arguments,
///   `cx: &rpc::Context` is left out, and a stream is any `impl Stream<Item = T> + Send + 'static`.
///   The client of a server in the same process encodes nothing: there the inherent method clones its borrowed arguments.
/// * **`Kv` for `KvClient`**, so that code over `impl Kv` takes a service, a client or a mock. A local call borrows its arguments.
/// * A hidden dyn-safe twin of the trait, the table of methods, and one assertion for each type that travels, so that a type that
///   cannot travel is reported where it is written.
///
/// # The shape of a method
///
/// `async fn name(&self, ..) -> rpc::Result<T, E>`; `E` may be left out. An alias of your own (`type Result<T> = rpc::Result<T, KvError>`) works too.
///
/// | argument | travels as | the service gets |
/// |---|---|---|
/// | `&str`, `&[u8]` | text, bytes | a borrow of the received frame |
/// | `Vec<u8>`, `&Vec<u8>`, `Option<Vec<u8>>` | bytes, not element by element | the value |
/// | `&[T]` | a sequence | a borrow of a decoded `Vec<T>` |
/// | `T`, `&T` | `T` by serde | the value, or a borrow of it |
/// | `rpc::Streaming<T>` | a stream, at most one, after the other arguments | the stream |
/// | `&rpc::Context` | nothing | the context of the call |
///
/// The answer is a value, or `rpc::Streaming<T>` for a stream of them.
///
/// # Keys
///
/// * `#[rpc::service(crate = "path")]` where `rpc` is known under another path.
/// * `#[rpc(oneway)]` on a method that returns `rpc::Result<()>`: nothing comes back, not even a fault.
/// * `#[rpc(name = "..")]` on a method pins its name on the wire, so that the method can be renamed.
/// * `#[rpc(idempotent)]` on a method that may be run twice for one call.
///
/// # On the wire
///
/// A method is known by the FNV-1a hash of `Trait/method`; what travels with a call is its rank among the sorted hashes of the service.
/// Neither the order of the methods nor their arguments' names matter.
#[proc_macro_attribute]
pub fn service(attr: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand::service(attr.into(), item.into()).into()
}
