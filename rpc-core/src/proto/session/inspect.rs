//! What a session is doing and what its exchanges wait for, worked out when somebody asks. Noted is only since when: where
//! something begins to wait, which is no hot path, and stamped by the driver as deadlines are.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use super::{Link, Session};
use crate::id::{ExchangeKey, Side, Xid};
use crate::proto::exchange::{AnswerKind, Exchange, TxState};
use crate::proto::outbox::Outbox;
use crate::proto::table::DenseHasher;
use crate::proto::time::Time;

/// What an exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The peer lets this exchange send no more for now.
    StreamCredit,
    /// The peer lets the session send no more for now.
    SessionCredit,
    /// The peer lets the connection send no more for now.
    ConnectionCredit,
    /// As many calls of this side are open in the session as the peer allows.
    Places,
    /// It has something to write and no turn yet: others have theirs, or the socket takes nothing.
    Turn,
    /// The application here has items or an answer to take, or items to send.
    Application,
    /// The handler here has not ended.
    Handler,
    /// The peer has not answered, or not sent what is to come.
    Peer,
}

/// An exchange, as it is seen from outside.
#[derive(Debug)]
pub struct ExchangeView<'a, U> {
    /// Its id; `None` before its OPEN is written.
    pub xid: Option<Xid>,
    /// Who opened it.
    pub opener: Side,
    /// The method's rank in the acceptor's service.
    pub method: u32,
    /// What it waits for.
    pub wait: Wait,
    /// Since when, where that was noted: for credit and places.
    pub since: Option<Time>,
    /// When it was made, where that follows from its deadline: for calls of this side with the session's default.
    pub made: Option<Time>,
    /// When it ends at the latest.
    pub deadline: Option<Time>,
    /// What it may send now, in bytes.
    pub send_credit: u64,
    /// Messages that wait to be written.
    pub queued: usize,
    /// Messages that have arrived whole and wait for the application.
    pub untaken: usize,
    /// What the owner attached.
    pub user: &'a U,
}

/// A session, as it is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// What this side may send now, in bytes.
    pub send_credit: u64,
    /// What the peer may send now, in bytes, as far as it was told.
    pub receive_credit: u64,
    /// Bytes received that the application has not taken.
    pub held: u64,
    /// Calls that this side may open now.
    pub places: u64,
    /// Calls of this side so far whose place was taken.
    pub opened: u64,
    /// Calls of the peer so far.
    pub accepted: u64,
}

/// Since when exchanges wait. There is a note for a slot of the table at the most, and a note counts only where its exchange
/// still waits, so that nothing has to be taken back when it goes on.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    notes: HashMap<u32, Note, BuildHasherDefault<DenseHasher>>,
    /// Slots whose note has no time.
    pending: Vec<u32>,
    /// The same for the connection's credit.
    connection: Option<Note>,
}

#[derive(Debug)]
struct Note {
    generation: u32,
    wait: Wait,
    /// What had been sent by then: while that is the same, it is the same wait, however often it was looked at in vain.
    sent: u64,
    /// `None` until the driver has stamped it.
    since: Option<Time>,
}

impl Stalls {
    /// An exchange that has `sent` so much waits from now on, unless it did already.
    #[cold]
    pub(super) fn note(&mut self, key: ExchangeKey, wait: Wait, sent: u64) {
        let note = Note { generation: key.generation, wait, sent, since: None };
        match self.notes.get_mut(&key.slot) {
            Some(known) if known.is(&note) => {}
            Some(known) => {
                if known.since.is_some() {
                    self.pending.push(key.slot);
                }
                *known = note;
            }
            None => {
                self.notes.insert(key.slot, note);
                self.pending.push(key.slot);
            }
        }
    }

    /// The session, which has `sent` so much, waits for the connection's credit from now on, unless it did already.
    #[cold]
    pub(super) fn note_connection(&mut self, sent: u64) {
        let note = Note { generation: 0, wait: Wait::ConnectionCredit, sent, since: None };
        if self.connection.as_ref().is_none_or(|known| !known.is(&note)) {
            self.connection = Some(note);
        }
    }

    /// Whether notes wait for their time.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.connection.as_ref().is_some_and(|note| note.since.is_none())
    }

    /// Puts a time to the notes that have none.
    #[cold]
    pub(super) fn stamp(&mut self, now: Time) {
        for slot in self.pending.drain(..) {
            if let Some(note) = self.notes.get_mut(&slot) {
                note.since = Some(now);
            }
        }
        if let Some(note) = &mut self.connection {
            note.since.get_or_insert(now);
        }
    }

    fn since(&self, key: ExchangeKey, wait: Wait) -> Option<Time> {
        let note = match wait {
            Wait::ConnectionCredit => self.connection.as_ref(),
            _ => self.notes.get(&key.slot).filter(|note| note.generation == key.generation && note.wait == wait),
        };
        note?.since
    }
}

impl Note {
    fn is(&self, other: &Self) -> bool {
        (self.generation, self.wait, self.sent) == (other.generation, other.wait, other.sent)
    }
}

impl<U: Default> Session<U> {
    /// Remembers that an exchange waits for credit, and has the driver put a time to it.
    #[cold]
    pub(super) fn note_stall(&mut self, key: ExchangeKey, wait: Wait, link: Link, out: &mut Outbox) {
        let sent = self.exchanges.get(key).map_or(0, |exchange| exchange.tx.credit.used());
        match wait {
            Wait::ConnectionCredit => self.stalls.note_connection(self.send.used()),
            _ => self.stalls.note(key, wait, sent),
        }
        if self.stalls.has_pending() && !self.stamp_wanted {
            self.stamp_wanted = true;
            out.needs_stamp(link.slot);
        }
    }

    /// The session's own numbers.
    pub fn view(&self) -> SessionView {
        SessionView {
            send_credit: self.send.available(),
            receive_credit: self.recv.max() - self.recv.received(),
            held: self.recv.held(),
            places: self.opens_max.saturating_sub(self.opened),
            opened: self.opened,
            accepted: self.accepted,
        }
    }

    /// Every exchange, in no order.
    pub fn exchanges(&self) -> impl Iterator<Item = ExchangeView<'_, U>> {
        let parked: HashSet<ExchangeKey> = self.parked.iter().copied().collect();
        self.exchanges.iter().map(move |(key, exchange)| {
            let wait = self.wait_of(exchange, parked.contains(&key));
            let since = self.stalls.since(key, wait);
            let deadline = exchange.deadline_at();
            let own = exchange.opener == Side::Initiator && !exchange.explicit;
            let made = deadline.filter(|_| own).map(|at| at.before(self.default_deadline_ms));
            let streams = exchange.streams.as_deref();
            ExchangeView {
                xid: exchange.xid,
                opener: exchange.opener,
                method: self.methods.get(key.slot as usize).copied().unwrap_or_default(),
                wait,
                since,
                made,
                deadline,
                send_credit: exchange.tx.credit.available(),
                queued: usize::from(exchange.tx.body.is_some()) + streams.map_or(0, |streams| streams.outgoing.len()),
                untaken: usize::from(exchange.rx.message.is_some()) + streams.map_or(0, |streams| streams.incoming.len()),
                user: &exchange.user,
            }
        })
    }

    /// What an exchange waits for: what it has to send comes first, because that holds up what is behind.
    fn wait_of(&self, exchange: &Exchange<U>, parked: bool) -> Wait {
        let (tx, rx) = (&exchange.tx, &exchange.rx);
        if exchange.has_output() {
            return match () {
                () if exchange.xid.is_none() && !exchange.granted => Wait::Places,
                () if !exchange.queued => Wait::StreamCredit,
                () if parked => Wait::SessionCredit,
                () if self.blocked_at.is_some() => Wait::ConnectionCredit,
                () => Wait::Turn,
            };
        }
        let untaken = !rx.discard && (rx.message.is_some() || exchange.has_incoming());
        match exchange.opener {
            _ if untaken => Wait::Application,
            Side::Acceptor if exchange.held => Wait::Handler,
            Side::Initiator if tx.state == TxState::Open && rx.kind == AnswerKind::One => Wait::Application,
            _ => Wait::Peer,
        }
    }
}
