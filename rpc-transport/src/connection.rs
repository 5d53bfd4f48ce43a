//! Connections as applications hold them.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use rpc_core::codec::Codec;
use rpc_core::id::Side;
use rpc_core::proto::{ConnectionError, Handshake, Limits};
use rpc_core::wire::frame::Mode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::channel::Client;
use crate::driver::{Driver, Start};
use crate::endpoint::{Endpoint, ToEndpoint};
use crate::error::OpenError;
use crate::session::SessionBuilder;
use crate::state::{Command, Guard, Link};
use crate::stream::Connected;
use crate::{memory, tcp};

/// Connects in single-session mode and opens the session: one connection, one client.
///
/// # Errors
/// See [`ConnectionBuilder::open`] and [`SessionBuilder::open`].
///
/// # Cancel safety
/// Dropping the future gives the connection up.
pub async fn connect<C: Client>(endpoint: impl ToEndpoint) -> Result<C, OpenError> {
    let connection = Connection::builder().single_session().open(endpoint).await?;
    connection.session().open().await
}

/// A connection that carries many sessions. Clones share it.
///
/// It closes when the last handle to it is gone: the connection itself, and the clients, calls and streams on it.
#[derive(Clone)]
pub struct Connection {
    guard: Arc<Guard>,
    limits: Limits,
}

impl Connection {
    /// Connects in multi-session mode with the default limits.
    ///
    /// # Errors
    /// See [`ConnectionBuilder::open`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up.
    pub async fn open(endpoint: impl ToEndpoint) -> Result<Self, OpenError> {
        Self::builder().open(endpoint).await
    }

    /// A connection with other than the default settings.
    pub fn builder() -> ConnectionBuilder {
        ConnectionBuilder { limits: Limits::default(), mode: Mode::Multi }
    }

    /// A session to be opened on this connection.
    pub fn session(&self) -> SessionBuilder {
        SessionBuilder::new(Arc::clone(&self.guard), self.limits.clone())
    }

    /// The other end's address, in the form of an endpoint.
    pub fn peer(&self) -> &str {
        self.guard.peer()
    }

    /// Waits until the connection has ended, and tells why.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn closed(&self) -> ConnectionError {
        poll_fn(|cx| self.guard.link().poll_closed(cx)).await
    }

    /// Closes the connection at once, whoever else holds it: what is queued is written, calls under way fail. Returns
    /// when it has ended.
    ///
    /// # Cancel safety
    /// The connection closes even if the future is dropped after its first poll.
    pub async fn close(&self) {
        self.guard.link().command(Command::Close);
        self.closed().await;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

/// Settings of a connection.
#[derive(Debug, Clone)]
#[must_use = "a connection is made by `open`"]
pub struct ConnectionBuilder {
    limits: Limits,
    mode: Mode,
}

impl ConnectionBuilder {
    /// What this side takes from the server.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// One session alone on its connection: no session ids on the wire.
    pub fn single_session(mut self) -> Self {
        self.mode = Mode::Single;
        self
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// [`OpenError::Endpoint`] and [`OpenError::Config`] for what this side got wrong, [`OpenError::Unreachable`] if
    /// nobody answers, [`OpenError::Connection`] if the handshake fails.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up.
    pub async fn open(self, endpoint: impl ToEndpoint) -> Result<Connection, OpenError> {
        self.limits.check().map_err(OpenError::Config)?;
        let endpoint = endpoint.to_endpoint()?;
        let connecting = async {
            match &endpoint {
                Endpoint::Tcp { host, port } => tcp::connect(host, *port).await,
                Endpoint::Memory { name } => memory::connect(name).await,
            }
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "nobody answered in time");
        let connected = tokio::time::timeout(self.limits.handshake, connecting).await.unwrap_or_else(|_| Err(late()));
        let unreachable = |error: std::io::Error| OpenError::Unreachable {
            endpoint: endpoint.clone(),
            kind: error.kind(),
            detail: error.to_string(),
        };
        self.start(connected.map_err(unreachable)?).await
    }

    async fn start(self, io: Connected) -> Result<Connection, OpenError> {
        let runtime = Handle::current();
        let link = Link::new(self.limits.connection_window, runtime.clone());
        let guard = Arc::new(Guard::new(Arc::clone(&link), io.peer.clone()));
        let (told, connected) = oneshot::channel();
        let handshake = Handshake {
            side: Side::Initiator,
            mode: self.mode,
            modes: Vec::new(),
            codecs: Codec::ALL.iter().map(|codec| codec.wire_id()).collect(),
        };
        let start = Start { handshake, limits: self.limits.clone(), services: None, connected: Some(told) };
        runtime.spawn(Driver::new(io, start, link).run());
        connected.await.unwrap_or(Err(ConnectionError::Closed))?;
        Ok(Connection { guard, limits: self.limits })
    }
}
