//! One exchange: two directions, each of which ends exactly once (docs/PROTOCOL.md §6).
//!
//! ```text
//! sending    Open ── last message ──▶ Ending ── END ──▶ Done       receiving   Open ── END or RESET ──▶ Done
//!              └──── reset ──▶ Resetting ── RESET ──▶ Done
//! ```
//! What the application finds (an answer, a fault) is kept apart from the wire's state: a caller whose deadline passed
//! is told at once, and the exchange lives on, discarding, until the peer confirms its end.
//!
//! An exchange is gone when both directions are over and the application holds it no longer: for the side that
//! answers, when its handler has really ended.

use std::sync::Arc;

use bytes::Bytes;

use super::batch::Batch;
use super::credit::{RecvCredit, SendCredit};
use super::error::{ExchangeFault, Origin};
use super::table::Blank;
use super::time::Time;
use crate::code::Code;
use crate::id::{Side, Xid};
use crate::metadata::Metadata;
use crate::wire::frame::Reason;

/// A message to be sent. Large ones are shared with the socket instead of copied.
#[derive(Debug, Clone)]
pub enum Body {
    /// Copied into the outgoing bytes.
    Inline(Vec<u8>),
    /// Referred to where its pieces are large.
    Shared(Bytes),
}

impl Body {
    /// From this size on a message is shared, in bytes (docs/ARCHITECTURE.md, "Large messages").
    pub const SHARED: usize = 32 * 1024;

    /// The message's bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Body {
    /// The message was written: a small buffer is kept for the next one.
    #[inline]
    pub(super) fn recycle(self) {
        if let Self::Inline(bytes) = self {
            crate::pool::give(bytes);
        }
    }
}

impl From<Vec<u8>> for Body {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() < Self::SHARED { Self::Inline(bytes) } else { Self::Shared(bytes.into()) }
    }
}

/// What the opener expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// Nothing: a one-way call.
    None,
    /// One message.
    One,
    /// Items until END.
    Many,
}

/// The outgoing direction.
#[derive(Debug)]
pub(super) struct Tx {
    pub(super) state: TxState,
    pub(super) credit: SendCredit,
    /// The fields of an OPEN that is still to be written, or whose arguments have not arrived whole.
    pub(super) open: Option<OpenFields>,
    pub(super) accept: bool,
    /// A single message: the arguments, a unary answer, an application error.
    pub(super) body: Option<Body>,
    pub(super) body_is_error: bool,
    /// The buffer of the arguments, once they are written: the answer is kept in it.
    pub(super) spare: Vec<u8>,
    /// How much of the message at the front (body or item) has been written.
    pub(super) written: usize,
    /// CANCEL is to be written.
    pub(super) cancel: Option<Code>,
    /// Somebody waits for `items` to drain.
    pub(super) watched: bool,
    /// It stands among those with RESET or CANCEL due: once, however often the peer asks.
    pub(super) stopping: bool,
}

#[derive(Debug)]
pub(super) struct OpenFields {
    pub(super) method: u32,
    pub(super) timeout_ms: Option<u32>,
    pub(super) one_way: bool,
    pub(super) metadata: Option<Arc<Metadata>>,
}

impl OpenFields {
    /// How many bytes the metadata take.
    pub(super) fn beside(&self) -> usize {
        self.metadata.as_ref().map_or(0, |metadata| metadata.encoded().len())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TxState {
    /// More may be added.
    Open,
    /// END follows what is queued.
    Ending,
    /// RESET is to be written.
    Resetting(Box<Reason>),
    /// END or RESET was written.
    Done,
}

/// No place in the sequence: the arguments are not written whole.
pub(super) const NOT_ASKED: u64 = u64::MAX;

/// The incoming direction.
#[derive(Debug)]
pub(super) struct Rx {
    /// The peer's END or RESET has arrived, or none can come any more.
    pub(super) done: bool,
    /// Nobody takes what comes: it is credited at once.
    pub(super) discard: bool,
    /// Why the application will find nothing more.
    pub(super) fault: Option<Box<ExchangeFault>>,
    pub(super) credit: RecvCredit,
    pub(super) kind: AnswerKind,
    pub(super) accepted: bool,
    /// The single message: arguments until they are handed over, a unary answer, or an application error.
    pub(super) message: Option<Vec<u8>>,
    pub(super) message_is_error: bool,
    /// Credit of complete messages that the application has not taken.
    pub(super) held: Held,
    pub(super) partial: Option<Box<Partial>>,
    /// MAX_STREAM is to be written.
    pub(super) announce: bool,
}

/// What only streams need, so that a unary exchange stays small: it is moved and cleared for every call.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Outgoing items; they go behind the arguments and before an answer's error.
    pub(super) outgoing: Batch,
    pub(super) incoming: Batch,
    /// Credit of the batch that the application has taken and works on.
    pub(super) lent: Held,
    /// RESET follows the items that wait: the stream broke behind them.
    pub(super) broken: Option<Reason>,
}

/// Credit by where it is owed: whole messages of one frame hold credit of all three levels until they are taken; of a
/// message of several frames only the stream's credit is held (docs/PROTOCOL.md §7.3).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) stream: u64,
    pub(super) shared: u64,
}

impl Held {
    pub(super) fn add(&mut self, other: Self) {
        self.stream += other.stream;
        self.shared += other.shared;
    }
}

/// A message of which the end has not arrived.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) bytes: Vec<u8>,
    pub(super) total: usize,
    pub(super) is_error: bool,
    pub(super) charged: u64,
    pub(super) admission: Admission,
}

/// Whether a message larger than its window may come in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The window holds it.
    NotNeeded,
    /// It waits for others to complete.
    Waiting,
    /// It was let in; so many bytes are on the session's account.
    Admitted(u64),
}

/// A deadline, before and after the driver has put a time to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    None,
    Unstamped(u32),
    At(Time),
}

/// One exchange with what its owner attached to it.
#[derive(Debug)]
pub(super) struct Exchange<U> {
    pub(super) xid: Option<Xid>,
    /// Who opened it.
    pub(super) opener: Side,
    /// The application (a caller, a running handler) still holds it.
    pub(super) held: bool,
    /// Its deadline is its own and not the session's default, so that the peer is told.
    pub(super) explicit: bool,
    /// The place in the sequence of the frame that completed the arguments (calls of this side): whoever received fewer
    /// frames cannot have started anything.
    pub(super) asked_at: u64,
    /// When OPEN arrived (calls of the peer that were not cancelled or overdue).
    pub(super) arrived: Option<Time>,
    /// It has exchange credit (calls of this side).
    pub(super) granted: bool,
    /// It stands in the session's ring.
    pub(super) queued: bool,
    pub(super) tx: Tx,
    pub(super) rx: Rx,
    pub(super) streams: Option<Box<Streams>>,
    pub(super) deadline: Deadline,
    pub(super) user: U,
}

impl Tx {
    #[inline(always)]
    fn new(window: u64) -> Self {
        Self {
            state: TxState::Open,
            credit: SendCredit::new(window),
            open: None,
            accept: false,
            body: None,
            body_is_error: false,
            spare: Vec::new(),
            written: 0,
            cancel: None,
            watched: false,
            stopping: false,
        }
    }

    #[inline]
    fn clear(&mut self) {
        let Self { state, credit, open, accept, body, body_is_error, spare, written, cancel, watched, stopping } = self;
        (*state, *credit, *open, *body, *cancel) = (TxState::Open, SendCredit::new(0), None, None, None);
        (*accept, *body_is_error, *watched, *stopping) = (false, false, false, false);
        (*spare, *written) = (Vec::new(), 0);
    }

    /// Whether END or RESET was written and nothing else is due.
    pub(super) fn is_done(&self) -> bool {
        self.state == TxState::Done && self.cancel.is_none()
    }

    /// Whether a frame of the control lane is due.
    #[inline]
    pub(super) fn has_stops(&self) -> bool {
        self.accept || self.cancel.is_some() || matches!(self.state, TxState::Resetting(_))
    }

    /// Drops what is queued and has RESET written instead. Without effect once the direction has ended.
    fn reset(&mut self, reason: Reason) {
        if matches!(self.state, TxState::Open | TxState::Ending) {
            self.state = TxState::Resetting(Box::new(reason));
            self.body = None;
            self.written = 0;
            self.accept = false;
        }
    }
}

impl<U: Default> Blank for Exchange<U> {
    fn blank() -> Self {
        Self::new(Side::Initiator, None, AnswerKind::One, 0, 0, U::default())
    }

    #[inline]
    fn clear(&mut self) {
        // Each by itself: most of them are blank already, and none is moved.
        let Self { xid, opener, held, explicit, asked_at, arrived, granted, queued, tx, rx, streams, deadline, user } = self;
        (*xid, *opener, *asked_at, *arrived, *deadline) = (None, Side::Initiator, NOT_ASKED, None, Deadline::None);
        (*held, *explicit, *granted, *queued) = (false, false, false, false);
        tx.clear();
        rx.clear();
        *streams = None;
        *user = U::default();
    }
}

impl<U> Exchange<U> {
    /// One at its start, whose stream may have so many bytes sent and received.
    #[inline(always)]
    pub(super) fn new(opener: Side, xid: Option<Xid>, kind: AnswerKind, send: u64, receive: u64, user: U) -> Self {
        Self {
            xid,
            opener,
            held: false,
            explicit: false,
            asked_at: NOT_ASKED,
            arrived: None,
            granted: false,
            queued: false,
            tx: Tx::new(send),
            rx: Rx::new(receive, kind),
            streams: None,
            deadline: Deadline::None,
            user,
        }
    }

    /// Whether the peer can have started the call of this side, where it has `received` so many sequenced frames; `None`:
    /// nobody knows how many.
    pub(super) fn may_have_started(&self, received: Option<u64>) -> bool {
        self.asked_at != NOT_ASKED && received.is_none_or(|received| self.asked_at < received)
    }

    /// When it ends at the latest, where that has a time.
    pub(super) fn deadline_at(&self) -> Option<Time> {
        match self.deadline {
            Deadline::At(at) => Some(at),
            Deadline::None | Deadline::Unstamped(_) => None,
        }
    }

    /// What is left of the message that is to be written next, in bytes.
    pub(super) fn next_len(&self) -> usize {
        let item = self.streams.as_ref().and_then(|streams| streams.outgoing.front());
        let next = self.tx.body.as_ref().map(Body::as_slice).or(item);
        next.map_or(0, |message| message.len() - self.tx.written.min(message.len()))
    }

    /// Bytes that have arrived and were not taken, or what the window has grown by since it was `first`, if that is more.
    pub(super) fn arrived(&self, first: u64) -> u64 {
        // What is discarded is not kept, but never credited to its stream either.
        let grown = if self.rx.done { 0 } else { self.rx.credit.window() - first };
        if self.rx.discard { 0 } else { self.rx.credit.held().max(grown) }
    }

    /// Bytes that wait to be written.
    pub(super) fn unsent(&self) -> u64 {
        let items = self.streams.as_ref().map_or(0, |streams| streams.outgoing.bytes());
        (self.tx.body.as_ref().map_or(0, |body| body.as_slice().len()) + items) as u64
    }

    /// Whether a call or an answer is all that is to be written, in so many bytes at most. Items are none.
    pub(super) fn is_within(&self, bytes: usize) -> bool {
        let beside = self.tx.open.as_ref().map_or(0, OpenFields::beside);
        let whole = self.tx.body.as_ref().is_some_and(|body| body.as_slice().len() + beside <= bytes);
        whole && !self.has_outgoing()
    }

    /// Whether the peer sent, or may still send, what the application has not taken.
    pub(super) fn has_untaken(&self) -> bool {
        let rx = &self.rx;
        !rx.discard && (!rx.done || rx.message.is_some() || rx.partial.is_some() || self.has_incoming())
    }

    /// Takes back a call that was never written: the caller is promised that nothing was started.
    pub(super) fn withdraw(&mut self) {
        self.tx.open = None;
        self.tx.body = None;
        self.tx.state = TxState::Done;
        self.rx.done = true;
    }

    /// Outgoing items that wait.
    #[inline]
    pub(super) fn has_outgoing(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| !streams.outgoing.is_empty())
    }

    /// Incoming items that wait.
    #[inline]
    pub(super) fn has_incoming(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| !streams.incoming.is_empty())
    }

    /// Whether a frame of the data lane is due, credit aside.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        match self.tx.state {
            TxState::Open => self.tx.body.is_some() || self.has_outgoing(),
            TxState::Ending => true,
            TxState::Resetting(_) | TxState::Done => false,
        }
    }

    /// Ends the sending direction with a fault, and drops the items that wait.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.tx.reset(reason);
        if !matches!(self.tx.state, TxState::Open | TxState::Ending)
            && let Some(streams) = &mut self.streams
        {
            streams.outgoing = Batch::new();
            streams.broken = None;
        }
    }

    pub(super) fn streams(&mut self) -> &mut Streams {
        self.streams.get_or_insert_default()
    }
}

impl Rx {
    #[inline(always)]
    fn new(window: u64, kind: AnswerKind) -> Self {
        Self {
            done: false,
            discard: false,
            fault: None,
            credit: RecvCredit::new(window),
            kind,
            accepted: false,
            message: None,
            message_is_error: false,
            held: Held::default(),
            partial: None,
            announce: false,
        }
    }

    #[inline]
    fn clear(&mut self) {
        let Self { done, discard, fault, credit, kind, accepted, message, message_is_error, held, partial, announce } = self;
        (*done, *discard, *accepted, *message_is_error, *announce) = (false, false, false, false, false);
        (*fault, *message, *partial) = (None, None, None);
        (*credit, *kind, *held) = (RecvCredit::new(0), AnswerKind::One, Held::default());
    }

    /// The application finds this fault, unless it already has an answer or an earlier fault.
    pub(super) fn fail(&mut self, reason: Reason, origin: Origin, sent: bool) {
        if self.fault.is_none() {
            self.fault = Some(Box::new(ExchangeFault { reason, origin, sent }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_exchange_is_as_a_new_one() {
        let reason = || Reason::new(Code::INTERNAL, "");
        let mut exchange = Exchange::new(Side::Acceptor, Some(Xid(7)), AnswerKind::Many, 8, 9, 10u64);
        (exchange.held, exchange.explicit, exchange.granted, exchange.queued) = (true, true, true, true);
        (exchange.asked_at, exchange.arrived, exchange.deadline) = (1, Some(Time::default()), Deadline::Unstamped(2));
        exchange.streams().broken = Some(reason());
        let tx = &mut exchange.tx;
        (tx.state, tx.spare, tx.written, tx.cancel) = (TxState::Resetting(Box::new(reason())), vec![1], 1, Some(Code::CANCELLED));
        tx.open = Some(OpenFields { method: 1, timeout_ms: None, one_way: true, metadata: None });
        tx.body = Some(vec![1].into());
        (tx.accept, tx.body_is_error, tx.watched, tx.stopping) = (true, true, true, true);
        let rx = &mut exchange.rx;
        (rx.done, rx.discard, rx.accepted, rx.message_is_error, rx.announce) = (true, true, true, true, true);
        rx.fail(reason(), Origin::Peer, true);
        (rx.message, rx.held) = (Some(vec![1]), Held { stream: 1, shared: 1 });
        let partial = Partial { bytes: vec![1], total: 2, is_error: true, charged: 1, admission: Admission::Waiting };
        rx.partial = Some(Box::new(partial));
        exchange.clear();
        assert_eq!(format!("{exchange:?}"), format!("{:?}", Exchange::<u64>::blank()));
    }
}
