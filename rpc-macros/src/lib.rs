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
//!          fault: all of them at once  └─ fallback     what stands when there are faults
//!                                         over form (arguments), outcome (answers), generics
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
/// * A hidden dyn-safe twin of the trait, and the table of methods, which `rpc::describe::<KvClient>()` shows.
///
/// A type that cannot travel is reported once, where it is written. The trait's words go to the client and the server too, and a
/// method's to the client's method.
///
/// # The shape of a method
///
/// `async fn name(&self, ..) -> rpc::Result<T, E>`; `E` may be left out. An alias of your own (`type Result<T> = rpc::Result<T, KvError>`) works too.
///
/// | argument | travels as | the service gets |
/// |---|---|---|
/// | `&str`, `&[u8]` | text, bytes | a borrow of the received frame |
/// | `Vec<u8>`, `&Vec<u8>`, `Option<Vec<u8>>` | bytes, not element by element | the value |
/// | `Bytes` | bytes | a part of the message, and no copy, where it is half of one of 64 KiB or more |
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
/// * `#[rpc::service(local)]` for a service that stays on one thread; see below.
/// * `#[rpc(oneway)]` on a method that returns `rpc::Result<()>`: nothing comes back, not even a fault.
/// * `#[rpc(name = "..")]` on a method pins its name on the wire, so that the method can be renamed.
/// * `#[rpc(idempotent)]` on a method that may be run twice for one call. It is recorded, for whoever repeats calls, in
///   `rpc::MethodInfo::idempotent`; nothing is repeated because of it.
/// * `#[rpc(spawn)]` on a method whose handler computes, or blocks its thread: each call has a task of its own from its start, and
///   holds up nobody on its connection. Otherwise a handler is polled first where it arrives, which is cheaper. A direct call is
///   polled by its caller in either case.
///
/// An unknown key is an error. Keys do not travel, but for `oneway`, which is the method's form, and `name`.
///
/// # Types left open
///
/// ```text
/// #[rpc::service]
/// pub trait Store<K, V = Bytes>
/// where
///     K: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
///     V: Serialize + DeserializeOwned + Send + Sync + 'static,
/// {
///     async fn get(&self, key: &K) -> rpc::Result<Option<V>>;
/// }
/// ```
///
/// makes `StoreClient<K, V>` and `StoreServer<S, K, V>`. Constants may be left open too; lifetimes may not. **All instantiations
/// have one name and one fingerprint on the wire**: that both sides mean the same types is up to them, and where they do not, calls
/// fail to decode, or decode to something else. So a listener offers one instantiation of a service.
///
/// # A service on one thread
///
/// `#[rpc::service(local)]` asks nothing to be `Send`: implementors may hold an `Rc` or a `RefCell`, and so may their handlers over an
/// await. The trait has neither supertraits nor bounds on its futures, and is there for `Rc<T>` instead of `Arc<T>`.
///
/// * `KvServer::new(service)` gives the service to the `tokio::task::LocalSet` that it is called in, and panics outside of one. It
///   stays there until the server is gone and its last call is over. `KvServer` itself is `Send`, and served as any other.
/// * Each call is a task of the `LocalSet`, so calls run side by side, on one thread. One that blocks it blocks all of them;
///   `spawn` is refused. Who lets go of a call lets its handler be dropped as soon as that thread comes to it.
/// * The client is as any other: `Send`, and its calls too. `rpc::local` works from every thread; a call copies its borrowed
///   arguments and goes to the service's thread, with nothing encoded.
/// * What travels is `Send` as ever, and that holds for the streams that a method returns. One that needs what stays is fed from
///   a task of `tokio::task::spawn_local`, through a channel.
///
/// # On the wire
///
/// A method is known by the FNV-1a hash of `Trait/method`; what travels with a call is its rank among the sorted hashes of the service.
/// Neither the order of the methods nor their arguments' names matter.
#[proc_macro_attribute]
pub fn service(attr: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand::service(attr.into(), item.into()).into()
}
