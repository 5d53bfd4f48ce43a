//! A session: the exchanges of one principal with one service, their sequence, their credit (docs/PROTOCOL.md §5 to §8).
//! A value of its own: it is attached to a connection's [`Outbox`](crate::proto::Outbox) and can be detached and attached
//! elsewhere.
//!
//! ```text
//! commands (open, answer, send, …) ─▶ exchanges ─▶ ring ─▶ flush/transmit ─▶ Outbox
//! frames ─▶ handle_frame ─▶ exchanges ─▶ SessionEvent
//!    └────▶ receive_call, receive_answer: the same for what nearly every call is
//! ```
//! `U` is what the owner attaches to each exchange (a waker, a handler's handle), so that there is one table, not two.

mod close;
mod commands;
mod deadlines;
mod inspect;
mod plain;
mod reassembly;
mod receive;
mod rest;
mod ring;
mod take;
mod transmit;
mod writer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use close::Closed;
use close::Closing;
use inspect::Stalls;
pub use inspect::{ExchangeView, SessionView, Wait};
pub use plain::Fresh;
pub use rest::Resting;
use ring::{Rank, Ring, Size};

use crate::code::Code;
use crate::id::{ExchangeKey, Sid, Side, Xid};
use crate::metadata::Metadata;
use crate::proto::batch::Batch;
use crate::proto::config::SessionConfig;
use crate::proto::credit::{RecvCredit, SendCredit};
use crate::proto::error::{ExchangeFault, Origin, ProtocolError};
use crate::proto::exchange::{AnswerKind, Body, Exchange, Held, OpenFields};
use crate::proto::outbox::{QUANTUM, SessionSlot};
use crate::proto::patience::{Patience, Toll};
use crate::proto::table::{Ids, Table};
use crate::proto::time::Time;
use crate::wire::frame::{DEFAULT_URGENCY, Reason};
use crate::wire::hello::{DEFAULT_WEIGHT, MAX_WEIGHT, Windows};

/// A session's place on the connection that it is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its place in the driver's table.
    pub slot: SessionSlot,
    /// Its alias on the wire; `None` where it has the connection alone.
    pub sid: Option<Sid>,
}

/// What an exchange is opened with.
#[derive(Debug)]
pub struct OpenCommand {
    /// The method's rank in the acceptor's service.
    pub method: u32,
    /// The time the call has; `None`: the session's default for a unary call, none for streams.
    pub timeout: Option<Duration>,
    /// The encoded arguments.
    pub body: Body,
    /// Whether items follow the arguments.
    pub more: bool,
    /// What is expected in answer.
    pub answer: AnswerKind,
}

/// What few calls have besides.
#[derive(Debug, Clone)]
pub struct Extras {
    /// How urgent call and answer are within their session: 0, the most, to 7.
    pub urgency: u8,
    /// What travels beside the arguments.
    pub metadata: Option<Arc<Metadata>>,
}

impl Default for Extras {
    fn default() -> Self {
        Self { urgency: DEFAULT_URGENCY, metadata: None }
    }
}

impl From<Arc<Metadata>> for Extras {
    fn from(metadata: Arc<Metadata>) -> Self {
        Self { metadata: Some(metadata), ..Self::default() }
    }
}

/// The longest message that is expedited, in bytes: what a request or an answer that somebody waits for takes, and short
/// enough that sixteen of them are no more than a quantum.
pub const EXPEDITED: usize = 1024;

/// What a frame led to. At most one for each frame.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer's call has arrived whole: a handler can start. It must be followed by [`Session::handler_done`].
    Opened {
        /// The exchange.
        key: ExchangeKey,
        /// The method's rank.
        method: u32,
        /// The time it has from now; `None` for streams without a deadline.
        timeout: Option<Duration>,
        /// The encoded arguments.
        body: Vec<u8>,
        /// Whether items follow.
        more: bool,
        /// Whether no answer is expected.
        one_way: bool,
        /// What the caller sent beside the arguments.
        metadata: Option<Arc<Metadata>>,
    },
    /// There is something new to take: an answer, items, an end.
    Readable(ExchangeKey),
    /// The peer wants no more from this side: stop the handler, or the sender of a stream.
    Cancelled(ExchangeKey),
    /// The peer will open no further exchanges, and neither will this side: calls that had not been written have failed.
    PeerClosed,
    /// The peer's application has done with everything.
    PeerDone,
    /// The peer ended the session at once.
    Aborted(Reason),
}

/// The state of a call's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not there yet.
    Pending,
    /// The single message.
    Message(Vec<u8>),
    /// The application's error, encoded.
    AppError(Vec<u8>),
    /// Accepted: take the items.
    Stream,
    /// It failed.
    Fault(ExchangeFault),
}

/// The state of a stream's items.
#[derive(Debug, PartialEq, Eq)]
pub enum Items {
    /// The batch has been filled.
    Ready,
    /// None at the moment.
    Pending,
    /// The peer's END: there will be no more.
    Ended,
    /// The application's error, encoded, after all items.
    AppError(Vec<u8>),
    /// The stream broke, after all items.
    Fault(ExchangeFault),
}

/// One session. See the module's text.
#[derive(Debug)]
pub struct Session<U> {
    side: Side,
    config: SessionConfig,
    default_deadline_ms: u32,
    peer: Windows,
    link: Option<Link>,
    /// Something for the control lane is due: a stop, an announcement, an ACK.
    control_due: bool,
    /// It stands in the outbox's ring of each lane.
    control_queued: bool,
    expedited_queued: bool,
    data_queued: bool,
    /// Its weight among the sessions of its connection.
    weight: u16,
    /// The connection's maximum at which its credit was too short; the outbox has the session set aside until that rises.
    blocked_at: Option<u64>,
    /// The driver knows that deadlines wait for their time.
    stamp_wanted: bool,
    /// How much may wait to be written, and whether more than that may wait now.
    most_unsent: u64,
    may_be_crowded: bool,

    exchanges: Table<Exchange<U>>,
    ids: Ids,
    next_local: u64,
    next_remote: u64,

    /// Exchanges with frames due.
    ring: Ring,
    /// By slot: the generation and urgency of exchanges that have one. Few have, and the others do not carry it.
    urgencies: Vec<(u32, u8)>,
    /// Calls whose OPEN waits for exchange credit.
    waiting: VecDeque<ExchangeKey>,
    /// Exchanges with RESET or CANCEL due: the control lane.
    stops: Vec<ExchangeKey>,
    /// Exchanges with MAX_STREAM due.
    announces: Vec<ExchangeKey>,
    /// Exchanges whose queue drained while somebody waited for it.
    drained: Vec<ExchangeKey>,
    /// Calls of the peer that end before their input was read: somebody may wait for it.
    unread: Vec<ExchangeKey>,
    unstamped: Vec<ExchangeKey>,
    next_deadline: Option<Time>,

    send: SendCredit,
    recv: RecvCredit,
    /// Exchanges that wait for MAX_SESSION.
    parked: VecDeque<ExchangeKey>,

    opens_max: u64,
    opened: u64,
    opens_granted: u64,
    accepted: u64,
    finished: u64,

    tx_count: u64,
    rx_count: u64,
    admitted: u64,
    admission: VecDeque<ExchangeKey>,

    patience: Patience,
    /// Since when exchanges wait for credit.
    stalls: Stalls,
    /// By slot: the rank of each exchange's method, for those who ask what is under way.
    methods: Vec<u32>,

    ack_due: bool,
    closing: Closing,
    failed: Option<Reason>,
}

impl<U: Default> Session<U> {
    /// A session that this side opened (`Side::Initiator`) or accepted. What the peer grants comes with
    /// [`granted`](Self::granted).
    pub fn new(side: Side, config: SessionConfig) -> Self {
        Self {
            side,
            config,
            default_deadline_ms: millis(config.default_deadline),
            peer: Windows { stream: 0, session: 0, exchanges: 0, message: 0 },
            link: None,
            control_due: false,
            control_queued: false,
            expedited_queued: false,
            weight: DEFAULT_WEIGHT,
            data_queued: false,
            blocked_at: None,
            stamp_wanted: false,
            most_unsent: config.unsent,
            may_be_crowded: false,
            exchanges: Table::default(),
            ids: Ids::default(),
            next_local: side.first_id(),
            next_remote: side.peer().first_id(),
            ring: Ring::default(),
            urgencies: Vec::new(),
            waiting: VecDeque::new(),
            stops: Vec::new(),
            announces: Vec::new(),
            drained: Vec::new(),
            unread: Vec::new(),
            unstamped: Vec::new(),
            next_deadline: None,
            send: SendCredit::new(0),
            recv: RecvCredit::new(config.windows.session),
            parked: VecDeque::new(),
            opens_max: 0,
            opened: 0,
            opens_granted: config.windows.exchanges,
            accepted: 0,
            finished: 0,
            tx_count: 0,
            rx_count: 0,
            admitted: 0,
            admission: VecDeque::new(),
            patience: Patience::new(config.cancels, config.resets),
            stalls: Stalls::default(),
            methods: Vec::new(),
            ack_due: false,
            closing: Closing::default(),
            failed: None,
        }
    }

    /// The peer's windows, from S_OPEN or S_ACCEPT.
    pub fn granted(&mut self, peer: Windows) {
        self.peer = peer;
        self.send.raise(peer.session);
        self.opens_max = self.opens_max.max(peer.exchanges);
    }

    /// Gives the session a weight among those of its connection, 1 to 256, for what this side sends.
    pub fn weigh(&mut self, weight: u16) {
        self.weight = weight.clamp(1, MAX_WEIGHT);
    }

    /// The same, as the peer wishes: as far as the limits of this side go.
    pub fn weigh_as_wished(&mut self, weight: u16) {
        self.weigh(weight.min(self.config.max_weight));
    }

    /// Attaches the session to a connection. What is queued goes out with the next [`flush`](Self::flush).
    pub fn attach(&mut self, link: Link) {
        self.link = Some(link);
    }

    /// Detaches the session from its connection.
    pub fn detach(&mut self) {
        self.link = None;
        (self.control_queued, self.expedited_queued, self.data_queued) = (false, false, false);
        (self.blocked_at, self.stamp_wanted) = (None, false);
    }

    /// Whether it was opened from here.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Where it is attached.
    pub fn link(&self) -> Option<Link> {
        self.link
    }

    /// Sequenced frames written and received so far (docs/PROTOCOL.md §5.3).
    pub fn counts(&self) -> (u64, u64) {
        (self.tx_count, self.rx_count)
    }

    /// Exchanges that are not over: calls, running handlers, and those whose end the peer still has to confirm.
    pub fn live(&self) -> usize {
        self.exchanges.len()
    }

    /// Places taken in the queues of the session, for checks: no more than three for each exchange that is live, and a few.
    pub fn queued(&self) -> usize {
        let queues = [&self.waiting, &self.parked, &self.admission].map(VecDeque::len);
        let lists = [&self.stops, &self.announces, &self.drained, &self.unread, &self.unstamped].map(Vec::len);
        self.ring.len() + queues.iter().chain(&lists).sum::<usize>()
    }

    /// Bytes received and not yet released, for checks: zero when nothing is live.
    pub fn held(&self) -> u64 {
        self.recv.held()
    }

    /// Bytes kept for the peer: what has arrived and was not taken, what waits to be written, and where windows have grown
    /// what they have grown by, if that is more. A look at each exchange.
    pub fn footprint(&self) -> u64 {
        let first = self.config.windows;
        let arrived: u64 = self.exchanges.values().map(|exchange| exchange.arrived(first.stream)).sum();
        arrived.max(self.recv.window() - first.session) + self.unsent()
    }

    /// Bytes of it that wait to be written.
    fn unsent(&self) -> u64 {
        self.exchanges.values().map(Exchange::unsent).sum()
    }

    /// From now on, no more than `most` bytes may wait to be written: beyond them further calls are not to be started.
    pub fn bound_unsent(&mut self, most: u64) {
        self.may_be_crowded |= most < self.most_unsent;
        self.most_unsent = most;
    }

    /// Whether more waits to be written than may. A look at each exchange, where a large answer has begun to wait since it was
    /// last not so.
    #[inline]
    pub fn is_crowded(&mut self) -> bool {
        if self.may_be_crowded {
            self.may_be_crowded = self.unsent() > self.most_unsent;
        }
        self.may_be_crowded
    }

    /// Whether the peer has provoked something since the last [`charge_toll`](Self::charge_toll). To be asked behind each frame.
    #[inline]
    pub fn is_provoked(&self) -> bool {
        self.patience.is_due()
    }

    /// Charges what the peer has provoked, and tells it, so that the connection can be charged too.
    ///
    /// # Errors
    /// It was too much: [`abort`](Self::abort) the session.
    pub fn charge_toll(&mut self, now: Time) -> Result<Toll, ProtocolError> {
        self.patience.charge(self.finished, now)
    }

    /// Its weight for what this side sends.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Whether it waits for its turn with data, for checks.
    pub fn is_waiting(&self) -> bool {
        self.data_queued
    }

    /// Bytes of messages sent so far, as credit counts them, for checks.
    pub fn sent(&self) -> u64 {
        self.send.used()
    }

    /// Session credit for sending, in bytes, for checks.
    pub fn credit(&self) -> u64 {
        self.send.available()
    }

    /// What the owner attached to an exchange.
    #[inline]
    pub fn user(&mut self, key: ExchangeKey) -> Option<&mut U> {
        self.exchanges.get_mut(key).map(|exchange| &mut exchange.user)
    }

    /// Everything that the owner attached, with who opened the exchange.
    pub fn users(&mut self) -> impl Iterator<Item = (ExchangeKey, Side, &mut U)> {
        self.exchanges.iter_mut().map(|(key, exchange)| (key, exchange.opener, &mut exchange.user))
    }

    /// Nobody will read this exchange any more: what arrived is credited, and the peer is asked to stop.
    fn abandon_rx(&mut self, key: ExchangeKey, code: Code) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        let untaken = exchange.has_untaken();
        if untaken && exchange.opener == Side::Acceptor {
            // A task that the handler left behind may read on: what it reads has not come to an orderly end.
            exchange.rx.fail(Reason::new(Code::CANCELLED, "the call whose input this is has ended"), Origin::Local, true);
            self.unread.push(key);
        }
        let rx = &mut exchange.rx;
        let mut freed = std::mem::take(&mut rx.held);
        rx.message = None;
        if let Some(streams) = &mut exchange.streams {
            freed.add(std::mem::take(&mut streams.lent));
            streams.incoming = Batch::new();
        }
        if !rx.done && !rx.discard {
            rx.discard = true;
            exchange.tx.cancel = Some(code);
        }
        self.closing.untaken += u64::from(untaken);
        self.release_shared(freed.shared);
        self.drop_partial(key);
    }

    /// Gives credit back that the application has done with.
    fn release_held(&mut self, key: ExchangeKey, held: Held) {
        if held == Held::default() {
            return;
        }
        self.release_shared(held.shared);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        let rx = &mut exchange.rx;
        rx.credit.release(held.stream);
        if !rx.done && !rx.discard && rx.credit.is_due() && !rx.announce {
            rx.announce = true;
            self.announces.push(key);
            self.control_due = true;
        }
    }

    /// Gives the session's credit back.
    #[inline]
    fn release_shared(&mut self, n: u64) {
        self.recv.release(n);
        self.control_due |= self.recv.is_due();
    }

    /// Removes the exchange if both directions are over and nobody holds it.
    #[inline]
    fn settle(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        if exchange.held || !exchange.tx.is_done() || !exchange.rx.done {
            return;
        }
        match exchange.xid {
            Some(xid) => self.remove(key, xid),
            None => self.exchanges.remove(key),
        }
        self.settle_close();
    }

    /// Removes an exchange that is over, and gives its place back to the side that opened it.
    #[inline]
    fn remove(&mut self, key: ExchangeKey, xid: Xid) {
        if !self.side.owns(xid.0) {
            self.give_place_back();
        }
        self.ids.remove(xid);
        self.exchanges.remove(key);
        self.settle_close();
    }

    /// A call of the peer is over: it may make another one.
    #[inline]
    fn give_place_back(&mut self) {
        self.finished += 1;
        self.control_due |= self.grants_due();
    }

    /// Puts an exchange with frames due into the ring.
    #[inline]
    fn queue(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.tx.has_stops() {
            if !exchange.tx.stopping {
                exchange.tx.stopping = true;
                self.stops.push(key);
            }
            self.control_due = true;
        }
        if !exchange.queued && exchange.has_output() {
            exchange.queued = true;
            self.enter_ring(key);
        }
    }

    /// Remembers how urgent an exchange is.
    #[inline]
    fn set_urgency(&mut self, key: ExchangeKey, urgency: u8) {
        if urgency != DEFAULT_URGENCY {
            self.keep_urgency(key, urgency);
        }
    }

    #[cold]
    fn keep_urgency(&mut self, key: ExchangeKey, urgency: u8) {
        let at = key.slot as usize;
        if at >= self.urgencies.len() {
            self.urgencies.resize(at + 1, (0, DEFAULT_URGENCY));
        }
        self.urgencies[at] = (key.generation, urgency);
    }

    fn urgency_of(&self, key: ExchangeKey) -> u8 {
        let known = self.urgencies.get(key.slot as usize).filter(|(generation, _)| *generation == key.generation);
        known.map_or(DEFAULT_URGENCY, |(_, urgency)| *urgency)
    }

    /// Where an exchange stands among those that have something to write.
    fn rank_of(&self, key: ExchangeKey) -> Rank {
        let urgency = self.urgency_of(key);
        match self.exchanges.get(key) {
            Some(exchange) if urgency == 0 && exchange.is_within(EXPEDITED) => Rank::EXPEDITED,
            Some(exchange) if exchange.next_len() > QUANTUM => Rank::new(urgency, Size::Bulk),
            _ => Rank::new(urgency, Size::Short),
        }
    }

    #[inline]
    fn enter_ring(&mut self, key: ExchangeKey) {
        if self.ring.len() > 2 * self.exchanges.len() + 32 {
            let exchanges = &self.exchanges;
            self.ring.retain(|key| exchanges.get(*key).is_some());
        }
        self.ring.push(key, self.rank_of(key));
    }

    /// Sets an exchange aside until MAX_SESSION.
    fn park(&mut self, key: ExchangeKey) {
        sweep(&mut self.parked, &self.exchanges);
        self.parked.push_back(key);
    }

    /// Lets a call wait for exchange credit.
    fn wait(&mut self, key: ExchangeKey) {
        sweep(&mut self.waiting, &self.exchanges);
        self.waiting.push_back(key);
        self.stalls.note(key, Wait::Places, 0);
        self.unstamped.push(key);
        self.admit_waiting();
    }

    /// Gives exchange credit to the calls that wait for it.
    fn admit_waiting(&mut self) {
        while self.opened < self.opens_max
            && let Some(key) = self.waiting.pop_front()
        {
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.granted = true;
                self.opened += 1;
                self.enter_ring(key);
            }
        }
    }

    /// Whether [`next_drained`](Self::next_drained) or [`next_unread`](Self::next_unread) has one.
    #[inline]
    pub fn has_drained(&self) -> bool {
        !self.drained.is_empty() || !self.unread.is_empty()
    }

    /// The next exchange whose input nobody can read any more, so that who waits for it is to be told.
    pub fn next_unread(&mut self) -> Option<ExchangeKey> {
        self.unread.pop()
    }

    /// The next exchange whose queue drained since [`poll_send`](Self::poll_send) refused it.
    pub fn next_drained(&mut self) -> Option<ExchangeKey> {
        self.drained.pop()
    }

    #[inline]
    fn lookup(&self, xid: Xid) -> Option<ExchangeKey> {
        self.ids.get(xid)
    }
}

/// Before a queue grows: exchanges that ended while they stood in it are swept out before they outnumber those that live.
/// A peer that gives no credit could else make it grow by opening and cancelling.
#[inline]
fn sweep<U: Default>(queue: &mut VecDeque<ExchangeKey>, exchanges: &Table<Exchange<U>>) {
    if queue.len() > 2 * exchanges.len() + 32 {
        queue.retain(|key| exchanges.get(*key).is_some());
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().max(1)).unwrap_or(u32::MAX)
}
