//! What tasks share: a lock for each session, and one for each connection's outbox. The order is session, then
//! connection; no user code runs and no socket is touched under either, and wakers are fired behind both. (Those that
//! wait for a call to be abandoned fire with its exchange, under the session's lock: they are rare, and lock nothing.)

use std::any::Any;
use std::fmt;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rpc_core::codec::Codec;
use rpc_core::context::{CallHost, Peer};
use rpc_core::id::ExchangeKey;
use rpc_core::proto::outbox::SessionSlot;
use rpc_core::proto::{Batch, ConnectionError, ExchangeFault, Items, Limits, Outbox, Session, Time};
use rpc_core::service::ServiceInfo;
use rpc_core::streaming::ItemSource;
use rpc_core::wire::frame::Reason;
use rpc_core::wire::hello::{SessionAccept, SessionOpen};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::ending::Closed;
use crate::error::OpenError;
use crate::report::Inside;
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Notify, Ordering, oneshot};

/// Locks what no panic can leave half done: the pure values check before they change.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a connection that everybody reaches.
pub(crate) struct Link {
    state: Mutex<LinkState>,
    /// Where handlers and senders of streams run.
    pub(crate) runtime: Handle,
    pub(crate) peer: Arc<Peer>,
    pub(crate) limits: Limits,
    /// In which the sessions of this side may be opened.
    pub(crate) codecs: Vec<Codec>,
    /// Told when the connection has ended.
    pub(crate) ended: Notify,
    /// Handlers that have a task.
    handlers: AtomicU64,
}

pub(crate) struct LinkState {
    pub(crate) out: Outbox,
    pub(crate) commands: Vec<Command>,
    /// The driver's waker, while it waits.
    pub(crate) driver: Option<Waker>,
    /// Why there is no driver any more.
    pub(crate) closed: Option<ConnectionError>,
    /// Calls that were under way when the connection ended.
    pub(crate) cut: u64,
}

/// What the driver is asked to do.
pub(crate) enum Command {
    Open(Opening),
    /// Everybody let go of a session, and both sides have said so.
    Forget(SessionSlot),
    /// End a session at once, and say why.
    Abort(Arc<SessionState>, Reason),
    /// Take no further sessions, close those that there are, and end when they have; at this time at the latest.
    Drain(Time),
    /// Write what is queued, say goodbye, end.
    Close,
    /// Tell what is going on.
    Inspect(Inquiry),
}

/// What somebody wants to know of a connection.
pub(crate) struct Inquiry {
    /// The page of its sessions that begins with this sid; `None`: none of them.
    pub(crate) page: Option<u64>,
    pub(crate) done: oneshot::Sender<Inside>,
}

/// A session to be opened, and who waits for it.
pub(crate) struct Opening {
    pub(crate) session: Arc<SessionState>,
    pub(crate) open: SessionOpen,
    /// The service, as this side knows it.
    pub(crate) info: &'static ServiceInfo,
    pub(crate) done: oneshot::Sender<Result<SessionAccept, OpenError>>,
}

impl Link {
    pub(crate) fn new(peer: Peer, limits: Limits, codecs: Vec<Codec>, runtime: Handle) -> Arc<Self> {
        let out = Outbox::new(limits.connection_window);
        let state = LinkState { out, commands: Vec::new(), driver: None, closed: None, cut: 0 };
        let (state, peer) = (Mutex::new(state), Arc::new(peer));
        Arc::new(Self { state, runtime, peer, limits, codecs, ended: Notify::new(), handlers: AtomicU64::new(0) })
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, LinkState> {
        lock(&self.state)
    }

    /// Asks the driver for something. Where it is gone, the command is dropped, and with it whoever waits for it.
    pub(crate) fn command(&self, command: Command) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.commands.push(command);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Asks the driver what is going on. Questions that nobody waits for any more make room, so that they do not pile up at a
    /// driver that has no turn.
    pub(crate) fn inquire(&self, inquiry: Inquiry) {
        self.lock().commands.retain(|command| !matches!(command, Command::Inspect(asked) if asked.done.is_closed()));
        self.command(Command::Inspect(inquiry));
    }

    pub(crate) fn closed(&self) -> Option<ConnectionError> {
        self.lock().closed.clone()
    }

    /// Waits until the connection has ended, and yields the reason. Whoever stops waiting leaves nothing behind.
    pub(crate) async fn wait_closed(&self) -> ConnectionError {
        // Made before the look, it misses no end behind it.
        let ended = self.ended.notified();
        if let Some(error) = self.closed() {
            return error;
        }
        ended.await;
        self.closed().unwrap_or(ConnectionError::Closed)
    }

    /// How many handlers have a task.
    pub(crate) fn handlers(&self) -> u64 {
        self.handlers.load(Ordering::Relaxed)
    }

    /// Whether no further handler may be given a task.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.handlers.load(Ordering::Relaxed) >= self.limits.handlers
    }
}

/// Counts one handler that has a task, until it is dropped.
pub(crate) struct Counted(Arc<Link>);

impl Counted {
    pub(crate) fn new(link: &Arc<Link>) -> Self {
        link.handlers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(link))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.handlers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Remembers who waits, once.
fn watch(watchers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !watchers.iter().any(|waker| waker.will_wake(cx.waker())) {
        watchers.push(cx.waker().clone());
    }
}

/// What the handles of a connection share.
pub(crate) struct Guard {
    link: Arc<Link>,
    /// The connection closes when its last handle is gone: so on the side that made it. On the other side it lives for
    /// as long as the peer wants it.
    closes: bool,
}

impl Guard {
    pub(crate) fn new(link: Arc<Link>, closes: bool) -> Arc<Self> {
        Arc::new(Self { link, closes })
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.closes {
            self.link.command(Command::Close);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("peer", &self.link.peer).finish_non_exhaustive()
    }
}

/// What the transport attaches to an exchange. Small, because every call moves it; what only some need is behind a box.
#[derive(Default)]
pub(crate) struct Slot {
    /// Whoever waits for an answer or for items.
    pub(crate) reader: Option<Waker>,
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    /// Whoever waits for the queue to drain.
    sender: Option<Waker>,
    /// The handler, or the sender of a stream.
    task: Option<Task>,
    /// When the handler's call arrived.
    since: Option<Instant>,
    /// Whoever waits for the items of the call that the handler serves.
    input: InputReader,
    /// Nobody waits for the answer any more.
    abandoned: bool,
    /// Those who want to know of that.
    watchers: Watchers,
}

/// A task that ends with its exchange.
pub(crate) enum Task {
    /// A running handler: its end gives the exchange's place back, so it must be seen through.
    Handler(AbortHandle),
    /// A running handler that nobody waits for: it outlives an orderly end of its session.
    OneWay(AbortHandle),
    /// The sender of a stream of this side.
    Sender(AbortOnDrop),
}

/// Whoever waits for the input of a call: told when it is let go of, so that nobody waits for an exchange that is over.
#[derive(Default)]
struct InputReader(Option<Waker>);

impl Drop for InputReader {
    fn drop(&mut self) {
        if let Some(reader) = self.0.take() {
            reader.wake();
        }
    }
}

/// A task that is aborted when it is let go of.
pub(crate) struct AbortOnDrop(pub(crate) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Wakers that fire when they are let go of.
#[derive(Default)]
struct Watchers(Vec<Waker>);

impl Drop for Watchers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Slot {
    pub(crate) fn reading(waker: &Waker) -> Self {
        Self { reader: Some(waker.clone()), more: None }
    }

    /// Whoever waits for an answer or for items, to be woken.
    pub(crate) fn take_reader(&mut self) -> Option<Waker> {
        match self.reader.take() {
            None => self.more.as_mut()?.input.0.take(),
            reader => reader,
        }
    }

    /// Whether somebody waits for the items of the call that a handler serves.
    pub(crate) fn waits_for_input(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.input.0.is_some())
    }

    /// Remembers the task that ends with the exchange.
    pub(crate) fn runs(&mut self, task: Task) {
        self.more.get_or_insert_default().task = Some(task);
    }

    /// The same for a handler, whose call arrived at `since`.
    pub(crate) fn handles(&mut self, task: Task, since: Instant) {
        self.runs(task);
        self.more.get_or_insert_default().since = Some(since);
    }

    /// When the call arrived whose handler has a task.
    pub(crate) fn handled_since(&self) -> Option<Instant> {
        self.more.as_ref()?.since
    }

    /// Whoever waits for the queue to drain, to be woken.
    pub(crate) fn take_sender(&mut self) -> Option<Waker> {
        self.more.as_mut()?.sender.take()
    }

    fn wait_to_send(&mut self, waker: &Waker) {
        register(&mut self.more.get_or_insert_default().sender, waker);
    }

    /// Whether the handler's work is of use when the peer has closed the session in good order.
    fn outlives_close(&self) -> bool {
        self.more.as_ref().is_some_and(|more| matches!(more.task, Some(Task::OneWay(_))))
    }

    /// The peer or the clock ended it: the handler stops, and so does all that hangs on it.
    pub(crate) fn abandon(&mut self) {
        let more = self.more.get_or_insert_default();
        more.abandoned = true;
        more.watchers = Watchers::default();
        more.input = InputReader::default();
        match &more.task {
            Some(Task::Handler(task) | Task::OneWay(task) | Task::Sender(AbortOnDrop(task))) => task.abort(),
            None => {}
        }
    }
}

fn register(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) => known.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

/// The part of a session that everybody reaches.
pub(crate) struct SessionState {
    core: Mutex<SessionCore>,
    peer: Arc<Peer>,
    /// Told when the session is over.
    over: Notify,
}

pub(crate) struct SessionCore {
    pub(crate) proto: Session<Slot>,
    pub(crate) link: Option<Arc<Link>>,
    forgotten: bool,
    /// It is over, and this is how.
    ended: Option<Closed>,
}

/// Wakers to be fired once the locks are open.
#[must_use]
pub(crate) struct Wake {
    driver: Option<Waker>,
    others: Vec<Waker>,
}

/// Fires what there is to fire.
#[inline]
pub(crate) fn fire(wake: Option<Wake>) {
    if let Some(wake) = wake {
        wake.fire();
    }
}

impl Wake {
    fn fire(self) {
        if let Some(driver) = self.driver {
            driver.wake();
        }
        self.others.into_iter().for_each(Waker::wake);
    }
}

impl SessionState {
    pub(crate) fn new(proto: Session<Slot>, link: Arc<Link>) -> Arc<Self> {
        let peer = Arc::clone(&link.peer);
        let core = SessionCore { proto, link: Some(link), forgotten: false, ended: None };
        Arc::new(Self { core: Mutex::new(core), peer, over: Notify::new() })
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, SessionCore> {
        lock(&self.core)
    }

    /// Does something with the session, brings what follows on its way, and wakes whom it concerns.
    #[inline]
    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut Session<Slot>) -> R) -> R {
        let mut core = self.lock();
        let result = act(&mut core.proto);
        let wake = core.flush();
        drop(core);
        fire(wake);
        result
    }

    /// The same where the session writes straight into the outbox. `None`: it is on no connection.
    #[inline]
    pub(crate) fn act_now<R>(&self, act: impl FnOnce(&mut Session<Slot>, &mut Outbox) -> R) -> Option<R> {
        let mut core = self.lock();
        let SessionCore { proto, link, .. } = &mut *core;
        let link = link.as_ref()?;
        let mut state = link.lock();
        let result = act(proto, &mut state.out);
        let driver = state.driver.take();
        drop(state);
        // The last exchange may have ended with this, or a queue have drained; for nearly every call neither has.
        let rest = if core.proto.is_closing() || core.proto.has_drained() { core.flush_now() } else { None };
        drop(core);
        if let Some(driver) = driver {
            driver.wake();
        }
        fire(rest);
        Some(result)
    }

    /// The runtime of the connection that the session is on, if it is on one.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.lock().link.as_ref().map(|link| link.runtime.clone())
    }

    /// Whether the next batch may be sent; `false` if no more can be.
    pub(crate) fn poll_send(&self, key: ExchangeKey, cx: &mut Context<'_>) -> Poll<bool> {
        let mut core = self.lock();
        match core.proto.poll_send(key) {
            None => Poll::Ready(false),
            Some(true) => Poll::Ready(true),
            Some(false) => {
                if let Some(slot) = core.proto.user(key) {
                    slot.wait_to_send(cx.waker());
                }
                Poll::Pending
            }
        }
    }

    /// Whether a one-way call is on its way.
    pub(crate) fn poll_sent(&self, key: ExchangeKey, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeFault>> {
        let mut core = self.lock();
        let sent = core.proto.release_sent(key);
        if sent != Ok(false) {
            let wake = core.flush();
            drop(core);
            fire(wake);
            return Poll::Ready(sent.map(|_| ()));
        }
        if let Some(slot) = core.proto.user(key) {
            slot.wait_to_send(cx.waker());
        }
        Poll::Pending
    }

    /// Wakes everyone and stops the handlers of a session that has failed. `orderly`: the peer closed it as it should,
    /// so calls that want no answer run on.
    pub(crate) fn ended(&self, reason: Reason, orderly: bool) {
        let mut core = self.lock();
        let mut wakers = Vec::new();
        core.proto.fail(reason);
        core.ended = Some(Closed::new(&core.proto));
        core.link = None;
        core.wake_callers(&mut wakers);
        for (_, _, slot) in core.proto.users() {
            if !(orderly && slot.outlives_close()) {
                slot.abandon();
            }
        }
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
        self.over.notify_waiters();
    }

    /// Waits until the session is over. Whoever stops waiting leaves nothing behind.
    pub(crate) async fn wait_ended(&self) -> Closed {
        loop {
            // Made before the look, it misses no end behind it.
            let over = self.over.notified();
            if let Some(closed) = self.lock().ended.clone() {
                return closed;
            }
            over.await;
        }
    }
}

impl SessionCore {
    /// Brings what is due into the outbox. The caller fires the wakers once it has let go of the lock.
    #[inline]
    pub(crate) fn flush(&mut self) -> Option<Wake> {
        let closes = self.proto.is_closing() && !self.forgotten;
        if self.proto.needs_flush() || self.proto.has_drained() || closes { self.flush_now() } else { None }
    }

    fn flush_now(&mut self) -> Option<Wake> {
        let link = self.link.as_ref()?;
        let mut wake = Wake { driver: None, others: Vec::new() };
        let mut state = link.lock();
        self.proto.flush(&mut state.out);
        if self.proto.is_closing() && !self.forgotten && self.proto.is_finished() {
            self.forgotten = true;
            if let Some(link) = self.proto.link() {
                state.commands.push(Command::Forget(link.slot));
            }
        }
        if state.driver.is_some() && (state.out.needs_driver() || !state.commands.is_empty()) {
            wake.driver = state.driver.take();
        }
        drop(state);
        self.drained(&mut wake.others);
        Some(wake)
    }

    /// Collects everyone who waits for anything of the session's exchanges.
    pub(crate) fn wake_callers(&mut self, wakers: &mut Vec<Waker>) {
        for (_, _, slot) in self.proto.users() {
            wakers.extend(slot.take_reader());
            wakers.extend(slot.take_sender());
        }
    }

    /// Collects those who waited for a queue that has drained, or for input that nobody can read any more.
    #[inline]
    pub(crate) fn drained(&mut self, wakers: &mut Vec<Waker>) {
        while let Some(key) = self.proto.next_unread() {
            if let Some(slot) = self.proto.user(key) {
                wakers.extend(slot.take_reader());
            }
        }
        while let Some(key) = self.proto.next_drained() {
            if let Some(slot) = self.proto.user(key) {
                wakers.extend(slot.take_sender());
            }
        }
    }
}

impl CallHost for SessionState {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn poll_abandoned(&self, key: ExchangeKey, cx: &mut Context<'_>) -> Poll<()> {
        let mut core = self.lock();
        if core.proto.is_fresh(key) {
            // Its handler is being polled for the first time; until that is over there is no place to wait in.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match core.proto.user(key) {
            Some(slot) => {
                let more = slot.more.get_or_insert_default();
                if more.abandoned {
                    return Poll::Ready(());
                }
                watch(&mut more.watchers.0, cx);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

/// The items of an exchange, for [`rpc_core::streaming::Streaming`].
pub(crate) struct SessionItems<K: Send + Sync> {
    pub(crate) session: Arc<SessionState>,
    pub(crate) key: ExchangeKey,
    /// Whether they are what a handler is given.
    pub(crate) input: bool,
    /// What happens when the reader lets go: a caller is done with the whole exchange, a handler with its input.
    pub(crate) on_drop: fn(&mut Session<Slot>, ExchangeKey),
    /// Keeps the session open.
    pub(crate) _keep: K,
}

impl<K: Send + Sync> ItemSource for SessionItems<K> {
    fn poll_items(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<Items> {
        let mut core = self.session.lock();
        let items = core.proto.take_items(self.key, batch);
        if items == Items::Pending
            && let Some(slot) = core.proto.user(self.key)
        {
            let reader = if self.input { &mut slot.more.get_or_insert_default().input.0 } else { &mut slot.reader };
            register(reader, cx.waker());
        }
        // Taking a batch gives the credit of the one before back.
        let wake = core.flush();
        drop(core);
        fire(wake);
        if items == Items::Pending { Poll::Pending } else { Poll::Ready(items) }
    }
}

impl<K: Send + Sync> Drop for SessionItems<K> {
    fn drop(&mut self) {
        let (key, on_drop) = (self.key, self.on_drop);
        self.session.act(|session| on_drop(session, key));
    }
}
