//! An RPC framework whose foundation is a real session layer: a trait is the service, its client and its mock; many
//! sessions share one connection, and a slow one holds up nobody but itself.
//!
//! ```
//! #[rpc::service]
//! pub trait Greeter {
//!     async fn greet(&self, name: &str) -> rpc::Result<String>;
//! }
//!
//! struct Polite;
//!
//! impl Greeter for Polite {
//!     async fn greet(&self, name: &str) -> rpc::Result<String> {
//!         Ok(format!("Good day, {name}."))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = rpc::Server::builder().service(GreeterServer::new(Polite)).listen("tcp://127.0.0.1:0").await?;
//! let greeter: GreeterClient = rpc::connect(server.endpoint()).await?;
//! assert_eq!(greeter.greet("Ada").await?, "Good day, Ada.");
//! # Ok(())
//! # }
//! ```
//!
//! | to | see |
//! |---|---|
//! | define a service | [`service`], [`Result`], [`Error`], [`Fault`], [`Streaming`], [`Context`] |
//! | serve it | [`Server`] |
//! | call it | [`connect`], [`Connection`], [`local`], [`Call`] |
//! | end it | [`Session::close`], [`Server::drain_on`], [`Connection::drain`] |
//! | bound what peers may do | [`Limits`] |
//! | ask what a service has | [`describe`], [`ServiceInfo`], [`MethodInfo`] |
//! | choose what messages look like | [`Codec`], [`ConnectionBuilder::codecs`], [`ServerBuilder::codecs`] |
//! | send a token, or a trace | [`Call::metadata`], [`Context::metadata`] |
//! | encrypt it, and know who calls | `rpc::tls` (feature `tls`), [`Context::peer`], [`Principal`] |
//! | see what waits, and for what | [`inspect`], [`inspector`] |
//! | have it as metrics | `rpc::metrics` (feature `metrics`) |
//! | put layers around it | `rpc::tower` (feature `tower`), [`Request`], [`Reply`] |
//!
//! # Codecs
//!
//! Messages are postcard. With the feature `json` they can be JSON, for a whole connection or for one session of it; what
//! JSON cannot express is listed at [`Codec`].
//!
//! ```
//! use rpc::{Codec, Connection, Server};
//! # #[rpc::service]
//! # pub trait Greeter {
//! #     async fn greet(&self, name: &str) -> rpc::Result<String>;
//! # }
//! # struct Polite;
//! # impl Greeter for Polite {
//! #     async fn greet(&self, name: &str) -> rpc::Result<String> {
//! #         Ok(format!("Good day, {name}."))
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().service(GreeterServer::new(Polite)).listen("tcp://127.0.0.1:0").await?;
//!
//! // By order of preference; the server has both.
//! let connection = Connection::builder().codecs([Codec::Json, Codec::Postcard]).open(server.endpoint()).await?;
//! let greeter: GreeterClient = connection.session().open().await?;
//! assert_eq!(greeter.greet("\"Ada\"").await?, "Good day, \"Ada\".");
//!
//! // One session in another codec than its neighbours.
//! let compact: GreeterClient = connection.session().codec(Codec::Postcard).open().await?;
//! assert_eq!(compact.greet("Ada").await?, "Good day, Ada.");
//! # Ok(())
//! # }
//! ```

pub mod inspect;

pub use inspect::inspector;
pub use rpc_core::code::Code;
pub use rpc_core::codec::{Codec, DecodeLimits};
pub use rpc_core::context::{Context, Peer, Principal};
pub use rpc_core::metadata::{Metadata, MetadataError};
pub use rpc_core::proto::{Allowance, ConnectionError, Limits, ProtocolError};
pub use rpc_core::service::{MethodInfo, MethodKind, Reply, Request, ServiceInfo};
pub use rpc_core::status::{AppError, Error, Fault, FaultKind, Never, OrApp, Result, ResultExt};
pub use rpc_core::streaming::Streaming;
pub use rpc_core::wire::frame::Reason;
/// # A stream outlives its call
///
/// So it cannot read from `&self`, and the compiler says that "borrowed data escapes outside of method". Keep what it
/// reads in an `Arc`, and move a clone of that into the stream:
///
/// ```
/// # use std::sync::{Arc, RwLock};
/// # use futures::StreamExt;
/// # use rpc::Streaming;
///
/// #[rpc::service]
/// trait Log {
///     async fn lines(&self) -> rpc::Result<Streaming<String>>;
/// }
///
/// struct Inner {
///     lines: RwLock<Vec<String>>,
/// }
///
/// struct Memory {
///     inner: Arc<Inner>,
/// }
///
/// impl Log for Memory {
///     async fn lines(&self) -> rpc::Result<Streaming<String>> {
///         let inner = Arc::clone(&self.inner);
///         let line = move |n: usize| inner.lines.read().unwrap().get(n).cloned();
///         Ok(Streaming::new(futures::stream::iter((0..).map_while(line))))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let inner = Arc::new(Inner { lines: RwLock::new(vec!["one".into(), "two".into()]) });
/// let log = rpc::local::<LogClient>(LogServer::new(Memory { inner: inner.clone() }));
/// let mut lines = log.lines().await?;
/// assert_eq!(lines.next().await.unwrap()?, "one");
/// inner.lines.write().unwrap().push("three".into());
/// assert_eq!(lines.count().await, 2);
/// # Ok(())
/// # }
/// ```
pub use rpc_macros::service;
#[cfg(feature = "metrics")]
pub use rpc_transport::metrics;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
pub use rpc_transport::tls;
#[cfg(feature = "tower")]
pub use rpc_transport::tower;
pub use rpc_transport::{
    Activated, Address, BoxFuture, Budget, BudgetLevel, Call, Closed, Connected, Connection, ConnectionBuilder, Drained,
    Endpoint, EndpointError, Incoming, Listener, OpenError, Options, ServeError, Server, ServerBuilder, Session, SessionBuilder,
    Share, ToEndpoint, activated, bind, connect, dial, local,
};

/// ```
/// # use rpc::MethodKind;
/// #[rpc::service]
/// trait Ledger {
///     #[rpc(idempotent)]
///     async fn balance(&self, account: u64) -> rpc::Result<i64>;
///     async fn transfer(&self, from: u64, to: u64, amount: i64) -> rpc::Result<()>;
/// }
///
/// let ledger = rpc::describe::<LedgerClient>();
/// assert_eq!(ledger.name, "Ledger");
/// let balance = ledger.methods.iter().find(|method| method.name == "balance").unwrap();
/// assert!(balance.idempotent && balance.kind == MethodKind::Unary);
/// let repeatable = ledger.methods.iter().filter(|method| method.idempotent).count();
/// assert_eq!(repeatable, 1);
/// ```
pub use rpc_transport::describe;

/// What generated code names. Not for applications: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use futures_core::Stream;
    pub use rpc_core::codec::shared::Shared;
    pub use rpc_core::codec::wire::{ByteSlice, ByteVec, BytesRef, OptByteVec, Str};
    pub use rpc_core::context::Context;
    pub use rpc_core::service::{MethodInfo, MethodKind, Reply, ReplyFuture, Request, Service, ServiceInfo};
    pub use rpc_core::status::{Never, Outcome, Result};
    pub use rpc_core::streaming::Streaming;
    pub use rpc_core::travel;
    pub use rpc_core::travel::{Answer, Argument};
    pub use rpc_transport::{Actor, Backend, Call, Channel, Client, Direct, IntoLocal, bounded};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
