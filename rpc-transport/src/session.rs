//! Sessions: how they are opened, and how they end.

use std::fmt;
use std::sync::Arc;

use rpc_core::code::Code;
use rpc_core::codec::{Codec, DecodeLimits};
use rpc_core::context::{Context, Peer};
use rpc_core::id::Side;
use rpc_core::proto::{ConnectionError, Limits, Session as Proto};
use rpc_core::service::{Service, ServiceInfo};
use rpc_core::streaming::Decoding;
use rpc_core::wire::frame::Reason;
use rpc_core::wire::hello::{DEFAULT_WEIGHT, MAX_WEIGHT, SessionAccept, SessionOpen};
use tokio::sync::oneshot;

use crate::channel::{Channel, Client};
use crate::ending::Closed;
use crate::error::OpenError;
use crate::handle::SessionHandle;
use crate::state::{Command, Guard, Link, Opening, SessionState};

/// A session to be opened, made by [`Connection::session`](crate::Connection::session).
#[must_use = "a session is opened by `open`"]
pub struct SessionBuilder {
    guard: Arc<Guard>,
    limits: Limits,
    trusted: bool,
    /// What the connection offers.
    codecs: Vec<Codec>,
    codec: Option<Codec>,
    weight: u16,
    #[cfg(feature = "tower")]
    layers: Vec<Wrap>,
}

/// Puts a layer around what is below it, whatever the layer's type.
#[cfg(feature = "tower")]
type Wrap = Box<dyn FnOnce(Arc<dyn Service>) -> Arc<dyn Service> + Send + Sync>;

impl SessionBuilder {
    pub(crate) fn new(guard: Arc<Guard>, limits: Limits, codecs: Vec<Codec>) -> Self {
        Self {
            guard,
            limits,
            trusted: false,
            codecs,
            codec: None,
            weight: DEFAULT_WEIGHT,
            #[cfg(feature = "tower")]
            layers: Vec::new(),
        }
    }

    /// How many bytes the peer may send ahead of the application, in the session and on each of its streams, however long
    /// the path to it is. At least 512; without this 2 MiB, of which a stream may take 256 KiB, and more of both where that
    /// holds up a peer that is far away ([`Limits::max_session_window`]).
    pub fn window(mut self, bytes: u64) -> Self {
        self.limits.session_window = bytes;
        self.limits.stream_window = self.limits.stream_window.min(bytes);
        self.limits.max_session_window = bytes;
        self.limits.max_stream_window = self.limits.max_stream_window.min(bytes);
        self
    }

    /// Gives the session a weight, 1 to 256, among those of its connection; 16 without. Of two sessions that both have
    /// something to send, one of twice the weight sends twice as many bytes. A session that has the connection to itself
    /// is not held up by a small weight.
    ///
    /// It holds for what this side sends, and is a wish for what the peer does, which takes it as far as its own
    /// [`Limits::max_weight`] goes (64 by default).
    ///
    /// ```
    /// # #[rpc::service]
    /// # trait Backup {
    /// #     async fn save(&self, block: Vec<u8>) -> rpc::Result<u64>;
    /// # }
    /// # struct Disk;
    /// # impl Backup for Disk {
    /// #     async fn save(&self, block: Vec<u8>) -> rpc::Result<u64> {
    /// #         Ok(block.len() as u64)
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = rpc::Server::builder().service(BackupServer::new(Disk)).listen("mem://documented/weight").await?;
    /// # let connection = rpc::Connection::open(server.endpoint()).await?;
    /// let backup: BackupClient = connection.session().weight(1).open().await?;
    /// # assert_eq!(backup.save(vec![0; 100]).await?, 100);
    /// # assert!(connection.session().weight(0).open::<BackupClient>().await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// Decodes the peer's answers without limits of depth, items and memory, which makes large answers of many small
    /// values cheaper. Only for peers that are trusted as much as this process itself.
    pub fn trusted(mut self) -> Self {
        self.trusted = true;
        self
    }

    /// Offers this codec alone for the session, instead of all those of the connection.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    fn offer(&self) -> Result<Vec<u8>, String> {
        match self.codec {
            Some(codec) if !self.codecs.contains(&codec) => Err(format!(
                "SessionBuilder::codec is {codec}, which the connection does not offer; add it to ConnectionBuilder::codecs"
            )),
            Some(codec) => Ok(vec![codec.wire_id()]),
            None => Ok(self.codecs.iter().map(|codec| codec.wire_id()).collect()),
        }
    }

    /// Sends every call of the session through `layer`, which may be a whole `tower::ServiceBuilder`; the client's type
    /// stays what it is. Of several, the first is the outermost, as in `tower::ServiceBuilder`. A call's deadline holds
    /// for what waits in layers too. See [`tower`](crate::tower).
    #[cfg(feature = "tower")]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: tower_layer::Layer<crate::tower::Inner> + Send + Sync + 'static,
        L::Service: crate::tower::Stack,
    {
        self.layers.push(Box::new(move |below| Arc::new(crate::tower::around(below, &layer))));
        self
    }

    /// Opens the session with the service that `C` is the client of. One round trip.
    ///
    /// # Errors
    /// [`OpenError::Config`] for a window that is too small, a weight out of range or a codec that the connection does not
    /// offer,
    /// [`OpenError::Rejected`] if the peer does not offer the service or has none of the codecs,
    /// [`OpenError::Connection`] if the connection is lost.
    ///
    /// # Cancel safety
    /// Dropping the future gives the session up; the connection stays.
    pub async fn open<C: Client>(self) -> Result<C, OpenError> {
        self.limits.check().map_err(OpenError::Config)?;
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            let text = format!("SessionBuilder::weight is {}; give it at least 1 and at most {MAX_WEIGHT}", self.weight);
            return Err(OpenError::Config(text));
        }
        let codecs = self.offer().map_err(OpenError::Config)?;
        let info = C::info();
        let link = self.guard.link();
        let open = SessionOpen {
            service: info.name.to_owned(),
            fingerprint: info.fingerprint,
            codecs: codecs.clone(),
            windows: self.limits.windows(),
            weight: self.weight,
        };
        let mut proto = Proto::new(Side::Initiator, self.limits.session());
        proto.weigh(self.weight);
        let state = SessionState::new(proto, Arc::clone(link));
        let (done, opened) = oneshot::channel();
        // Until there is a client to do so, this future closes the session when it is dropped.
        let unclaimed = Unclaimed(&state);
        link.command(Command::Open(Opening { session: Arc::clone(&state), open, info, done }));
        let opened = opened.await.unwrap_or_else(|_| Err(link.closed().unwrap_or(ConnectionError::Closed).into()));
        let SessionAccept { codec: chosen, methods, .. } = opened.map_err(|error| error.having_offered(&codecs))?;
        let Some(codec) = Codec::from_wire_id(chosen).filter(|_| codecs.contains(&chosen)) else {
            let reason = Reason::new(Code::PROTOCOL, format!("the peer chose codec {chosen}, which was not offered"));
            return Err(OpenError::rejected(reason));
        };
        std::mem::forget(unclaimed);
        let decoding = Decoding { codec, limits: (!self.trusted).then_some(DecodeLimits::DEFAULT) };
        let methods = methods.map(|theirs| map_methods(info, &theirs));
        let default_deadline = self.limits.default_deadline;
        let session = SessionHandle { state, decoding, methods, info, default_deadline, _connection: self.guard };
        let session = Arc::new(session);
        #[cfg(feature = "tower")]
        let layers = stack(self.layers, &session);
        #[cfg(not(feature = "tower"))]
        let layers = None::<Arc<dyn Service>>;
        Ok(C::from_channel(Channel::new(session, layers)))
    }
}

#[cfg(feature = "tower")]
fn stack(layers: Vec<Wrap>, session: &Arc<SessionHandle>) -> Option<Arc<dyn Service>> {
    if layers.is_empty() {
        return None;
    }
    let calls: Arc<dyn Service> = Arc::new(crate::calls::Calls(Arc::clone(session)));
    Some(layers.into_iter().rev().fold(calls, |below, wrap| wrap(below)))
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guard, limits, trusted, .. } = self;
        f.debug_struct("SessionBuilder")
            .field("guard", guard)
            .field("limits", limits)
            .field("trusted", trusted)
            .finish_non_exhaustive()
    }
}

/// A session, as one of its clients or of its handlers sees it: to close it, and to learn how it ends.
///
/// Clones are the same session. One that was got from a client keeps the session open, as the client does; one that was
/// got from a handler does not.
#[derive(Clone)]
pub struct Session {
    state: Arc<SessionState>,
    _keep: Option<Arc<SessionHandle>>,
}

impl Session {
    /// The session of a client; `None` for a client of this process ([`local`](crate::local)), which has none.
    pub fn of<C: Client>(client: &C) -> Option<Self> {
        let handle = client.channel()?.handle();
        Some(Self { state: Arc::clone(&handle.state), _keep: Some(Arc::clone(handle)) })
    }

    /// The session that a call came over, from its context; `None` outside of a call, and for direct calls.
    pub fn from_context(context: &Context) -> Option<Self> {
        let state = context.host()?.downcast::<SessionState>().ok()?;
        Some(Self { state, _keep: None })
    }

    /// The session that the call which is being handled came over.
    pub fn current() -> Option<Self> {
        Self::from_context(&Context::current())
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        self.state.peer()
    }

    /// Whether either side closes the session, or it is over: no further calls can be made in it.
    pub fn is_closing(&self) -> bool {
        let core = self.state.lock();
        core.proto.is_closing() || core.link.is_none()
    }

    /// Closes the session in good order: calls under way run on, on both sides, and no further ones are made. Returns
    /// when all have ended and both applications have done with everything, and tells whether the peer's took it all.
    ///
    /// Within a handler of the same session this would wait for itself: spawn it there.
    ///
    /// # Cancel safety
    /// The session closes even if the future is dropped after its first poll.
    pub async fn close(&self) -> Closed {
        self.state.act(|session| session.close());
        self.closed().await
    }

    /// Waits until the session is over, and tells how it ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn closed(&self) -> Closed {
        self.state.wait_ended().await
    }

    /// Ends the session at once. Handlers are dropped, on both sides, and calls under way fail: those of which it is sure
    /// that they cannot have run as [`FaultKind::NotStarted`](rpc_core::status::FaultKind::NotStarted), the others as
    /// [`Indeterminate`](rpc_core::status::FaultKind::Indeterminate). The peer gets `text` with them. Without effect if
    /// the session is over.
    pub fn abort(&self, text: impl Into<String>) {
        let link = self.state.lock().link.clone();
        if let Some(link) = link {
            link.command(Command::Abort(Arc::clone(&self.state), Reason::new(Code::CLOSED, text)));
        }
    }

    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().link.clone()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", self.peer()).field("closing", &self.is_closing()).finish_non_exhaustive()
    }
}

/// Closes a session that nobody came for.
struct Unclaimed<'a>(&'a SessionState);

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        self.0.act(|session| session.close());
    }
}

/// From this side's method numbers to those of a peer with another set of methods.
fn map_methods(info: &ServiceInfo, theirs: &[u64]) -> Vec<Option<u32>> {
    let number = |hash: &u64| theirs.iter().position(|their| their == hash).map(|at| at as u32);
    info.methods.iter().map(|method| number(&method.hash)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc_core::service::{MethodInfo, MethodKind};

    #[test]
    fn methods_are_found_by_their_hash() {
        const METHODS: &[MethodInfo] = &[
            MethodInfo { name: "a", hash: 10, kind: MethodKind::Unary, idempotent: false, spawn: false },
            MethodInfo { name: "b", hash: 20, kind: MethodKind::Unary, idempotent: false, spawn: false },
        ];
        let info = ServiceInfo { name: "X", methods: METHODS, fingerprint: 0 };
        assert_eq!(map_methods(&info, &[5, 20]), [None, Some(1)]);
    }
}
