//! Connections as applications hold them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rpc_core::codec::Codec;
use rpc_core::context::Peer;
use rpc_core::id::Side;
use rpc_core::proto::{ConnectionError, Handshake, Limits};
use rpc_core::service::Service;
use rpc_core::wire::frame::Mode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::channel::Client;
use crate::dispatch::{Offer, Services};
use crate::driver::{Driver, Start};
use crate::ending::Drained;
use crate::endpoint::ToEndpoint;
use crate::error::OpenError;
use crate::session::{Session, SessionBuilder};
use crate::state::{Command, Guard, Link};
use crate::stream::Connected;
use crate::{backend, clock};

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

/// A connection that carries many sessions, opened and served by either side. Clones share it.
///
/// On the side that made it, it closes when the last handle to it is gone: the connection itself, and the clients, calls
/// and streams on it. A side that only serves keeps its handle for as long as it wants to. The handles of the other side,
/// from [`of`](Self::of) and [`current`](Self::current), do not keep it open.
#[derive(Clone)]
pub struct Connection {
    guard: Arc<Guard>,
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
        let (limits, codecs) = (Limits::default(), Codec::ALL.to_vec());
        ConnectionBuilder { limits, mode: Mode::Multi, codecs, services: Vec::new(), tls: None }
    }

    /// The connection that a session is on; `None` if the session is over. A handler calls its caller's services with it:
    /// [`current`](Self::current).
    pub fn of(session: &Session) -> Option<Self> {
        Some(Self::remote(session.link()?))
    }

    /// The connection that the call which is being handled came over; `None` outside of a call, and for direct calls.
    pub fn current() -> Option<Self> {
        Self::of(&Session::current()?)
    }

    /// A handle of the side that was connected to.
    pub(crate) fn remote(link: Arc<Link>) -> Self {
        Self { guard: Guard::new(link, false) }
    }

    /// A session to be opened on this connection.
    pub fn session(&self) -> SessionBuilder {
        let Link { limits, codecs, .. } = &**self.guard.link();
        SessionBuilder::new(Arc::clone(&self.guard), limits.clone(), codecs.clone())
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.guard.link().peer
    }

    /// Waits until the connection has ended, and tells why.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn closed(&self) -> ConnectionError {
        self.guard.link().wait_closed().await
    }

    /// Ends the connection in good order: no further sessions, no further calls, and what is under way comes to its end,
    /// on both sides, within `within`; what has not is cut off then. Returns when the connection has ended.
    ///
    /// # Cancel safety
    /// The drain goes on even if the future is dropped after its first poll.
    pub async fn drain(&self, within: Duration) -> Drained {
        let link = self.guard.link();
        link.command(Command::Drain(clock::now().0.after(within)));
        self.closed().await;
        Drained { connections: 1, cut: link.lock().cut }
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

impl fmt::Debug for ConnectionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limits, mode, codecs, services, tls } = self;
        let mut builder = f.debug_struct("ConnectionBuilder");
        builder.field("limits", limits).field("mode", mode).field("codecs", codecs).field("services", services);
        builder.field("tls", tls).finish()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", self.peer()).finish_non_exhaustive()
    }
}

/// Settings of a connection.
#[derive(Clone)]
#[must_use = "a connection is made by `open`"]
pub struct ConnectionBuilder {
    limits: Limits,
    mode: Mode,
    codecs: Vec<Codec>,
    services: Vec<Offer>,
    tls: Option<backend::ClientTls>,
}

impl ConnectionBuilder {
    /// Offers a service to the server: its handlers, and whoever else has a handle of the connection there, can call it
    /// in sessions of their own. Not in single-session mode, where the one session is the client's.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Offer::new(service, false));
        self
    }

    /// Offers a service to a server that is trusted as much as this process itself: its arguments are decoded without
    /// limits of depth, items and memory.
    pub fn trusting_service(mut self, service: impl Service) -> Self {
        self.services.push(Offer::new(service, true));
        self
    }

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

    /// What the messages of this connection's sessions may be encoded in, the preferred codec first. Without it, all that
    /// are built in, postcard first. A session has the first of them that the server has too; see also
    /// [`SessionBuilder::codec`].
    pub fn codecs(mut self, codecs: impl IntoIterator<Item = Codec>) -> Self {
        self.codecs = codecs.into_iter().collect();
        self
    }

    /// What TLS needs: whom to trust, and which certificate to show. It holds for endpoints that say TLS, of which each option
    /// may be in one of the two places; with other endpoints it is an error, so that nothing goes in the clear by mistake.
    /// [`open_over`](Self::open_over) has TLS if this is set, and expects [`ClientTls::name`](crate::tls::ClientTls::name).
    #[cfg(feature = "_tls")]
    pub fn tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// [`OpenError::Endpoint`] and [`OpenError::Config`] for what this side got wrong, [`OpenError::Unreachable`] if
    /// nobody answers, `OpenError::Tls` if the sides do not trust each other, [`OpenError::Connection`] if the handshake
    /// fails, for example with [`ConnectionError::Rejected`] where the sides have no codec in common.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up.
    pub async fn open(mut self, endpoint: impl ToEndpoint) -> Result<Connection, OpenError> {
        let tls = self.tls.take();
        let ready = self.check()?;
        let endpoint = endpoint.to_endpoint()?;
        let tls = backend::Connector::new(tls, Some(&endpoint)).await.map_err(OpenError::Config)?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "nobody answered in time");
        let connecting = tokio::time::timeout(ready.limits.handshake, backend::connect(&endpoint, tls.as_ref())).await;
        let connected = connecting.unwrap_or_else(|_| Err(late()));
        let connected = connected.map_err(|error| OpenError::unreachable(endpoint.clone(), &error))?;
        let opened = ready.shake_hands(connected).await;
        match tls {
            Some(tls) => opened.map_err(|error| tls.explain(endpoint.to_string(), error)),
            None => opened,
        }
    }

    /// Shakes hands over a stream that was connected elsewhere.
    ///
    /// # Errors
    /// [`OpenError::Config`] for what this side got wrong, `OpenError::Tls` if the sides do not trust each other,
    /// [`OpenError::Connection`] if the handshake fails.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up.
    pub async fn open_over(mut self, stream: Connected) -> Result<Connection, OpenError> {
        let tls = self.tls.take();
        let ready = self.check()?;
        let Some(tls) = backend::Connector::new(tls, None).await.map_err(OpenError::Config)? else {
            return ready.shake_hands(stream).await;
        };
        let peer = stream.peer.endpoint.clone();
        let securing = tokio::time::timeout(ready.limits.handshake, tls.over(stream)).await;
        let opened = match securing {
            Ok(Ok(stream)) => ready.shake_hands(stream).await,
            Ok(Err(error)) => Err(ConnectionError::from(error).into()),
            Err(_) => Err(ConnectionError::Handshake.into()),
        };
        opened.map_err(|error| tls.explain(peer, error))
    }

    fn check(self) -> Result<Ready, OpenError> {
        let Self { limits, mode, codecs, services, tls: _ } = self;
        limits.check().map_err(OpenError::Config)?;
        let offer = Codec::offer("ConnectionBuilder::codecs", &codecs).map_err(OpenError::Config)?;
        let services = Services::new(services).map_err(OpenError::Config)?;
        if mode == Mode::Single && !services.is_empty() {
            let text = "in single-session mode the server opens no sessions, so it could not call a service of this side: \
                        leave `single_session` out";
            return Err(OpenError::Config(text.to_owned()));
        }
        let handshake = Handshake { side: Side::Initiator, mode, modes: Vec::new(), codecs: offer };
        Ok(Ready { limits, codecs, handshake, services })
    }
}

/// Settings that fit together.
struct Ready {
    limits: Limits,
    codecs: Vec<Codec>,
    handshake: Handshake,
    services: Services,
}

impl Ready {
    async fn shake_hands(self, Connected { io, peer }: Connected) -> Result<Connection, OpenError> {
        let runtime = Handle::current();
        let link = Link::new(peer, self.limits, self.codecs, runtime.clone());
        let guard = Guard::new(Arc::clone(&link), true);
        let (told, connected) = oneshot::channel();
        let start = Start { handshake: self.handshake, services: Arc::new(self.services), connected: Some(told), share: None };
        runtime.spawn(Driver::new(io, start, link).run());
        connected.await.unwrap_or(Err(ConnectionError::Closed))?;
        Ok(Connection { guard })
    }
}
