//! # rpc

pub use rpc_core::context::{Context, Peer};
pub use rpc_core::proto::{ConnectionError, Limits};
pub use rpc_core::status::{AppError, Error, Fault, FaultKind, Never, OrApp, Result, ResultExt};
pub use rpc_core::streaming::Streaming;
pub use rpc_macros::service;
pub use rpc_transport::{
    Call, Connection, ConnectionBuilder, Endpoint, EndpointError, OpenError, ServeError, Server, ServerBuilder, SessionBuilder,
    ToEndpoint, connect, local,
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
    pub use rpc_transport::{Backend, Call, Channel, Client, IntoLocal};
}
