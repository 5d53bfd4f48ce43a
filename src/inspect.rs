//! What the connections, sessions and exchanges of this process are doing, and who is held up by what: as functions, and as
//! a service.
//!
//! It is always there: a connection's driver looks when somebody asks, and nothing is counted before. Every answer is
//! bounded, and tells where the next one begins.
//!
//! ```
//! use rpc::inspect::{self, Cause};
//! # #[rpc::service]
//! # trait Greeter {
//! #     async fn greet(&self, name: &str) -> rpc::Result<String>;
//! # }
//! # struct Silent;
//! # impl Greeter for Silent {
//! #     async fn greet(&self, _name: &str) -> rpc::Result<String> {
//! #         std::future::pending().await
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = rpc::Server::builder().service(GreeterServer::new(Silent)).listen("mem://inspected").await?;
//! # let greeter: GreeterClient = rpc::connect(server.endpoint()).await?;
//! # tokio::spawn(greeter.greet("Ada"));
//! # let hanging = || async {
//! #     let waits = |info: &inspect::ConnectionInfo| info.waiting.iter().any(|waiting| waiting.cause == Cause::Handler);
//! #     inspect::connections(0).await.page.iter().any(waits)
//! # };
//! # while !hanging().await {
//! #     tokio::task::yield_now().await;
//! # }
//! for connection in inspect::connections(0).await.page {
//!     for waiting in connection.waiting {
//!         println!("{}: {} exchanges wait for {}", connection.peer, waiting.exchanges, waiting.cause);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

#[doc(inline)]
pub use rpc_transport::inspect::{
    Cause, ConnectionDetail, ConnectionInfo, Connections, ExchangeInfo, SessionInfo, Stage, Stall, Waiting, Watch, connection,
    connections, watch,
};

use crate::Streaming;

/// [`connections`], [`connection`] and [`watch`] as a service.
#[rpc_macros::service(crate = "crate")]
pub trait Inspector {
    /// The connections of the process, from number `from` on.
    #[rpc(idempotent)]
    async fn connections(&self, from: u64) -> crate::Result<Connections>;

    /// One connection, with its sessions from number `from_sid` on and their exchanges; `None`: there is none of that number.
    #[rpc(idempotent)]
    async fn connection(&self, id: u64, from_sid: u64) -> crate::Result<Option<ConnectionDetail>>;

    /// The same as `connections`, every so many milliseconds, 100 at the least, for as long as somebody takes it.
    async fn watch(&self, from: u64, every_ms: u64) -> crate::Result<Streaming<Connections>>;
}

/// The process that is inspected: this one.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisProcess;

impl Inspector for ThisProcess {
    async fn connections(&self, from: u64) -> crate::Result<Connections> {
        Ok(connections(from).await)
    }

    async fn connection(&self, id: u64, from_sid: u64) -> crate::Result<Option<ConnectionDetail>> {
        Ok(connection(id, from_sid).await)
    }

    async fn watch(&self, from: u64, every_ms: u64) -> crate::Result<Streaming<Connections>> {
        Ok(Streaming::new(watch(from, Duration::from_millis(every_ms))))
    }
}

/// This process's inspector, to be offered as any other service.
///
/// It tells about **all** peers of the process: who they are, which services and methods they use, how much. So it is for a
/// listener of its own that only its owner reaches, such as `local://name`, or for a layer in front of it that knows whom to
/// let through.
///
/// ```
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let inspection = rpc::Server::builder().service(rpc::inspector()).listen("local://kv-inspector").await?;
/// # drop(inspection);
/// # Ok(())
/// # }
/// ```
pub fn inspector() -> InspectorServer<ThisProcess> {
    InspectorServer::new(ThisProcess)
}
