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
//! | choose what messages look like | [`Codec`], [`ConnectionBuilder::codecs`], [`ServerBuilder::codecs`] |
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

pub use rpc_core::code::Code;
pub use rpc_core::codec::{Codec, DecodeLimits};
pub use rpc_core::context::{Context, Peer};
pub use rpc_core::proto::{ConnectionError, Limits, ProtocolError};
pub use rpc_core::status::{AppError, Error, Fault, FaultKind, Never, OrApp, Result, ResultExt};
pub use rpc_core::streaming::Streaming;
pub use rpc_core::wire::frame::Reason;
pub use rpc_macros::service;
pub use rpc_transport::{
    Call, Closed, Connection, ConnectionBuilder, Drained, Endpoint, EndpointError, OpenError, ServeError, Server, ServerBuilder,
    Session, SessionBuilder, ToEndpoint, connect, local,
};

/// What generated code names. Not for applications: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use futures_core::Stream;
    pub use rpc_core::codec::wire::{ByteSlice, ByteVec, BytesRef, OptByteVec, Str};
    pub use rpc_core::context::Context;
    pub use rpc_core::service::{Answer, Argument, MethodInfo, MethodKind, Reply, ReplyFuture, Request, Service, ServiceInfo};
    pub use rpc_core::status::{AppError, Never, Outcome};
    pub use rpc_core::streaming::Streaming;
    pub use rpc_transport::{Backend, Call, Channel, Client, Direct, IntoLocal, bounded};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
