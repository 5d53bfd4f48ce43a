//! Servers: services behind a listener.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpc_core::codec::Codec;
use rpc_core::id::Side;
use rpc_core::proto::{Handshake, Limits};
use rpc_core::service::Service;
use rpc_core::wire::frame::Mode;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::dispatch::Services;
use crate::driver::{Driver, Start};
use crate::endpoint::{Endpoint, ToEndpoint};
use crate::error::ServeError;
use crate::memory::MemoryListener;
use crate::state::{Command, Link, lock};
use crate::stream::Connected;
use crate::{memory, tcp};

/// The shortest and the longest pause behind an error of `accept`: it must neither end the loop nor spin.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A running server. It stops when the handle is dropped; see also [`shutdown`](Self::shutdown).
pub struct Server {
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// A server to be set up.
    pub fn builder() -> ServerBuilder {
        ServerBuilder { services: Vec::new(), limits: Limits::default(), modes: vec![Mode::Single, Mode::Multi] }
    }

    /// Where it listens, with the port that was bound.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Stops accepting and closes all connections: what is queued is written, calls under way fail. Returns when all
    /// have ended.
    ///
    /// # Cancel safety
    /// The server stops even if the future is dropped.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(accepting) = self.accepting.take() {
            // A panic there has been reported by the runtime.
            let _ = accepting.await;
        }
    }

    /// Serves until the task is cancelled; for a `main` that has nothing else to do.
    pub async fn wait(mut self) {
        if let Some(accepting) = &mut self.accepting {
            let _ = accepting.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Settings of a server.
#[must_use = "a server is started by `listen`"]
pub struct ServerBuilder {
    services: Vec<(Arc<dyn Service>, bool)>,
    limits: Limits,
    modes: Vec<Mode>,
}

impl ServerBuilder {
    /// Offers a service: `KvServer::new(store)`. Several services share the listener and each of its connections.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push((Arc::new(service), false));
        self
    }

    /// Offers a service whose peers are trusted as much as this process itself: their arguments are decoded without
    /// limits of depth, items and memory.
    pub fn trusting_service(mut self, service: impl Service) -> Self {
        self.services.push((Arc::new(service), true));
        self
    }

    /// What this side takes from clients.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Accepts only connections with one session.
    pub fn single_session_only(mut self) -> Self {
        self.modes = vec![Mode::Single];
        self
    }

    /// Accepts only connections with many sessions.
    pub fn multi_session_only(mut self) -> Self {
        self.modes = vec![Mode::Multi];
        self
    }

    /// Starts to listen and serve. Port 0 takes any free port; [`Server::endpoint`] tells which.
    ///
    /// # Errors
    /// [`ServeError::Endpoint`] and [`ServeError::Config`] for what this side got wrong, [`ServeError::Listen`] for
    /// what the operating system refuses.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn listen(self, endpoint: impl ToEndpoint) -> Result<Server, ServeError> {
        self.limits.check().map_err(ServeError::Config)?;
        let mut services = Services::default();
        for (service, trusted) in self.services {
            services.add(service, trusted).map_err(ServeError::Config)?;
        }
        let endpoint = endpoint.to_endpoint()?;
        let listener = Listener::open(&endpoint).await;
        let (listener, endpoint) = listener.map_err(|source| ServeError::Listen { endpoint, source })?;
        let (stop, stopped) = watch::channel(false);
        let acceptor = Acceptor { services: Arc::new(services), limits: self.limits, modes: self.modes, links: Arc::default() };
        let accepting = Some(tokio::spawn(acceptor.run(listener, stopped)));
        Ok(Server { endpoint, stop, accepting })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.services.iter().map(|(service, _)| service.info().name).collect();
        f.debug_struct("ServerBuilder").field("services", &names).field("limits", &self.limits).finish_non_exhaustive()
    }
}

enum Listener {
    Tcp(TcpListener),
    Memory(MemoryListener),
}

impl Listener {
    async fn open(endpoint: &Endpoint) -> io::Result<(Self, Endpoint)> {
        match endpoint {
            Endpoint::Tcp { host, port } => {
                let (listener, bound) = tcp::listen(host, *port).await?;
                Ok((Self::Tcp(listener), bound))
            }
            Endpoint::Memory { name } => Ok((Self::Memory(memory::listen(name)?), endpoint.clone())),
        }
    }

    async fn accept(&mut self) -> io::Result<Connected> {
        match self {
            Self::Tcp(listener) => tcp::accept(listener).await,
            Self::Memory(listener) => listener.accept().await,
        }
    }
}

/// Waits for the word, or for the server's handle to be gone.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The accept loop and what each connection starts with.
struct Acceptor {
    services: Arc<Services>,
    limits: Limits,
    modes: Vec<Mode>,
    links: Arc<Mutex<Vec<std::sync::Weak<Link>>>>,
}

impl Acceptor {
    async fn run(self, mut listener: Listener, mut stopped: watch::Receiver<bool>) {
        let mut drivers = JoinSet::new();
        let mut pause = BACK_OFF.0;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(io) => {
                        pause = BACK_OFF.0;
                        drivers.spawn(self.serve(io));
                    }
                    // Out of descriptors, or a connection that was gone before it was accepted: neither is the end.
                    Err(_) => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(BACK_OFF.1);
                    }
                },
                // Ended drivers are taken out as they come, so that the set holds the living only.
                Some(_) = drivers.join_next() => {}
                () = told_to_stop(&mut stopped) => break,
            }
        }
        drop(listener);
        for link in lock(&self.links).drain(..) {
            if let Some(link) = link.upgrade() {
                link.command(Command::Close);
            }
        }
        while drivers.join_next().await.is_some() {}
    }

    fn serve(&self, io: Connected) -> impl Future<Output = rpc_core::proto::ConnectionError> + use<> {
        let link = Link::new(self.limits.connection_window, Handle::current());
        let mut links = lock(&self.links);
        if links.len() == links.capacity() {
            links.retain(|link| link.strong_count() > 0);
        }
        links.push(Arc::downgrade(&link));
        let codecs = Codec::ALL.iter().map(|codec| codec.wire_id()).collect();
        let handshake = Handshake { side: Side::Acceptor, mode: Mode::Multi, modes: self.modes.clone(), codecs };
        let services = Some(Arc::clone(&self.services));
        let start = Start { handshake, limits: self.limits.clone(), services, connected: None };
        Driver::new(io, start, link).run()
    }
}
