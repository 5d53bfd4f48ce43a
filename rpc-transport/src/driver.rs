//! One task a connection: the socket and the clock are its own, and it never waits for an application.
//!
//! ```text
//! a turn: clock → commands → read, handle (≤ 32 handlers) → timers → yield once if several exchanges wait
//!         → turns of the sessions → swap → write
//! ```
//! The reader never waits for the writer: where the socket takes nothing, reading goes on (docs/PROTOCOL.md §7.4), but
//! for one bound: while a peer does not take the replies it is owed, it is not read either.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rpc_core::code::Code;
use rpc_core::codec::{Codec, DecodeLimits};
use rpc_core::context::Peer;
use rpc_core::id::{Sid, Side};
use rpc_core::proto::outbox::{Lane, Output, SessionSlot};
use rpc_core::proto::{
    Connection, ConnectionError, ConnectionEvent, Handshake, Input, Limits, Link as Place, ProtocolError, Session, SessionEvent,
    Time,
};
use rpc_core::streaming::Decoding;
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Frame, Reason, kind};
use rpc_core::wire::hello::{SessionAccept, SessionOpen};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::clock;
use crate::dispatch::{Offered, Services};
use crate::error::OpenError;
use crate::state::{Command, Link, Opening, SessionState, Slot, fire};
use crate::stream::{BoxIo, Connected};

/// The receive buffer at the start, in bytes: a batch of the peer's.
const READ_BUFFER: usize = 64 * 1024;

/// Handlers that are polled in one turn before other tasks have theirs.
const HANDLERS_PER_TURN: u32 = 32;

/// Turns full of handlers after which their answers are written even if more calls wait.
const TURNS_UNWRITTEN: u32 = 4;

/// Control replies that a peer may owe us to read, in bytes, before it is not read itself any more.
const OWED: usize = 64 * 1024;

/// Room that S_ACCEPT takes beside its list of methods, in bytes.
const LIST_ROOM: usize = 256;

/// How long a closed connection waits for the other end to let go, so that its last bytes are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// A driver that is dropped in the middle (its runtime shut down) must not leave anybody waiting.
impl Drop for Driver {
    fn drop(&mut self) {
        self.finish(&ConnectionError::Closed);
    }
}

/// How an attempt to write everything ended.
enum Written {
    /// Nothing is left, and the driver's waker is where the next one with something to say finds it.
    All,
    /// The socket takes no more; it will wake the driver, and so will anybody with something to say.
    Blocked,
    /// Others are given a turn before the write; the driver has woken itself.
    Later,
    /// There is something to be done first.
    Commands,
}

/// The pieces of a vectored write.
const SLICES: usize = 16;

/// A connection's driver. See the module's text.
pub(crate) struct Driver {
    io: BoxIo,
    connection: Connection,
    limits: Limits,
    link: Arc<Link>,
    peer: Peer,
    services: Option<Arc<Services>>,
    sessions: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Sessions of this side that wait for others to close.
    waiting: VecDeque<Opening>,
    connected: Option<oneshot::Sender<Result<(), ConnectionError>>>,

    input: Input,
    output: Output,
    written: usize,
    /// Since when the socket has taken nothing.
    stalled: Option<Time>,
    closing: bool,

    sleep: Pin<Box<Sleep>>,
    armed: Time,
    sleep_polled: bool,
    /// A time at or before the next deadline of any session.
    deadline: Option<Time>,
    handlers: u32,
    unwritten: u32,
    batch: Batching,
    /// The time of the turn, for the deadlines of its handlers.
    instant: Instant,
    wakers: Vec<Waker>,
}

/// A session in the driver's table.
struct Entry {
    state: Arc<SessionState>,
    sid: Sid,
    offered: Option<Arc<Offered>>,
    decoding: Decoding,
    /// Whoever waits for the peer's S_ACCEPT.
    opening: Option<oneshot::Sender<Result<SessionAccept, OpenError>>>,
}

/// What a driver starts with.
pub(crate) struct Start {
    pub(crate) handshake: Handshake,
    pub(crate) limits: Limits,
    pub(crate) services: Option<Arc<Services>>,
    /// Told when the handshake is over.
    pub(crate) connected: Option<oneshot::Sender<Result<(), ConnectionError>>>,
}

impl Driver {
    /// Takes a connected stream. Nothing happens before the first poll of [`run`](Self::run).
    pub(crate) fn new(connected: Connected, start: Start, link: Arc<Link>) -> Self {
        let (now, _) = clock::now();
        let Start { handshake, limits, services, connected: told } = start;
        Self {
            io: connected.io,
            connection: Connection::new(handshake, limits.clone(), now),
            link,
            peer: Peer::new(connected.peer),
            services,
            sessions: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            connected: told,
            input: Input::new(READ_BUFFER),
            output: Output::default(),
            written: 0,
            stalled: None,
            closing: false,
            sleep: Box::pin(tokio::time::sleep_until(clock::instant(now.after(limits.handshake)).into())),
            armed: now.after(limits.handshake),
            sleep_polled: false,
            limits,
            deadline: None,
            handlers: 0,
            unwritten: 0,
            batch: Batching::default(),
            instant: Instant::now(),
            wakers: Vec::new(),
        }
    }

    /// Runs the connection to its end, and tells everyone.
    pub(crate) async fn run(mut self) -> ConnectionError {
        let error = std::future::poll_fn(|cx| self.poll_turns(cx)).await;
        self.finish(&error);
        self.say_goodbye(&error).await;
        error
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    /// One turn; on return the task waits, or has woken itself.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        let (now, instant) = clock::now();
        self.instant = instant;
        self.handlers = 0;
        loop {
            self.read(cx, now)?;
            if !self.wakers.is_empty() {
                self.batch.woken += self.wakers.len();
                self.wakers.drain(..).for_each(Waker::wake);
            }
            if self.handlers >= HANDLERS_PER_TURN {
                // There is more to handle; others have their turn first, and what is ready goes out with the rest,
                // unless that takes too long.
                cx.waker().wake_by_ref();
                self.unwritten += 1;
                if self.unwritten < TURNS_UNWRITTEN {
                    return Ok(());
                }
                self.batch.closed = true;
            }
            self.unwritten = 0;
            self.timers(cx, now)?;
            match self.write(cx, now)? {
                Written::All if self.closing => return Err(ConnectionError::Closed),
                Written::All | Written::Blocked | Written::Later => return Ok(()),
                Written::Commands => self.run_commands(),
            }
        }
    }

    fn run_commands(&mut self) {
        let commands = std::mem::take(&mut self.link.lock().commands);
        for command in commands {
            match command {
                Command::Open(opening) => self.open_or_wait(opening),
                Command::Forget(slot) => self.forget(slot),
                Command::Close => self.closing = true,
            }
        }
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    fn read(&mut self, cx: &mut Context<'_>, now: Time) -> Result<(), ConnectionError> {
        // What a turn left behind comes first.
        self.handle(now)?;
        while self.handlers < HANDLERS_PER_TURN {
            if self.written < self.output.len() && self.link.lock().out.owed() > OWED {
                return Ok(());
            }
            let mut buffer = ReadBuf::new(self.input.space());
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Ready(Ok(())) => {}
            }
            let n = buffer.filled().len();
            if n == 0 {
                return Err(hung_up(&self.input));
            }
            self.input.advance(n);
            self.connection.heard(now);
            self.handle(now)?;
        }
        Ok(())
    }

    /// Handles the frames that have arrived.
    fn handle(&mut self, now: Time) -> Result<(), ConnectionError> {
        while self.handlers < HANDLERS_PER_TURN {
            let Some(event) = self.connection.next_event(now, &mut self.input)? else { break };
            match event {
                ConnectionEvent::Frame { slot, frame } => {
                    if let Some(Some(entry)) = self.sessions.get(slot.0 as usize) {
                        let mut turn = FrameTurn {
                            link: &self.link,
                            wakers: &mut self.wakers,
                            handlers: &mut self.handlers,
                            deadline: &mut self.deadline,
                            now,
                            instant: self.instant,
                        };
                        match turn.handle(entry, &frame) {
                            Ok(None) => {}
                            Ok(Some(end)) => self.session_event(slot, end),
                            Err(error) => self.abort(slot, &error),
                        }
                    }
                }
                ConnectionEvent::Ignored => {}
                ConnectionEvent::Connected => {
                    self.flush_connection();
                    // From here on other time-outs hold.
                    self.armed = now;
                    if let Some(connected) = self.connected.take() {
                        let _ = connected.send(Ok(()));
                    }
                }
                ConnectionEvent::SessionOpened { sid, open } => {
                    self.accept(sid, &open);
                    self.flush_connection();
                }
                ConnectionEvent::SessionAccepted { slot, accept } => self.session_accepted(slot, *accept),
                ConnectionEvent::SessionRejected { slot, reject } => {
                    let error = OpenError::Rejected { reason: reject.reason.clone(), codecs: reject.codecs };
                    self.end_session(slot, reject.reason, Some(error), false);
                }
            }
        }
        if self.connection.needs_flush() {
            self.flush_connection();
        }
        Ok(())
    }

    fn flush_connection(&mut self) {
        self.connection.flush(&mut self.link.lock().out);
    }

    fn session_event(&mut self, slot: SessionSlot, event: SessionEvent) {
        if let SessionEvent::Aborted(reason) = event {
            if let Some(Some(entry)) = self.sessions.get(slot.0 as usize) {
                self.connection.forget(entry.sid);
            }
            self.end_session(slot, reason, None, false);
        }
    }

    /// The peer broke the rules of one session: that session ends, and says why.
    fn abort(&mut self, slot: SessionSlot, error: &ProtocolError) {
        let Some(Some(entry)) = self.sessions.get(slot.0 as usize) else { return };
        let abort = entry.state.lock().proto.abort(error.reason.clone());
        self.connection.abort(entry.sid, &abort);
        self.end_session(slot, error.reason.clone(), None, false);
    }

    // ---- sessions --------------------------------------------------------------------------------------------------

    fn link_of(&self, slot: SessionSlot, sid: Sid) -> Place {
        Place { slot, sid: self.connection.on_wire(sid), hold_back: self.connection.hold_back() }
    }

    fn place(&mut self, entry: Entry) -> SessionSlot {
        if let Some(slot) = self.free.pop() {
            self.sessions[slot as usize] = Some(entry);
            return SessionSlot(slot);
        }
        self.sessions.push(Some(entry));
        SessionSlot(self.sessions.len() as u32 - 1)
    }

    fn next_slot(&self) -> SessionSlot {
        SessionSlot(self.free.last().copied().unwrap_or(self.sessions.len() as u32))
    }

    /// Opens a session of this side, or lets it wait for one that is closing: the peer counts a session until both sides
    /// have closed it, so this side counts the same.
    fn open_or_wait(&mut self, opening: Opening) {
        let limit = self.connection.negotiated().sessions;
        if !self.connection.is_open() || self.connection.local_sessions() < limit {
            return self.open_session(opening.session, &opening.open, opening.done);
        }
        let closing = |entry: &Entry| entry.offered.is_none() && entry.state.lock().proto.is_closing();
        if self.sessions.iter().flatten().any(closing) {
            return self.waiting.push_back(opening);
        }
        let text = format!("the peer allows {limit} sessions at a time on a connection, and as many are open");
        let _ = opening.done.send(Err(OpenError::Rejected { reason: Reason::new(Code::REFUSED, text), codecs: Vec::new() }));
    }

    fn open_session(
        &mut self,
        state: Arc<SessionState>,
        open: &SessionOpen,
        done: oneshot::Sender<Result<SessionAccept, OpenError>>,
    ) {
        match self.connection.open(self.next_slot(), open) {
            Ok(sid) => {
                // What the acceptor grants is known with its answer; until then nothing is decoded.
                let decoding = Decoding { codec: Codec::Postcard, limits: None };
                self.place(Entry { state, sid, offered: None, decoding, opening: Some(done) });
                self.flush_connection();
            }
            Err(reason) => {
                let _ = done.send(Err(OpenError::Rejected { reason, codecs: Vec::new() }));
            }
        }
    }

    fn session_accepted(&mut self, slot: SessionSlot, accept: SessionAccept) {
        let Some(sid) = self.sessions.get(slot.0 as usize).and_then(Option::as_ref).map(|entry| entry.sid) else { return };
        let place = self.link_of(slot, sid);
        let Some(Some(entry)) = self.sessions.get_mut(slot.0 as usize) else { return };
        let wake = {
            let mut core = entry.state.lock();
            core.proto.granted(accept.windows);
            core.proto.attach(place);
            core.flush()
        };
        fire(wake);
        if let Some(done) = entry.opening.take() {
            let _ = done.send(Ok(accept));
        }
    }

    /// The peer opens a session.
    fn accept(&mut self, sid: Sid, open: &SessionOpen) {
        let services = self.services.as_ref();
        let Some(offered) = services.and_then(|services| services.get(&open.service)).cloned() else {
            let names = services.map(|services| services.names()).unwrap_or_default();
            let text = format!("no service is named `{}` here; there is: {names}", open.service);
            return self.connection.reject(sid, Reason::new(Code::UNKNOWN_SERVICE, text));
        };
        let Some(codec) = open.codecs.iter().find_map(|id| Codec::from_wire_id(*id)) else {
            return self.connection.reject(sid, Reason::new(Code::NO_CODEC, "the session offers no codec that is known here"));
        };
        let info = offered.service.info();
        let methods = (open.fingerprint != info.fingerprint).then(|| info.methods.iter().map(|method| method.hash).collect());
        let listed = if open.fingerprint == info.fingerprint { 0 } else { info.methods.len() * size_of::<u64>() };
        if listed + LIST_ROOM > self.link.lock().out.max_frame() as usize {
            let text = format!("the sides' methods differ, and the {} here do not fit a frame of the peer's", info.methods.len());
            return self.connection.reject(sid, Reason::new(Code::TOO_LARGE, text));
        }
        let slot = self.next_slot();
        let mut proto = Session::new(Side::Acceptor, self.limits.session());
        proto.granted(open.windows);
        proto.attach(self.link_of(slot, sid));
        let state = SessionState::new(proto, self.link.clone(), self.peer.clone());
        let limits = (!offered.trusted).then_some(DecodeLimits::DEFAULT);
        self.place(Entry { state, sid, offered: Some(offered), decoding: Decoding { codec, limits }, opening: None });
        let accept = SessionAccept { codec: codec.wire_id(), windows: self.limits.windows(), methods };
        self.connection.accept(sid, slot, &accept);
    }

    /// A session has closed in good order.
    fn forget(&mut self, slot: SessionSlot) {
        // The place may have gone to another session since this was asked for.
        if let Some(Some(entry)) = self.sessions.get(slot.0 as usize)
            && entry.state.lock().proto.is_finished()
        {
            self.connection.forget(entry.sid);
            self.end_session(slot, Reason::new(Code::CLOSED, "the session is closed"), None, true);
        }
    }

    fn end_session(&mut self, slot: SessionSlot, reason: Reason, error: Option<OpenError>, orderly: bool) {
        let Some(entry) = self.sessions.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        self.free.push(slot.0);
        let held = entry.state.lock().proto.detach();
        self.link.lock().out.release(held);
        if let Some(opening) = entry.opening {
            let rejected = || OpenError::Rejected { reason: reason.clone(), codecs: Vec::new() };
            let _ = opening.send(Err(error.unwrap_or_else(rejected)));
        }
        entry.state.ended(reason, orderly);
        while let Some(opening) = self.waiting.pop_front() {
            if !opening.done.is_closed() {
                return self.open_or_wait(opening);
            }
        }
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    fn timers(&mut self, cx: &mut Context<'_>, now: Time) -> Result<(), ConnectionError> {
        let due = now >= self.armed || !self.sleep_polled || self.deadline.is_some_and(|deadline| deadline < self.armed);
        if !due {
            return Ok(());
        }
        self.connection.handle_timeout(now)?;
        if self.connection.needs_flush() {
            self.flush_connection();
        }
        if self.stalled.is_some_and(|since| now >= since.after(self.limits.write_stall)) {
            return Err(ConnectionError::WriteStall);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.expire(now);
        }
        let stall = self.stalled.map(|since| since.after(self.limits.write_stall));
        let next = [Some(self.connection.next_timeout()), self.deadline, stall].into_iter().flatten().min().unwrap_or(now);
        // A timer that rings too early costs one look; setting it anew for each call would cost far more. It is polled
        // only where it was set or rings: the task it wakes is always this one.
        if next < self.armed || now >= self.armed {
            self.armed = next.max(now.after(Duration::from_millis(1)));
            self.sleep.as_mut().reset(clock::instant(self.armed).into());
            self.sleep_polled = false;
        }
        if !self.sleep_polled {
            self.sleep_polled = true;
            if self.sleep.as_mut().poll(cx).is_ready() {
                // It rang between the clock's reading and here: the next turn sees to it.
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    /// Puts times to a session's new deadlines.
    fn stamp(&mut self, slot: SessionSlot, now: Time) {
        if let Some(Some(entry)) = self.sessions.get(slot.0 as usize) {
            let mut core = entry.state.lock();
            core.proto.stamp(now);
            self.deadline = min(self.deadline, core.proto.next_deadline());
        }
    }

    /// Ends what is overdue, in every session.
    fn expire(&mut self, now: Time) {
        self.deadline = None;
        for entry in self.sessions.iter().flatten() {
            let mut expired = Vec::new();
            let mut core = entry.state.lock();
            core.proto.handle_deadlines(now, |key, opener| expired.push((key, opener)));
            for (key, opener) in expired {
                let Some(slot) = core.proto.user(key) else { continue };
                match opener {
                    Side::Initiator => self.wakers.extend(slot.reader.take()),
                    Side::Acceptor => slot.abandon(),
                }
            }
            self.deadline = min(self.deadline, core.proto.next_deadline());
            let wake = core.flush();
            drop(core);
            fire(wake);
        }
        self.wakers.drain(..).for_each(Waker::wake);
    }

    // ---- writing ---------------------------------------------------------------------------------------------------

    /// Writes until nothing is left or the socket takes no more.
    fn write(&mut self, cx: &mut Context<'_>, now: Time) -> Result<Written, ConnectionError> {
        loop {
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
                if let Some(written) = self.collect(cx, now)? {
                    return Ok(written);
                }
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(self.blocked(cx, now)),
            }
            if self.written == self.output.len() {
                match Pin::new(&mut self.io).poll_flush(cx) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Ok(self.blocked(cx, now)),
                }
            }
        }
    }

    /// The socket takes no more. Commands are still heard; bytes wait for the socket.
    fn blocked(&mut self, cx: &Context<'_>, now: Time) -> Written {
        if self.stalled.is_none() {
            self.stalled = Some(now);
            // The time-out of a stalled write must find the timer set.
            self.armed = self.armed.min(now);
            cx.waker().wake_by_ref();
        }
        let mut state = self.link.lock();
        if !state.commands.is_empty() {
            return Written::Commands;
        }
        state.driver = Some(cx.waker().clone());
        Written::Blocked
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        if let Some(bytes) = self.output.single() {
            return io.poll_write(cx, &bytes[self.written..]);
        }
        let (mut slices, mut count) = ([IoSlice::new(&[]); SLICES], 0);
        self.output.slices(self.written, SLICES, |slice| {
            slices[count] = IoSlice::new(slice);
            count += 1;
        });
        io.poll_write_vectored(cx, &slices[..count])
    }

    /// Gives the waiting sessions their turns and takes what they wrote. `None`: there is something to write. Where there
    /// is nothing, the driver's waker is left behind under the same lock, so that nothing can come in between.
    fn collect(&mut self, cx: &mut Context<'_>, now: Time) -> Result<Option<Written>, ConnectionError> {
        loop {
            let mut state = self.link.lock();
            self.connection.flush(&mut state.out);
            if !state.commands.is_empty() {
                return Ok(Some(Written::Commands));
            }
            if let Some(slot) = state.out.next_unstamped() {
                let last = !state.out.has_unstamped();
                drop(state);
                self.stamp(slot, now);
                if last {
                    self.timers(cx, now)?;
                }
                continue;
            }
            let frames = state.out.frames();
            if self.batch.grows(frames) {
                cx.waker().wake_by_ref();
                return Ok(Some(Written::Later));
            }
            let Some((slot, lane)) = state.out.next_session() else {
                if state.out.is_quiet() {
                    state.driver = Some(cx.waker().clone());
                    return Ok(Some(Written::All));
                }
                self.batch = Batching::default();
                state.out.swap(&mut self.output);
                return Ok(None);
            };
            drop(state);
            self.batch.closed = true;
            self.take_turn(slot, lane);
        }
    }

    fn take_turn(&mut self, slot: SessionSlot, lane: Lane) {
        let Some(Some(entry)) = self.sessions.get(slot.0 as usize) else { return };
        let mut core = entry.state.lock();
        core.proto.transmit(lane, &mut self.link.lock().out);
        core.drained(&mut self.wakers);
        let wake = core.flush();
        drop(core);
        fire(wake);
        self.wakers.drain(..).for_each(Waker::wake);
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// Tells everyone who waits for anything of this connection.
    fn finish(&mut self, error: &ConnectionError) {
        let (commands, waiting) = {
            let mut state = self.link.lock();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(error.clone());
            (std::mem::take(&mut state.commands), std::mem::take(&mut state.on_close))
        };
        if let Some(connected) = self.connected.take() {
            let _ = connected.send(Err(error.clone()));
        }
        // The last read may have brought answers before it brought the end.
        self.wakers.drain(..).for_each(Waker::wake);
        let reason = error.reason();
        for slot in 0..self.sessions.len() as u32 {
            self.end_session(SessionSlot(slot), reason.clone(), Some(error.clone().into()), error.is_orderly());
        }
        for command in commands {
            if let Command::Open(opening) = command {
                let _ = opening.done.send(Err(error.clone().into()));
            }
        }
        for opening in self.waiting.drain(..) {
            let _ = opening.done.send(Err(error.clone().into()));
        }
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Writes the reason, closes this direction, and reads on for a moment: closing with unread bytes in the socket
    /// would make the system send a reset, which can destroy what the peer has not read yet.
    async fn say_goodbye(&mut self, error: &ConnectionError) {
        {
            let mut state = self.link.lock();
            self.connection.flush(&mut state.out);
            if let Some(reason) = self.connection.close_reason(error) {
                let mut body = Vec::new();
                reason.write(&mut body);
                state.out.last(HeadBuf::new(kind::CONN_CLOSE, 0), &body);
            }
        }
        if matches!(error, ConnectionError::Io { .. } | ConnectionError::Silent | ConnectionError::WriteStall) {
            return;
        }
        let farewell = async {
            while self.written < self.output.len() {
                let n = std::future::poll_fn(|cx| self.poll_write(cx)).await?;
                if n == 0 {
                    return Ok(());
                }
                self.written += n;
            }
            let mut last = Output::default();
            self.link.lock().out.swap(&mut last);
            let mut bytes = Vec::with_capacity(last.len());
            last.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
            self.io.write_all(&bytes).await?;
            self.io.shutdown().await?;
            let mut rest = [0; 4096];
            while self.io.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // What goes wrong here concerns nobody any more.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

/// When to write: a batch that still grows is worth a turn of everybody else's first, because one write serves all of
/// it (benches/README.md, "The yield").
#[derive(Default)]
struct Batching {
    /// Callers woken since the last write: most of them will have something to say at once.
    woken: usize,
    /// Frames at the last look.
    frames: usize,
    yields: u32,
    closed: bool,
}

impl Batching {
    /// Turns given away for one batch at the most.
    const MOST: u32 = 4;

    #[inline]
    fn grows(&mut self, frames: usize) -> bool {
        let several = frames > 1 || (frames == 1 && self.woken > 1);
        let grew = frames > self.frames;
        self.frames = frames;
        let more = several && grew && !self.closed && self.yields < Self::MOST;
        self.yields += u32::from(more);
        more
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

impl FrameTurn<'_> {
    #[inline]
    fn handle(&mut self, entry: &Entry, frame: &Frame<'_>) -> Result<Option<SessionEvent>, ProtocolError> {
        let mut core = entry.state.lock();
        let event = core.proto.handle_frame(frame, self.now, Slot::default)?;
        let (mut arrival, mut rest) = (None, None);
        match event {
            Some(event @ SessionEvent::Opened { .. }) => {
                if entry.offered.is_none()
                    && let SessionEvent::Opened { key, .. } = event
                {
                    core.proto.reset(key, Reason::new(Code::UNKNOWN_METHOD, "nothing is served on this side of the session"));
                    core.proto.handler_done(key);
                } else if let Some(offered) = &entry.offered {
                    arrival = offered.admit(&mut core.proto, event, self.now);
                    *self.deadline = min(*self.deadline, core.proto.next_deadline());
                }
            }
            Some(SessionEvent::Readable(key)) => {
                if let Some(waker) = core.proto.user(key).and_then(|slot| slot.reader.take()) {
                    self.wakers.push(waker);
                }
            }
            Some(SessionEvent::Cancelled(key)) => {
                if let Some(slot) = core.proto.user(key) {
                    self.wakers.extend(slot.take_sender());
                    slot.abandon();
                }
            }
            event => rest = event,
        }
        let wake = core.flush();
        drop(core);
        fire(wake);
        if let (Some(arrival), Some(offered)) = (arrival, &entry.offered) {
            *self.handlers += 1;
            offered.start(&entry.state, arrival, entry.decoding, self.instant, &self.link.runtime);
        }
        Ok(rest)
    }
}

fn min(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn hung_up(input: &Input) -> ConnectionError {
    let detail = match input.pending().len() {
        0 => "the peer hung up".to_owned(),
        n => format!("the peer hung up in the middle of a frame, {n} bytes into it"),
    };
    ConnectionError::Io { kind: io::ErrorKind::UnexpectedEof, detail }
}
