//! Servers: services behind a listener.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rpc_core::codec::Codec;
use rpc_core::id::Side;
use rpc_core::proto::{ConnectionError, Handshake, Limits, Time};
use rpc_core::service::Service;
use rpc_core::wire::frame::Mode;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::budget::{Budget, BudgetLevel};
use crate::connection::Connection;
use crate::dispatch::{Offer, Services};
use crate::driver::{Driver, Start};
use crate::ending::Drained;
use crate::endpoint::{Endpoint, ToEndpoint};
use crate::error::ServeError;
use crate::peers::Peers;
use crate::state::{Command, Link, lock};
use crate::stream::{Connected, Incoming, Listener};
use crate::tally::Event;
use crate::{backend, clock};

/// The shortest and the longest pause behind an error of `accept`: it must neither end the loop nor spin.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A running server. It stops at once when the handle is dropped; see [`drain_on`](Self::drain_on) for a better end.
pub struct Server {
    endpoint: Endpoint,
    stop: watch::Sender<Stop>,
    accepting: Option<JoinHandle<Drained>>,
    drain: Duration,
    budget: Budget,
}

/// What the accept loop is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Serve,
    /// Let everything come to its end; at this time at the latest.
    Drain(Time),
    Close,
}

impl Server {
    /// A server to be set up.
    pub fn builder() -> ServerBuilder {
        let (limits, modes, codecs) = (Limits::default(), vec![Mode::Single, Mode::Multi], Codec::ALL.to_vec());
        let services = Vec::new();
        ServerBuilder { services, limits, modes, codecs, on_connection: None, tls: None, budget: None }
    }

    /// Where it listens, with the port that was bound.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The memory that it holds for its peers.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Serves until `signal` completes, then [drains](Self::drain) for at most [`Limits::drain`] (30 s).
    ///
    /// ```no_run
    /// # async fn serve(server: rpc_transport::Server) {
    /// let drained = server.drain_on(tokio::signal::ctrl_c()).await;
    /// if !drained.is_clean() {
    ///     eprintln!("{} calls were cut off", drained.cut);
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future stops the server at once.
    pub async fn drain_on<S: Future>(self, signal: S) -> Drained {
        signal.await;
        let within = self.drain;
        self.drain(within).await
    }

    /// Stops in good order: takes no further connections, sessions and calls, lets those under way come to their end, and
    /// cuts off what has not after `within`. A client learns of it at once; a call that it makes from then on fails as
    /// [not started](rpc_core::status::FaultKind::NotStarted), so that it can be made elsewhere. Returns when all
    /// connections have ended, a second after `within` at the latest.
    ///
    /// # Cancel safety
    /// Dropping the future stops the server at once.
    pub async fn drain(mut self, within: Duration) -> Drained {
        self.stop.send_replace(Stop::Drain(clock::now().0.after(within)));
        self.wait_for_all().await
    }

    /// Stops accepting and closes all connections: what is queued is written, calls under way fail, and each caller is
    /// told whether its call may have run. Returns when all have ended.
    ///
    /// # Cancel safety
    /// The server stops even if the future is dropped.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(Stop::Close);
        self.wait_for_all().await;
    }

    /// Serves until the task is cancelled; for a `main` that has nothing else to do.
    pub async fn wait(mut self) {
        self.wait_for_all().await;
    }

    async fn wait_for_all(&mut self) -> Drained {
        match &mut self.accepting {
            // A panic there has been reported by the runtime.
            Some(accepting) => accepting.await.unwrap_or_default(),
            None => Drained::default(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Close);
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
    services: Vec<Offer>,
    limits: Limits,
    modes: Vec<Mode>,
    codecs: Vec<Codec>,
    on_connection: Option<OnConnection>,
    tls: Option<backend::ServerTls>,
    budget: Option<Budget>,
}

/// What is told of every connection.
type OnConnection = Arc<dyn Fn(Connection) + Send + Sync>;

impl ServerBuilder {
    /// Offers a service: `KvServer::new(store)`. Several services share the listener and each of its connections.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Offer::new(service, false));
        self
    }

    /// Offers a service whose peers are trusted as much as this process itself: their arguments are decoded without
    /// limits of depth, items and memory.
    pub fn trusting_service(mut self, service: impl Service) -> Self {
        self.services.push(Offer::new(service, true));
        self
    }

    /// What this side takes from clients.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The memory to hold for peers, where several servers share it. Without it a server has [`Limits::memory`] for itself.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
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

    /// Calls `tell` with every connection, once its handshake is over: a server that calls its clients on its own account
    /// opens sessions on it. `tell` must not block; it can spawn. The handle does not keep the connection open.
    pub fn on_connection(mut self, tell: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        self.on_connection = Some(Arc::new(tell));
        self
    }

    /// What messages may be encoded in. Without it, all codecs that are built in. The order is what a refused client is
    /// shown; which codec a session has, its client prefers.
    pub fn codecs(mut self, codecs: impl IntoIterator<Item = Codec>) -> Self {
        self.codecs = codecs.into_iter().collect();
        self
    }

    /// What TLS needs: a certificate, and whom to serve. It holds for endpoints that say TLS, of which each option may be in
    /// one of the two places; with other endpoints it is an error, so that nothing goes in the clear by mistake.
    /// [`serve`](Self::serve) has TLS over its listener if this is set.
    #[cfg(feature = "_tls")]
    pub fn tls(mut self, tls: crate::tls::ServerTls) -> Self {
        self.tls = Some(tls);
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
    pub async fn listen(mut self, endpoint: impl ToEndpoint) -> Result<Server, ServeError> {
        let tls = self.tls.take();
        let acceptor = self.check()?;
        let endpoint = endpoint.to_endpoint()?;
        let tls = backend::Acceptor::new(tls, Some(&endpoint)).map_err(ServeError::Config)?;
        let listener = backend::listen(&endpoint, tls).await.map_err(|source| ServeError::Listen { endpoint, source })?;
        Ok(acceptor.start(listener))
    }

    /// The same with a listener of one's own: for transports that are not built in.
    ///
    /// # Errors
    /// [`ServeError::Config`] for what this side got wrong.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn serve(mut self, listener: impl Listener) -> Result<Server, ServeError> {
        let tls = self.tls.take();
        let acceptor = self.check()?;
        let tls = backend::Acceptor::new(tls, None).map_err(ServeError::Config)?;
        Ok(acceptor.start(backend::over(Box::new(listener), tls)))
    }

    fn check(self) -> Result<Acceptor, ServeError> {
        let Self { services, limits, modes, codecs, on_connection, tls: _, budget } = self;
        limits.check().map_err(ServeError::Config)?;
        let offer = Codec::offer("ServerBuilder::codecs", &codecs).map_err(ServeError::Config)?;
        let services = Arc::new(Services::new(services).map_err(ServeError::Config)?);
        let (budget, peers) = (budget.unwrap_or_else(|| Budget::new(limits.memory)), Peers::new(limits.per_peer));
        Ok(Acceptor { services, limits, modes, codecs, offer, on_connection, budget, peers, links: Mutex::default() })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("services", &self.services).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Waits for another word than `last`; a server's handle that is gone has said its last.
async fn told(stop: &mut watch::Receiver<Stop>, last: Stop) -> Stop {
    stop.wait_for(|stop| *stop != last).await.map_or(Stop::Close, |stop| *stop)
}

/// The accept loop and what each connection starts with.
struct Acceptor {
    services: Arc<Services>,
    limits: Limits,
    modes: Vec<Mode>,
    codecs: Vec<Codec>,
    /// The same by number.
    offer: Vec<u8>,
    on_connection: Option<OnConnection>,
    budget: Budget,
    peers: Arc<Peers>,
    links: Mutex<Vec<Weak<Link>>>,
}

impl Acceptor {
    fn start(self, listener: Box<dyn Listener>) -> Server {
        let (endpoint, drain, budget) = (listener.endpoint(), self.limits.drain, self.budget.clone());
        let (stop, stopped) = watch::channel(Stop::Serve);
        let accepting = Some(tokio::spawn(Arc::new(self).run(listener, stopped)));
        Server { endpoint, stop, accepting, drain, budget }
    }

    async fn run(self: Arc<Self>, mut listener: Box<dyn Listener>, mut stop: watch::Receiver<Stop>) -> Drained {
        let mut drivers = JoinSet::new();
        let (mut pause, mut resume) = (BACK_OFF.0, Instant::now());
        let mut word = loop {
            let next = async {
                tokio::time::sleep_until(resume).await;
                listener.accept().await
            };
            let full = self.budget.level() == BudgetLevel::Full;
            tokio::select! {
                // Where there are as many as there may be, further ones wait with the system: in its bounded backlog they
                // cost nothing here, and a burst is served late instead of turned away.
                accepted = next, if !full && (drivers.len() as u64) < self.limits.connections => match accepted {
                    Ok(incoming) => {
                        pause = BACK_OFF.0;
                        drivers.spawn(Arc::clone(&self).serve(incoming, stop.clone()));
                    }
                    // Out of descriptors, or a connection that was gone before it was accepted: neither is the end.
                    Err(_) => {
                        resume = Instant::now() + pause;
                        pause = (pause * 2).min(BACK_OFF.1);
                    }
                },
                () = self.budget.not_full(), if full => {}
                // Ended drivers are taken out as they come, so that the set holds the living only.
                Some(_) = drivers.join_next() => {}
                word = told(&mut stop, Stop::Serve) => break word,
            }
        };
        drop(listener);
        self.pass_on(word);
        let mut drained = Drained::default();
        loop {
            tokio::select! {
                ended = drivers.join_next() => match ended {
                    Some(Ok(Some(cut))) => {
                        drained.connections += 1;
                        drained.cut += cut;
                    }
                    // One that had not come to stand, or whose panic the runtime has reported.
                    Some(Ok(None) | Err(_)) => {}
                    None => return drained,
                },
                // Whoever let go of a drain does not wait for it any more.
                next = told(&mut stop, word), if word != Stop::Close => {
                    word = next;
                    self.pass_on(word);
                }
            }
        }
    }

    /// Tells every connection to end.
    fn pass_on(&self, word: Stop) {
        lock(&self.links).iter().filter_map(Weak::upgrade).for_each(|link| tell(&link, word));
    }

    /// A connection from its first byte to its last. Returns how many calls were under way then; `None`: it never was one.
    async fn serve(self: Arc<Self>, incoming: Incoming, mut stop: watch::Receiver<Stop>) -> Option<u64> {
        let connected = tokio::select! {
            connected = tokio::time::timeout(self.limits.handshake, incoming.connected()) => connected.ok().and_then(Result::ok),
            // Whoever is not there yet has been promised nothing.
            _ = told(&mut stop, Stop::Serve) => return None,
        };
        let Some(Connected { io, peer }) = connected else {
            Event::Setup.happened();
            return None;
        };
        // Whoever has as many as it may is closed unheard: words would hold a place for those who do not read them.
        let Some(_entered) = self.peers.enter(&peer) else {
            Event::PerPeer.happened();
            return None;
        };
        let link = Link::new(peer, self.limits.clone(), self.codecs.clone(), Handle::current());
        self.remember(&link);
        // The word may have been passed on a moment before.
        tell(&link, *stop.borrow());
        let (modes, codecs) = (self.modes.clone(), self.offer.clone());
        let handshake = Handshake { side: Side::Acceptor, mode: Mode::Multi, modes, codecs };
        let services = Arc::clone(&self.services);
        let connected = self.on_connection.as_ref().map(|tell| announce(Arc::clone(tell), Arc::clone(&link)));
        let start = Start { handshake, services, connected, share: Some(self.budget.share()) };
        Some(Driver::new(io, start, link).run().await)
    }

    fn remember(&self, link: &Arc<Link>) {
        let mut links = lock(&self.links);
        if links.len() == links.capacity() {
            links.retain(|link| link.strong_count() > 0);
        }
        links.push(Arc::downgrade(link));
    }
}

/// Tells a connection to end.
fn tell(link: &Link, word: Stop) {
    match word {
        Stop::Serve => {}
        Stop::Drain(until) => link.command(Command::Drain(until)),
        Stop::Close => link.command(Command::Close),
    }
}

/// Waits for the handshake, and tells of the connection.
fn announce(tell: OnConnection, link: Arc<Link>) -> oneshot::Sender<Result<(), ConnectionError>> {
    let (done, connected) = oneshot::channel();
    tokio::spawn(async move {
        if let Ok(Ok(())) = connected.await {
            tell(Connection::remote(link));
        }
    });
    done
}
