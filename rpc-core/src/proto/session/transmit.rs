//! The outgoing side of a session: from queued commands to frames, within credit, in turns.
//!
//! Header, exchange id and sequence position are assigned here and nowhere else, so that the order of the queue may
//! change up to the last moment and the order of the sequence is the order on the wire.

use super::writer::{HEAD_ROOM, Turn, Writer};
use super::{Extras, Link, OpenCommand, SendCredit, Session, Wait, millis};
use crate::code::Code;
use crate::id::{ExchangeKey, Xid};
use crate::metadata::Metadata;
use crate::proto::error::{ExchangeFault, Origin};
use crate::proto::exchange::{AnswerKind, Body, Exchange, TxState};
use crate::proto::outbox::{Lane, Outbox, QUANTUM};
use crate::wire::frame::{LEAST_URGENCY, Open, Reason, Reset, charge, exchange_head, flag, kind, session_head};

/// Room that an OPEN's own fields take at most: method and bitmap of one byte, timeout of eight. A method number over 63
/// takes one more, which the slow path's arithmetic counts and the estimate here covers.
const OPEN_ROOM: usize = 16;

/// What an OPEN has behind its ids beside metadata, at most: method and timeout of 32 bits, bitmap, urgency, two lengths,
/// and the 16 bytes that are the least of a message to go with them.
const BESIDE_METADATA: usize = 48;

impl<U: Default> Session<U> {
    /// Whether data could be written, credit of the exchanges aside.
    #[inline]
    fn has_data(&self) -> bool {
        !self.ring.is_empty() && self.blocked_at.is_none() || (self.is_closing() && self.close_due())
    }

    /// Whether at least half of the exchanges could be granted anew, or any while the peer has none left: the others may
    /// be long-lived.
    #[inline]
    pub(super) fn grants_due(&self) -> bool {
        let window = self.config.windows.exchanges;
        let gain = self.finished + window - self.opens_granted;
        gain >= window.div_ceil(2) || (gain > 0 && self.accepted == self.opens_granted)
    }

    #[inline]
    fn announces_window(&self) -> bool {
        !self.announces.is_empty() || self.recv.is_due()
    }

    /// Brings what is due into the outbox: at once where nobody waits there, else by queueing the session. Called after
    /// every command and every frame, by whoever holds the session's and then the outbox's lock.
    #[inline]
    pub fn flush(&mut self, out: &mut Outbox) {
        let Some(link) = self.link else { return };
        if !self.unstamped.is_empty() && !self.stamp_wanted {
            self.stamp_wanted = true;
            out.needs_stamp(link.slot);
        }
        if self.control_due && !self.control_queued {
            if out.takes_control() && (out.growth().is_in_turn() || !self.announces_window()) {
                self.transmit_control(link, out);
            } else {
                self.control_queued = true;
                out.schedule().enqueue_control(link.slot);
            }
        }
        if self.has_data() {
            if out.is_idle() {
                self.transmit_data(link, out);
            } else {
                self.queue_turns(link, out);
            }
        }
    }

    /// Stands in line for what there is to write: with expedited messages ahead of the others, as far as its share goes,
    /// and with the rest among them.
    fn queue_turns(&mut self, link: Link, out: &mut Outbox) {
        if self.wants_expedited() && out.schedule().expedites(link.slot, self.weight) {
            self.expedited_queued = true;
            out.schedule().enqueue_expedited(link.slot);
        }
        if self.wants_turn() {
            self.data_queued = true;
            out.schedule().enqueue(link.slot, self.weight);
        }
    }

    #[cold]
    fn wants_line(&self) -> bool {
        self.wants_expedited() || self.wants_turn()
    }

    fn wants_expedited(&self) -> bool {
        !self.expedited_queued && self.ring.expedited() > 0 && self.blocked_at.is_none()
    }

    fn wants_turn(&self) -> bool {
        let ahead = if self.expedited_queued { self.ring.expedited() } else { 0 };
        let rest = self.ring.len() > ahead && self.blocked_at.is_none();
        !self.data_queued && (rest || (self.is_closing() && self.close_due()))
    }

    /// Whether [`flush`](Self::flush) has anything to do.
    #[inline]
    pub fn needs_flush(&self) -> bool {
        (!self.unstamped.is_empty() && !self.stamp_wanted)
            || (!self.control_queued && self.control_due)
            || (self.has_data() && self.wants_line())
    }

    /// Whether a message of `len` bytes with `fields` bytes before it may be written at once and whole: nobody waits,
    /// in the session or on the connection, and every credit suffices. Nearly every small message goes this way.
    #[inline]
    pub(super) fn fits(&self, stream: u64, fields: usize, len: usize, out: &Outbox) -> bool {
        let taken = charge(fields + len);
        self.ring.is_empty()
            && out.is_idle()
            && taken <= stream.min(self.send.available()).min(out.credit())
            && fields + len <= QUANTUM.min(out.max_frame() as usize - HEAD_ROOM)
    }

    /// [`open`](Self::open) and [`flush`](Self::flush) in one: a call that nothing stands in the way of is written
    /// without being queued.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_now(&mut self, command: OpenCommand, user: U, out: &mut Outbox) -> Result<ExchangeKey, ExchangeFault> {
        let bytes = command.body.as_slice();
        let fits = self.opened < self.opens_max
            && self.waiting.is_empty()
            && bytes.len() as u64 <= self.peer.message
            && self.refusal().is_none()
            && self.fits(self.peer.stream, OPEN_ROOM, bytes.len(), out);
        let (true, Some(link)) = (fits, self.link) else {
            let result = self.open(command, user);
            self.flush(out);
            return result;
        };
        let (deadline, xid) = (self.deadline_of(&command), Xid(self.next_local));
        let OpenCommand { method, timeout, body, more, answer } = command;
        let bytes = body.as_slice();
        let timeout_ms = timeout.map(|timeout| millis(timeout).into());
        let mut flags = if more { flag::EOM } else { flag::EOM | flag::END };
        flags |= if answer == AnswerKind::None { flag::ONEWAY } else { 0 };
        flags |= if timeout_ms.is_some() { flag::EXT } else { 0 };
        let mut head = exchange_head(kind::OPEN, flags, link.sid, xid);
        let ids = head.len();
        Open { method: method.into(), timeout_ms, total: None }.write(&mut head);
        let taken = charge(head.len() - ids + bytes.len());
        self.send.take(taken);
        let (asked_at, window) = (self.tx_count, self.peer.stream);
        self.tx_count += 1;
        out.frame(&mut head, bytes, taken);
        self.opened += 1;
        self.next_local += 2;
        let (key, exchange) = self.call(method, answer, deadline, timeout.is_some());
        exchange.user = user;
        exchange.xid = Some(xid);
        exchange.asked_at = asked_at;
        exchange.granted = true;
        exchange.tx.credit = SendCredit::resumed(window, taken);
        exchange.tx.state = if more { TxState::Open } else { TxState::Done };
        if let Body::Inline(bytes) = body {
            exchange.tx.spare = bytes;
        }
        self.ids.insert(xid, key);
        self.flush(out);
        Ok(key)
    }

    /// [`open`](Self::open) and [`flush`](Self::flush) of a call with metadata or an urgency, which are written with its
    /// OPEN.
    ///
    /// # Errors
    /// As [`open`](Self::open), and for more metadata than the limits of this side or the windows of the peer allow.
    #[cold]
    pub fn open_with(
        &mut self,
        command: OpenCommand,
        mut extras: Extras,
        user: U,
        out: &mut Outbox,
    ) -> Result<ExchangeKey, ExchangeFault> {
        extras.urgency = extras.urgency.min(LEAST_URGENCY);
        if let Some(metadata) = &extras.metadata {
            self.check_metadata(metadata, out)?;
        }
        let key = self.open_beside(command, extras, user)?;
        self.flush(out);
        Ok(key)
    }

    fn check_metadata(&self, metadata: &Metadata, out: &Outbox) -> Result<(), ExchangeFault> {
        let too_much = |code, text| ExchangeFault { reason: Reason::new(code, text), origin: Origin::Local, sent: false };
        metadata
            .check(self.config.metadata_bytes as usize, self.config.metadata_entries as usize)
            .map_err(|error| too_much(error.code(), error.to_string()))?;
        let (size, room) = (metadata.encoded().len(), self.metadata_room(out));
        if size > room {
            let text = format!("the metadata take {size} bytes, and the peer's windows and frames leave room for {room}");
            return Err(too_much(Code::TOO_LARGE, text));
        }
        Ok(())
    }

    /// How many bytes of metadata the peer's windows and frames have room for, whatever else is under way. All of it
    /// goes into one frame, so it must fit into what a sender can count on once its peer has read everything: the whole
    /// window of a new stream, half of the session's, and a quarter of the connection's (PROTOCOL §7.2).
    pub fn metadata_room(&self, out: &Outbox) -> usize {
        let windows = self.peer.stream.min(self.peer.session / 2).min(out.window() / 4);
        let room = windows.min(u64::from(out.max_frame()).saturating_sub(HEAD_ROOM as u64));
        usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(BESIDE_METADATA)
    }

    /// [`answer`](Self::answer), [`handler_done`](Self::handler_done) and [`flush`](Self::flush) in one, likewise.
    pub fn answer_now(&mut self, key: ExchangeKey, body: Body, is_error: bool, out: &mut Outbox) {
        if let Some(exchange) = self.exchanges.get(key)
            && let (Some(link), Some(xid), TxState::Open) = (self.link, exchange.xid, &exchange.tx.state)
            && exchange.rx.done
            && exchange.streams.is_none()
            && !exchange.queued
            && let bytes = body.as_slice()
            && bytes.len() as u64 <= self.peer.message
            && self.fits(exchange.tx.credit.available(), 0, bytes.len(), out)
        {
            self.write_answer(link, xid, bytes, is_error, out);
            body.recycle();
            self.remove(key, xid);
        } else {
            self.answer(key, body, is_error);
            self.handler_done(key);
        }
        self.flush(out);
    }

    /// Writes an answer that [fits](Self::fits).
    #[inline]
    pub(super) fn write_answer(&mut self, link: Link, xid: Xid, bytes: &[u8], is_error: bool, out: &mut Outbox) {
        let flags = flag::EOM | flag::END | if is_error { flag::ERR } else { 0 };
        let taken = charge(bytes.len());
        self.send.take(taken);
        self.tx_count += 1;
        out.frame(&mut exchange_head(kind::DATA, flags, link.sid, xid), bytes, taken);
    }

    /// The session's turn, given by [`Outbox::next_session`].
    pub fn transmit(&mut self, lane: Lane, out: &mut Outbox) {
        let Some(link) = self.link else { return };
        match lane {
            Lane::Control => {
                self.control_queued = false;
                self.transmit_control(link, out);
            }
            Lane::Expedited => {
                self.expedited_queued = false;
                self.transmit_expedited(link, out);
            }
            Lane::Data => {
                self.data_queued = false;
                self.transmit_data(link, out);
            }
        }
    }

    /// Writes data up to a quantum while others wait, or up to a batch. The session puts itself back into the ring
    /// where more is left.
    fn transmit_data(&mut self, link: Link, out: &mut Outbox) {
        self.transmit_close(link, out);
        if self.blocked_at != Some(out.credit_max()) {
            self.blocked_at = None;
            self.transmit_ring(link, out);
            self.transmit_close(link, out);
        }
        if self.control_due && !self.control_queued {
            // A stream that broke: its RESET follows the last of its items. Or the last word of a session that closes.
            self.control_queued = true;
            out.schedule().enqueue_control(link.slot);
        }
        self.queue_turns(link, out);
    }

    /// Writes small messages of the highest urgency, as far as the session may ahead of the others.
    fn transmit_expedited(&mut self, link: Link, out: &mut Outbox) {
        if self.blocked_at != Some(out.credit_max()) {
            self.blocked_at = None;
        }
        let start = self.send.used();
        while self.blocked_at.is_none()
            && self.send.used() - start < QUANTUM as u64
            && !out.is_full()
            && out.schedule().expedites(link.slot, self.weight)
        {
            let before = self.send.used();
            let Some(key) = self.ring.pop_expedited(before) else { break };
            self.serve(key, link, out);
            out.schedule().charge_expedited(link.slot, self.send.used() - before);
        }
        self.queue_turns(link, out);
    }

    /// S_CLOSE needs no credit: it only waits for the calls that are still to be opened.
    fn transmit_close(&mut self, link: Link, out: &mut Outbox) {
        if self.is_closing() && self.close_due() {
            self.tx_count += 1;
            out.frame(&mut session_head(kind::S_CLOSE, 0, link.sid), &[], 0);
            self.write_ack(link, out);
            self.close_written();
        }
    }

    fn transmit_ring(&mut self, link: Link, out: &mut Outbox) {
        let limit = out.schedule().turn(link.slot);
        let start = self.send.used();
        while self.blocked_at.is_none() && !out.is_full() && self.send.used() - start < limit {
            let Some(key) = self.ring.pop(self.send.used()) else { break };
            self.serve(key, link, out);
        }
        out.schedule().charge(link.slot, self.send.used() - start);
    }

    /// One turn of one exchange, and where it stands behind it.
    fn serve(&mut self, key: ExchangeKey, link: Link, out: &mut Outbox) {
        match self.transmit_exchange(key, link, out) {
            Turn::Drained => {}
            Turn::Again => self.enter_ring(key),
            Turn::Stream => self.note_stall(key, Wait::StreamCredit, link, out),
            Turn::Session => {
                self.note_stall(key, Wait::SessionCredit, link, out);
                self.park(key);
            }
            Turn::Connection => {
                self.note_stall(key, Wait::ConnectionCredit, link, out);
                self.blocked_at = Some(out.credit_max());
                self.ring.push_front(key, self.rank_of(key));
                out.block(link.slot);
            }
        }
    }

    fn transmit_control(&mut self, link: Link, out: &mut Outbox) {
        self.control_due = false;
        self.announce(link, out);
        while let Some(key) = self.stops.pop() {
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.tx.stopping = false;
                self.tx_count += write_stops(exchange, link, out);
                self.settle(key);
            }
        }
        // A RESET that was the last of its exchange has given a place back, for which somebody may wait.
        self.announce(link, out);
        while let Some(key) = self.announces.pop() {
            let Some(exchange) = self.exchanges.get_mut(key) else { continue };
            exchange.rx.announce = false;
            if let (Some(xid), false) = (exchange.xid, exchange.rx.done) {
                let mut head = exchange_head(kind::MAX_STREAM, 0, link.sid, xid);
                head.varint(exchange.rx.credit.announce_grown(
                    self.config.windows.stream,
                    self.config.max_stream_window,
                    out.growth(),
                ));
                out.frame(&mut head, &[], 0);
            }
        }
        if self.ack_due {
            self.ack_due = false;
            self.write_ack(link, out);
        }
        if self.done_due() {
            let mut head = session_head(kind::S_CLOSE_DONE, 0, link.sid);
            head.varint(self.done_written());
            out.frame(&mut head, &[], 0);
        }
    }

    /// MAX_SESSION, where it is due.
    fn announce(&mut self, link: Link, out: &mut Outbox) {
        if self.recv.is_due() || self.grants_due() {
            self.opens_granted = self.finished + self.config.windows.exchanges;
            let mut head = session_head(kind::MAX_SESSION, 0, link.sid);
            head.varint(self.recv.announce_grown(self.config.windows.session, self.config.max_session_window, out.growth()));
            head.varint(self.opens_granted);
            out.frame(&mut head, &[], 0);
        }
    }

    fn write_ack(&mut self, link: Link, out: &mut Outbox) {
        let mut head = session_head(kind::ACK, 0, link.sid);
        head.varint(self.rx_count);
        head.varint(self.tx_count);
        out.frame(&mut head, &[], 0);
    }

    /// One turn of one exchange: control frames without credit, then one piece of a message, or as many small items as
    /// a quantum holds.
    fn transmit_exchange(&mut self, key: ExchangeKey, link: Link, out: &mut Outbox) -> Turn {
        let urgency = self.urgency_of(key);
        let Some(exchange) = self.exchanges.get_mut(key) else { return Turn::Drained };
        exchange.queued = false;
        let competition = self.ring.is_pressed() || out.has_competition();
        let frame_limit = out.max_frame() as usize - HEAD_ROOM;
        let mut writer = Writer {
            sid: link.sid,
            urgency,
            limit: if competition { frame_limit.min(QUANTUM) } else { frame_limit },
            session: &mut self.send,
            reserve: self.peer.session / 4,
            count: &mut self.tx_count,
            out,
        };
        let start = exchange.tx.credit.used();
        if exchange.xid.is_none() {
            // Withdrawn calls were removed; whoever is here has exchange credit and a message.
            let xid = Xid(self.next_local);
            match writer.open(exchange, xid) {
                Ok(()) => {
                    exchange.xid = Some(xid);
                    self.next_local += 2;
                    self.ids.insert(xid, key);
                }
                Err(turn) => {
                    exchange.queued = true;
                    return turn;
                }
            }
        }
        let turn = writer.rest(exchange, start);
        match turn {
            Turn::Drained => {
                if !exchange.has_outgoing()
                    && let Some(reason) = exchange.streams.as_mut().and_then(|streams| streams.broken.take())
                {
                    exchange.reset(reason);
                    self.queue(key);
                    return turn;
                }
                if exchange.tx.watched && exchange.tx.body.is_none() && !exchange.has_outgoing() {
                    exchange.tx.watched = false;
                    self.drained.push(key);
                }
                self.settle(key);
            }
            Turn::Stream => {}
            Turn::Again | Turn::Session | Turn::Connection => exchange.queued = true,
        }
        turn
    }
}

/// Writes ACCEPT, CANCEL and RESET where they are due, which need no credit. Returns how many sequenced frames that made.
fn write_stops<U>(exchange: &mut Exchange<U>, link: Link, out: &mut Outbox) -> u64 {
    let Some(xid) = exchange.xid else { return 0 };
    let mut count = 0;
    if std::mem::take(&mut exchange.tx.accept) {
        out.frame(&mut exchange_head(kind::ACCEPT, 0, link.sid, xid), &[], 0);
        count += 1;
    }
    if let Some(code) = exchange.tx.cancel.take() {
        let mut head = exchange_head(kind::CANCEL, 0, link.sid, xid);
        head.varint(code.0.into());
        out.frame(&mut head, &[], 0);
        count += 1;
    }
    if let TxState::Resetting(reason) = &exchange.tx.state {
        let mut body = Vec::new();
        Reset { final_offset: exchange.tx.credit.used(), reason: (**reason).clone() }.write(&mut body);
        out.frame(&mut exchange_head(kind::RESET, 0, link.sid, xid), &body, 0);
        exchange.tx.state = TxState::Done;
        count += 1;
    }
    count
}
