//! The incoming side of a session: from frames to events. A fault in a frame ends the exchange where that contains it,
//! else the session; the connection never.

use std::sync::Arc;
use std::time::Duration;

use super::{OpenFields, Session, SessionEvent, millis};
use crate::code::Code;
use crate::id::{ExchangeKey, Side, Xid};
use crate::metadata::{Metadata, MetadataError};
use crate::pool;
use crate::proto::credit::{Overrun, RecvCredit};
use crate::proto::error::{Origin, ProtocolError};
use crate::proto::exchange::{AnswerKind, Deadline, Exchange, Held, TxState};
use crate::proto::time::Time;
use crate::wire::frame::{Abort, Beside, Frame, Open, Reason, Reset, Run, charge, flag, kind, read_cancel, read_varints};
use crate::wire::{DecodeError, RawFrame, varint};

/// A rule that a frame broke, where the exchange contains it.
pub(super) struct Refused(pub(super) Reason);

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self(Reason::new(Code::PROTOCOL, error.to_string()))
    }
}

impl From<MetadataError> for Refused {
    fn from(error: MetadataError) -> Self {
        Self(Reason::new(error.code(), error.to_string()))
    }
}

/// An OPEN whose exchange may begin.
struct Opening<'f> {
    open: Open,
    urgency: u8,
    metadata: Option<Arc<Metadata>>,
    /// The arguments, or the first piece of them.
    bytes: &'f [u8],
}

impl<U: Default> Session<U> {
    /// Handles a frame of session or exchange scope that was read at `now`. `user` makes what is attached to an exchange that it opens.
    ///
    /// # Errors
    /// The peer broke a rule of the session: [`abort`](Self::abort) it. Rules of one exchange end that exchange alone
    /// and are no error here.
    pub fn handle_frame(
        &mut self,
        frame: &Frame<'_>,
        now: Time,
        user: impl FnOnce() -> U,
    ) -> Result<Option<SessionEvent>, ProtocolError> {
        let raw = RawFrame { kind: frame.kind, flags: frame.flags, rest: &[] };
        if raw.is_sequenced() {
            self.rx_count += 1;
        }
        match frame.kind {
            kind::OPEN => {
                self.charge(frame)?;
                self.handle_open(frame, now, user)
            }
            kind::DATA => {
                self.charge(frame)?;
                if frame.behind.is_empty() { self.handle_data(frame, now) } else { self.handle_run(frame, now) }
            }
            kind::RESET => self.handle_reset(frame, now),
            kind::CANCEL => self.handle_cancel(frame, now),
            kind::ACCEPT => self.handle_accept(frame),
            kind::MAX_STREAM => self.handle_max_stream(frame),
            kind::MAX_SESSION => self.handle_max_session(frame),
            kind::S_CLOSE => {
                self.handle_close()?;
                Ok(Some(SessionEvent::PeerClosed))
            }
            kind::S_ABORT => {
                let abort = Abort::read(frame.body)?;
                self.fail_at(abort.reason.clone(), Some(abort.rx_next));
                Ok(Some(SessionEvent::Aborted(abort.reason)))
            }
            kind::ACK => self.handle_ack(frame),
            kind::S_CLOSE_DONE => {
                self.handle_close_done(frame)?;
                Ok(Some(SessionEvent::PeerDone))
            }
            _ if raw.is_ignorable() => Ok(None),
            other => Err(ProtocolError::new(Code::UNKNOWN_FRAME, format!("frame type {other:#04x} is not known here"))),
        }
    }

    /// Session credit for a frame that takes any. Nothing of it is kept before.
    #[inline]
    fn charge(&mut self, frame: &Frame<'_>) -> Result<(), ProtocolError> {
        let result = self.recv.receive(frame.charge());
        if self.recv.is_low() {
            self.control_due |= self.recv.is_due();
        }
        result.map_err(|Overrun| ProtocolError::new(Code::FLOW, "more bytes than the session's credit allows"))
    }

    fn handle_open(
        &mut self,
        frame: &Frame<'_>,
        now: Time,
        user: impl FnOnce() -> U,
    ) -> Result<Option<SessionEvent>, ProtocolError> {
        if frame.xid.0 != self.next_remote {
            let text = format!("OPEN of {}, where {} is next", frame.xid, self.next_remote);
            return Err(ProtocolError::new(Code::PROTOCOL, text));
        }
        if self.accepted >= self.opens_granted {
            return Err(ProtocolError::new(Code::FLOW, "more exchanges than were granted"));
        }
        if self.peer_closed() {
            return Err(ProtocolError::new(Code::PROTOCOL, "OPEN behind S_CLOSE"));
        }
        self.next_remote += 2;
        self.accepted += 1;
        if self.accepted == self.opens_granted {
            self.control_due |= self.grants_due();
        }
        let one_way = frame.has(flag::ONEWAY);
        if one_way && !frame.has(flag::END) && frame.has(flag::EOM) {
            return Err(ProtocolError::new(Code::PROTOCOL, "a one-way call has no items"));
        }
        let (send, receive) = (self.peer.stream, self.config.windows.stream);
        let mut exchange = Exchange::new(Side::Acceptor, Some(frame.xid), AnswerKind::Many, send, receive, user());
        exchange.arrived = Some(now);
        if one_way {
            exchange.tx.state = TxState::Done;
        }
        let read = self.read_open(&mut exchange.rx.credit, frame);
        match read {
            // The plain case: the arguments are here whole, and go straight to a handler.
            Ok(Opening { open, urgency, metadata, bytes }) if open.total.is_none() => {
                self.release_shared(frame.charge());
                exchange.rx.credit.release(frame.charge());
                exchange.rx.done = frame.has(flag::END);
                exchange.held = true;
                let timeout = self.grant_timeout(&open);
                exchange.deadline = self.deadline_at(now, timeout);
                let (method, more) = (open.method as u32, !frame.has(flag::END));
                // Arguments that took most of the window leave too little of it for the items behind them.
                let announce = more && exchange.rx.credit.is_due();
                exchange.rx.announce = announce;
                let key = self.insert(exchange, method);
                self.ids.insert(frame.xid, key);
                self.set_urgency(key, urgency);
                if announce {
                    self.announces.push(key);
                    self.control_due = true;
                }
                Ok(Some(SessionEvent::Opened { key, method, timeout, body: pool::copy(bytes), more, one_way, metadata }))
            }
            Ok(Opening { open, urgency, metadata, bytes }) => {
                let timeout_ms = self.grant_timeout(&open).map(millis);
                exchange.tx.open = Some(OpenFields { method: open.method as u32, timeout_ms, one_way, metadata });
                let key = self.insert(exchange, open.method as u32);
                self.ids.insert(frame.xid, key);
                self.set_urgency(key, urgency);
                let total = open.total.unwrap_or_default();
                if let Err(refused) = self.begin(key, total, bytes, frame, false) {
                    self.release_shared(frame.charge());
                    self.refuse(key, frame, refused);
                }
                Ok(None)
            }
            Err(refused) => {
                let key = self.insert(exchange, 0);
                self.ids.insert(frame.xid, key);
                self.release_shared(frame.charge());
                self.refuse(key, frame, refused);
                Ok(None)
            }
        }
    }

    /// The fields of an OPEN, checked as far as its exchange alone is concerned.
    #[inline]
    fn read_open<'f>(&self, credit: &mut RecvCredit, frame: &Frame<'f>) -> Result<Opening<'f>, Refused> {
        let (open, Beside { urgency, metadata }, bytes) = Open::read(frame)?;
        if open.method > u64::from(u32::MAX) {
            return Err(Refused(Reason::new(Code::UNKNOWN_METHOD, "")));
        }
        if credit.receive(frame.charge()).is_err() {
            return Err(overrun());
        }
        if bytes.len() as u64 > self.config.windows.message {
            return Err(too_large(bytes.len() as u64, self.config.windows.message));
        }
        if open.total.is_some() && frame.has(flag::END) {
            return Err(Refused(Reason::new(Code::PROTOCOL, "END in the middle of a message")));
        }
        let metadata = if metadata.is_empty() { None } else { Some(self.read_metadata(metadata)?) };
        Ok(Opening { open, urgency, metadata, bytes })
    }

    #[cold]
    fn read_metadata(&self, encoded: &[u8]) -> Result<Arc<Metadata>, MetadataError> {
        let (bytes, entries) = (self.config.metadata_bytes as usize, self.config.metadata_entries as usize);
        Metadata::read(encoded, bytes, entries).map(Arc::new)
    }

    /// The time that the peer's call has, if it names one. Whether the default applies where it does not, only the
    /// service knows: streams have none.
    #[inline]
    pub(super) fn grant_timeout(&self, open: &Open) -> Option<Duration> {
        open.timeout_ms.map(|ms| Duration::from_millis(ms.max(1)).min(self.config.max_deadline))
    }

    /// The arguments are complete: a handler can start.
    pub(super) fn start(&mut self, key: ExchangeKey, now: Time) -> Option<SessionEvent> {
        let exchange = self.exchanges.get_mut(key)?;
        let body = exchange.rx.message.take()?;
        let fields = exchange.tx.open.take()?;
        exchange.held = true;
        let timeout = fields.timeout_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        let done = exchange.rx.done;
        let deadline = self.deadline_at(now, timeout);
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.deadline = deadline;
        }
        let OpenFields { method, one_way, metadata, .. } = fields;
        Some(SessionEvent::Opened { key, method, timeout, body, more: !done, one_way, metadata })
    }

    #[inline]
    pub(super) fn deadline_at(&mut self, now: Time, timeout: Option<Duration>) -> Deadline {
        let Some(timeout) = timeout else { return Deadline::None };
        let at = now.after(timeout);
        self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
        Deadline::At(at)
    }

    /// A call of the peer that names no deadline has this one, where its method is no stream.
    #[inline]
    pub fn default_deadline(&mut self, key: ExchangeKey, now: Time) -> Duration {
        let timeout = self.config.default_deadline;
        let deadline = self.deadline_at(now, Some(timeout));
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.deadline = deadline;
        }
        timeout
    }

    /// Refuses an exchange: it is reset, and what still comes for it is discarded.
    fn refuse(&mut self, key: ExchangeKey, frame: &Frame<'_>, Refused(reason): Refused) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        self.patience.provoked();
        exchange.rx.fail(reason.clone(), Origin::Local, true);
        exchange.tx.open = None;
        exchange.reset(reason.clone());
        self.abandon_rx(key, reason.code);
        if let Some(exchange) = self.exchanges.get_mut(key)
            && frame.has(flag::END)
        {
            exchange.rx.done = true;
            exchange.tx.cancel = None;
        }
        self.queue(key);
        self.settle(key);
    }

    fn handle_data(&mut self, frame: &Frame<'_>, now: Time) -> Result<Option<SessionEvent>, ProtocolError> {
        let key = self.live_rx(frame.xid)?;
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(None) };
        if exchange.rx.discard {
            // What was on its way is within the stream's credit. More costs nothing but work, and is not borne for ever.
            if exchange.rx.credit.receive(frame.charge()).is_err() {
                self.patience.provoked();
            }
            self.release_shared(frame.charge());
            return Ok(self.end_of_rx(key, frame, None));
        }
        match self.accept_data(key, frame, now) {
            Ok(event) => Ok(self.end_of_rx(key, frame, event)),
            Err(refused) => {
                self.release_shared(frame.charge());
                self.refuse(key, frame, refused);
                // A caller finds the fault; a handler has nobody left to answer.
                let handler = self.exchanges.get(key).is_some_and(|exchange| exchange.opener == Side::Acceptor);
                Ok(Some(if handler { SessionEvent::Cancelled(key) } else { SessionEvent::Readable(key) }))
            }
        }
    }

    /// An item and those behind it. What their exchange takes of these without more ado is taken at one look; the others, if
    /// there are any, are frames as all are.
    fn handle_run(&mut self, first: &Frame<'_>, now: Time) -> Result<Option<SessionEvent>, ProtocolError> {
        let mut event = self.handle_data(first, now)?;
        let mut run = first.behind;
        if let Some(key) = self.take_run(first.xid, &mut run) {
            event = event.or(Some(SessionEvent::Readable(key)));
        }
        while let Some((body, behind)) = run.split_first() {
            run = behind;
            self.rx_count += 1;
            let frame = Frame { body, behind: Run::default(), ..*first };
            self.charge(&frame)?;
            event = match (event, self.handle_data(&frame, now)?) {
                (Some(SessionEvent::Opened { key, .. }), Some(SessionEvent::Cancelled(_))) => {
                    // Refused before its handler was started: there will be none.
                    self.handler_done(key);
                    None
                }
                (Some(opened @ SessionEvent::Opened { .. }), _) => Some(opened),
                (event, later) => later.or(event),
            };
        }
        Ok(event)
    }

    /// Takes items from the front of `run`, as long as nothing is to be said against them. Yields their exchange, if it took
    /// any.
    fn take_run(&mut self, xid: Xid, run: &mut Run<'_>) -> Option<ExchangeKey> {
        let key = self.lookup(xid)?;
        let Exchange { rx, streams, .. } = self.exchanges.get_mut(key)?;
        if rx.done || rx.discard || rx.kind != AnswerKind::Many || rx.partial.is_some() {
            return None;
        }
        let incoming = &mut streams.get_or_insert_default().incoming;
        let room = rx.credit.left().min(self.recv.left());
        let (mut count, mut taken) = (0, 0);
        while let Some((body, behind)) = run.split_first() {
            let with = taken + charge(body.len());
            if with > room || body.len() as u64 > self.config.windows.message {
                break;
            }
            incoming.push(body);
            (count, taken) = (count + 1, with);
            *run = behind;
        }
        // There is room for it, as was seen.
        let _ = (rx.credit.receive(taken), self.recv.receive(taken));
        if self.recv.is_low() {
            self.control_due |= self.recv.is_due();
        }
        rx.held.add(Held { stream: taken, shared: taken });
        self.rx_count += count;
        (count > 0).then_some(key)
    }

    /// END, if the frame has it.
    fn end_of_rx(&mut self, key: ExchangeKey, frame: &Frame<'_>, event: Option<SessionEvent>) -> Option<SessionEvent> {
        if !frame.has(flag::END) {
            return event;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return event };
        exchange.rx.done = true;
        // Nothing is left that the peer could stop.
        exchange.tx.cancel = None;
        if exchange.held {
            return event.or(Some(SessionEvent::Readable(key)));
        }
        self.settle(key);
        event
    }

    /// Takes the bytes of a frame that somebody waits for.
    fn accept_data(&mut self, key: ExchangeKey, frame: &Frame<'_>, now: Time) -> Result<Option<SessionEvent>, Refused> {
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(None) };
        let rx = &mut exchange.rx;
        if rx.credit.receive(frame.charge()).is_err() {
            return Err(overrun());
        }
        let (eom, end, is_error) = (frame.has(flag::EOM), frame.has(flag::END), frame.has(flag::ERR));
        if rx.partial.is_some() {
            return self.continue_message(key, frame, now);
        }
        if !eom {
            if end && frame.body.is_empty() {
                // END by itself. Its charge is no message's, so it is given back here.
                self.release_held(key, Held { stream: frame.charge(), shared: frame.charge() });
                return Ok(None);
            }
            if end || frame.body.is_empty() {
                return Err(Refused(Reason::new(
                    Code::PROTOCOL,
                    "a frame without END or EOM must carry bytes, and one with END no half message",
                )));
            }
            let mut bytes = frame.body;
            let total = varint::read(&mut bytes, "the message length")?;
            self.begin(key, total, bytes, frame, is_error)?;
            return Ok(None);
        }
        if is_error && !end {
            return Err(Refused(Reason::new(Code::PROTOCOL, "an application error must end its direction")));
        }
        if frame.body.len() as u64 > self.config.windows.message {
            return Err(too_large(frame.body.len() as u64, self.config.windows.message));
        }
        let kind = rx.kind;
        if kind == AnswerKind::Many && !is_error {
            exchange.streams().incoming.push(frame.body);
        } else if end {
            let mut message = std::mem::take(&mut exchange.tx.spare);
            message.clear();
            message.extend_from_slice(frame.body);
            rx.message = Some(message);
            rx.message_is_error = is_error;
        } else {
            return Err(one_message());
        }
        exchange.rx.held.add(Held { stream: frame.charge(), shared: frame.charge() });
        Ok(Some(SessionEvent::Readable(key)))
    }

    fn handle_reset(&mut self, frame: &Frame<'_>, now: Time) -> Result<Option<SessionEvent>, ProtocolError> {
        let key = self.live_rx(frame.xid)?;
        let reset = Reset::read(frame.body)?;
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(None) };
        let rx = &mut exchange.rx;
        if !rx.discard && reset.final_offset != rx.credit.received() {
            return Err(ProtocolError::new(Code::SEQ_DIVERGED, "RESET states another final offset than was received"));
        }
        rx.done = true;
        rx.fail(reset.reason, Origin::Peer, true);
        exchange.tx.cancel = None;
        if exchange.tx.open.take().is_some() && exchange.tx.state == TxState::Open {
            self.patience.cancelled(&mut exchange.arrived, now);
            // The call was withdrawn before its arguments were complete: no handler was started, and none is answered.
            exchange.tx.state = TxState::Ending;
            self.queue(key);
        }
        self.drop_partial(key);
        let held = self.exchanges.get(key).is_some_and(|exchange| exchange.held);
        self.settle(key);
        Ok(held.then_some(SessionEvent::Readable(key)))
    }

    fn handle_cancel(&mut self, frame: &Frame<'_>, now: Time) -> Result<Option<SessionEvent>, ProtocolError> {
        let code = read_cancel(frame.body)?;
        let Some(key) = self.known(frame.xid)? else { return Ok(None) };
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(None) };
        if exchange.tx.state == TxState::Done {
            // It crossed the END. A one-way call has no answer to stop, only a handler.
            let stops = exchange.held && exchange.opener == Side::Acceptor;
            if stops {
                self.patience.cancelled(&mut exchange.arrived, now);
            }
            return Ok(stops.then_some(SessionEvent::Cancelled(key)));
        }
        // Once, and not where a part of the answer is out: that call was served.
        let unanswered = exchange.tx.credit.used() == 0 && !matches!(exchange.tx.state, TxState::Resetting(_));
        if exchange.opener == Side::Acceptor && unanswered {
            self.patience.cancelled(&mut exchange.arrived, now);
        }
        let unstarted = exchange.opener == Side::Acceptor && exchange.tx.open.take().is_some();
        exchange.reset(Reason::new(if code == Code::NO_ERROR { Code::CANCELLED } else { code }, ""));
        self.queue(key);
        if unstarted {
            // No handler will take the rest of the arguments.
            exchange_discards(self.exchanges.get_mut(key));
            self.drop_partial(key);
            return Ok(None);
        }
        Ok(Some(SessionEvent::Cancelled(key)))
    }

    fn handle_accept(&mut self, frame: &Frame<'_>) -> Result<Option<SessionEvent>, ProtocolError> {
        let key = self.live_rx(frame.xid)?;
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(None) };
        if exchange.opener == Side::Acceptor || (exchange.rx.kind != AnswerKind::Many && !exchange.rx.discard) {
            return Err(ProtocolError::new(Code::PROTOCOL, "ACCEPT where no stream of items was asked for"));
        }
        if exchange.rx.discard {
            return Ok(None);
        }
        exchange.rx.accepted = true;
        Ok(Some(SessionEvent::Readable(key)))
    }

    fn handle_max_stream(&mut self, frame: &Frame<'_>) -> Result<Option<SessionEvent>, ProtocolError> {
        let [max] = read_varints(frame.body, ["the stream's maximum"])?;
        if let Some(key) = self.known(frame.xid)?
            && let Some(exchange) = self.exchanges.get_mut(key)
            && exchange.tx.credit.raise(max)
        {
            self.queue(key);
        }
        Ok(None)
    }

    fn handle_max_session(&mut self, frame: &Frame<'_>) -> Result<Option<SessionEvent>, ProtocolError> {
        let [data, exchanges] = read_varints(frame.body, ["the session's maximum", "the number of exchanges"])?;
        if self.send.raise(data) {
            while let Some(key) = self.parked.pop_back() {
                self.ring.push_front(key, self.rank_of(key));
            }
        }
        if exchanges > self.opens_max {
            self.opens_max = exchanges;
            self.admit_waiting();
        }
        Ok(None)
    }

    fn handle_ack(&mut self, frame: &Frame<'_>) -> Result<Option<SessionEvent>, ProtocolError> {
        let [received, sent] = read_varints(frame.body, ["the receive count", "the send count"])?;
        if sent != self.rx_count || received > self.tx_count {
            let text =
                format!("the peer counts {received} received and {sent} sent, this side {} and {}", self.tx_count, self.rx_count);
            return Err(ProtocolError::new(Code::SEQ_DIVERGED, text));
        }
        Ok(None)
    }

    /// The exchange of an id that may have ended: late CANCEL and MAX_STREAM are no fault.
    fn known(&self, xid: Xid) -> Result<Option<ExchangeKey>, ProtocolError> {
        let next = if self.side.owns(xid.0) { self.next_local } else { self.next_remote };
        if xid.0 >= next {
            return Err(ProtocolError::new(Code::PROTOCOL, format!("{xid} was never opened")));
        }
        Ok(self.lookup(xid))
    }

    /// The exchange of an id whose receiving direction is open: DATA and RESET come in order, so behind the end of
    /// their direction there is none.
    #[inline]
    fn live_rx(&self, xid: Xid) -> Result<ExchangeKey, ProtocolError> {
        if let Some(key) = self.lookup(xid)
            && self.exchanges.get(key).is_some_and(|exchange| !exchange.rx.done)
        {
            return Ok(key);
        }
        Err(ProtocolError::new(Code::PROTOCOL, format!("a frame behind the end of {xid}")))
    }
}

fn exchange_discards<U>(exchange: Option<&mut Exchange<U>>) {
    if let Some(exchange) = exchange {
        exchange.rx.discard = true;
    }
}

pub(super) fn one_message() -> Refused {
    Refused(Reason::new(Code::PROTOCOL, "one message is the answer, and END comes with it"))
}

pub(super) fn overrun() -> Refused {
    Refused(Reason::new(Code::FLOW, "more bytes than the stream's credit allows"))
}

pub(super) fn too_large(size: u64, limit: u64) -> Refused {
    Refused(Reason::new(Code::TOO_LARGE, format!("a message of {size} bytes, where {limit} are the most")))
}
