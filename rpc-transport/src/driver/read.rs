//! The reading half of a turn: bytes in, frames to their sessions, calls to their handlers.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rpc_core::code::Code;
use rpc_core::pool;
use rpc_core::proto::outbox::SessionSlot;
use rpc_core::proto::{ConnectionError, ConnectionEvent, Fresh, Input, ProtocolError, SessionEvent, Time, Toll};
use rpc_core::wire::frame::{Frame, Reason};
use tokio::io::ReadBuf;

use super::{Driver, Entry, HANDLERS_PER_TURN, READ_BUFFER, min};
use crate::dispatch::{Arrival, Offered, refuse};
use crate::state::{Link, SessionCore, Slot, fire};
use crate::sync::MutexGuard;
use crate::tally::Event;

/// Frames that are handled in one turn before what there is to say is written: less than a millisecond of small ones.
const FRAMES_PER_TURN: u32 = 4096;

impl Driver {
    pub(super) fn read(&mut self, cx: &mut Context<'_>, now: Time) -> Result<(), ConnectionError> {
        // What a turn left behind comes first.
        self.handle(now)?;
        while self.handlers < HANDLERS_PER_TURN && self.frames < FRAMES_PER_TURN {
            if self.owes() {
                // What waits in the buffer and in the socket is looked at when the replies are on their way.
                self.held_up = true;
                return Ok(());
            }
            let mut buffer = ReadBuf::new(self.input.space());
            match self.io.io().poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Ready(Ok(())) => {}
            }
            let (n, full) = (buffer.filled().len(), buffer.remaining() == 0);
            if n == 0 {
                return Err(hung_up(&self.input));
            }
            self.input.advance(n);
            // What the handlers of this turn write, this turn takes along: nobody needs to wake the driver for it.
            {
                let mut link = self.link.lock();
                link.driver = None;
                link.out.growth().begin_turn(now);
            }
            self.connection.heard(now);
            self.memory.heard(n, now);
            self.handle(now)?;
            if full {
                self.input.grow(READ_BUFFER);
            }
        }
        if self.frames >= FRAMES_PER_TURN {
            // A peer that always has more must not keep this side's credit and calls from being written.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Handles the frames that have arrived.
    pub(super) fn handle(&mut self, now: Time) -> Result<(), ConnectionError> {
        while !self.input.is_empty() && self.handlers < HANDLERS_PER_TURN && self.frames < FRAMES_PER_TURN && !self.owes() {
            self.frames += 1;
            let (slot, frame) = match self.connection.next_frame(&mut self.input) {
                Some(frame) => frame,
                None => match self.connection.next_event(now, &mut self.input)? {
                    None => break,
                    Some(ConnectionEvent::Frame { slot, frame }) => (slot, frame),
                    Some(ConnectionEvent::Ignored) => continue,
                    Some(ConnectionEvent::SessionRefused) => {
                        Event::Sessions.happened();
                        continue;
                    }
                    Some(ConnectionEvent::GoingAway) => {
                        self.reject_waiting();
                        continue;
                    }
                    Some(ConnectionEvent::Connected) => {
                        self.connected(now);
                        continue;
                    }
                    Some(ConnectionEvent::SessionOpened { sid, open }) => {
                        self.accept(sid, &open, now);
                        self.flush_connection();
                        continue;
                    }
                    Some(ConnectionEvent::SessionAccepted { slot, accept }) => {
                        self.session_accepted(slot, *accept);
                        continue;
                    }
                    Some(ConnectionEvent::SessionRejected { slot, reject }) => {
                        self.session_rejected(slot, *reject);
                        continue;
                    }
                },
            };
            if self.sessions.get(slot).is_none() {
                self.sessions.wake(slot, &self.connection, &self.limits, &self.services, &self.link);
            }
            let Some(entry) = self.sessions.get(slot) else { continue };
            let mut turn = FrameTurn {
                link: &self.link,
                wakers: &mut self.wakers,
                handlers: &mut self.handlers,
                deadline: &mut self.deadline,
                now,
                instant: self.instant,
            };
            match turn.handle(entry, &frame) {
                Ok((None, None)) => {}
                Ok((end, toll)) => {
                    if let Some(end) = end {
                        self.session_event(slot, end);
                    }
                    if let Some(toll) = toll {
                        self.connection.charge(toll, now)?;
                    }
                }
                Err(error) => {
                    self.connection.failed();
                    self.abort(slot, &error);
                }
            }
        }
        if self.connection.needs_flush() {
            self.flush_connection();
        }
        Ok(())
    }

    /// The handshake is over.
    fn connected(&mut self, now: Time) {
        self.flush_connection();
        // From here on other time-outs hold.
        self.armed = now;
        if let Some(connected) = self.connected.take() {
            let _ = connected.send(Ok(()));
        }
    }

    pub(super) fn flush_connection(&mut self) {
        let mut state = self.link.lock();
        self.connection.flush(&mut state.out);
        self.owed = state.out.owed();
    }

    /// Whether the peer leaves so many replies untaken that it is not read any more.
    #[inline]
    fn owes(&self) -> bool {
        (self.owed + self.connection.owed()) as u64 > self.limits.owed
    }

    pub(super) fn session_event(&mut self, slot: SessionSlot, event: SessionEvent) {
        match event {
            SessionEvent::Aborted(reason) => {
                if let Some(entry) = self.sessions.get(slot) {
                    self.connection.forget(entry.sid);
                }
                self.end_session(slot, reason, None, false);
            }
            // At once: the next frame may open the session that has its place.
            SessionEvent::PeerDone => self.forget(slot),
            _ => {}
        }
    }

    /// The peer broke the rules of one session: that session ends, and says why.
    pub(super) fn abort(&mut self, slot: SessionSlot, error: &ProtocolError) {
        let Some(entry) = self.sessions.get(slot) else { return };
        let abort = entry.state.lock().proto.abort(error.reason.clone());
        self.connection.abort(entry.sid, &abort);
        self.end_session(slot, error.reason.clone(), None, false);
    }
}

/// The handling of one frame, apart from the driver's table so that the entry can stay borrowed.
struct FrameTurn<'a> {
    link: &'a Arc<Link>,
    wakers: &'a mut Vec<Waker>,
    handlers: &'a mut u32,
    deadline: &'a mut Option<Time>,
    now: Time,
    instant: Instant,
}

/// What a frame leaves to be done by the driver: a session's end, and what its peer has to pay for.
type Left = (Option<SessionEvent>, Option<Toll>);

impl FrameTurn<'_> {
    #[inline]
    fn handle(&mut self, entry: &Entry, frame: &Frame<'_>) -> Result<Left, ProtocolError> {
        let mut core = entry.state.lock();
        if let Some(offered) = &entry.offered {
            if let Some((fresh, args)) = core.proto.receive_call(frame, self.now) {
                return self.serve(core, entry, offered, fresh, args);
            }
        } else if let Some(slot) = core.proto.receive_answer(frame) {
            self.wakers.extend(slot.reader.take());
            let wake = core.flush();
            drop(core);
            fire(wake);
            return Ok((None, None));
        }
        self.handle_any(core, entry, frame)
    }

    /// A call that has come whole.
    #[inline]
    fn serve(
        &mut self,
        mut core: MutexGuard<'_, SessionCore>,
        entry: &Entry,
        offered: &Offered,
        fresh: Fresh,
        args: &[u8],
    ) -> Result<Left, ProtocolError> {
        let method = fresh.method;
        let info = match offered.method(&mut core.proto, method, false, false, self.link) {
            Ok(info) => info,
            Err(reason) => {
                let key = fresh.key();
                core.proto.keep(fresh, None);
                refuse(&mut core.proto, key, reason);
                return Ok((None, self.let_go(core)?));
            }
        };
        let timeout = fresh.timeout.or_else(|| (!info.kind.is_stream()).then(|| core.proto.default_timeout()));
        let toll = self.let_go(core)?;
        *self.handlers += 1;
        let (key, body) = (fresh.key(), pool::copy(args));
        let (fresh, more, one_way, metadata) = (Some(fresh), false, false, None);
        let arrival = Arrival { fresh, key, method, timeout, body, more, one_way, metadata };
        let deadline = offered.start(&entry.state, arrival, entry.decoding, self.instant, self.link);
        if deadline.is_some() {
            *self.deadline = min(*self.deadline, deadline);
        }
        Ok((None, toll))
    }

    /// Any frame.
    #[inline(never)]
    fn handle_any(
        &mut self,
        mut core: MutexGuard<'_, SessionCore>,
        entry: &Entry,
        frame: &Frame<'_>,
    ) -> Result<Left, ProtocolError> {
        let event = core.proto.handle_frame(frame, self.now, Slot::default)?;
        let (mut arrival, mut rest) = (None, None);
        match event {
            Some(event @ SessionEvent::Opened { .. }) => {
                if entry.offered.is_none()
                    && let SessionEvent::Opened { key, .. } = event
                {
                    let text = "nothing is served on this side of the session";
                    refuse(&mut core.proto, key, Reason::new(Code::UNKNOWN_METHOD, text));
                } else if let Some(offered) = &entry.offered {
                    arrival = offered.admit(&mut core.proto, event, self.now, self.link);
                    *self.deadline = min(*self.deadline, core.proto.next_deadline());
                }
            }
            Some(SessionEvent::Readable(key)) => {
                if let Some(waker) = core.proto.user(key).and_then(Slot::take_reader) {
                    self.wakers.push(waker);
                }
            }
            Some(SessionEvent::PeerClosed) => core.wake_callers(self.wakers),
            Some(SessionEvent::Cancelled(key)) => {
                if let Some(slot) = core.proto.user(key) {
                    self.wakers.extend(slot.take_sender());
                    slot.abandon();
                }
            }
            event => rest = event,
        }
        let toll = self.let_go(core)?;
        if let (Some(arrival), Some(offered)) = (arrival, &entry.offered) {
            *self.handlers += 1;
            offered.start(&entry.state, arrival, entry.decoding, self.instant, self.link);
        }
        Ok((rest, toll))
    }

    /// Brings what follows on its way, and yields what the peer has to pay for.
    #[inline(always)]
    fn let_go(&self, mut core: MutexGuard<'_, SessionCore>) -> Result<Option<Toll>, ProtocolError> {
        let toll = if core.proto.is_provoked() { Some(core.proto.charge_toll(self.now)?) } else { None };
        let wake = core.flush();
        drop(core);
        fire(wake);
        Ok(toll)
    }
}

fn hung_up(input: &Input) -> ConnectionError {
    let detail = match input.pending().len() {
        0 => "the peer hung up".to_owned(),
        n => format!("the peer hung up in the middle of a frame, {n} bytes into it"),
    };
    ConnectionError::Io { kind: io::ErrorKind::UnexpectedEof, detail }
}
