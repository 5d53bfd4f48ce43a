//! One task a connection: the socket and the clock are its own, and it never waits for an application.
//!
//! ```text
//! a turn: clock → commands → read, handle (≤ 32 handlers) → timers → yield once if several exchanges wait
//!         → turns of the sessions → swap → write
//! ```
//! The reader never waits for the writer: where the socket takes nothing, reading goes on (docs/PROTOCOL.md §7.4), but
//! for one bound: while a peer does not take the replies it is owed, it is not read either.

mod inspect;
mod memory;
mod read;
mod sessions;
mod table;
mod write;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rpc_core::id::{Sid, Side};
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{Connection, ConnectionError, Handshake, Input, Limits, Time};
use rpc_core::service::ServiceInfo;
use rpc_core::streaming::Decoding;
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::kind;
use rpc_core::wire::hello::SessionAccept;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::budget::Share;
use crate::clock;
use crate::dispatch::{Offered, Services};
use crate::error::OpenError;
use crate::registry::Listed;
use crate::state::{Command, Link, Opening, SessionState, fire};
use crate::stream::Stream;
use crate::tally::Event;
use memory::Memory;
use table::Sessions;
use write::{Batching, Written};

/// The receive buffer at first, in bytes: a HELLO of any length, and S_OPEN behind it. Connections that only ever carry a
/// call at a time keep it, so that ten thousand of them are no burden.
const FIRST_BUFFER: usize = 8 * 1024;

/// The receive buffer once a read has filled the first, in bytes: a batch of the peer's.
const READ_BUFFER: usize = 64 * 1024;

/// Handlers that are polled in one turn before other tasks have theirs.
const HANDLERS_PER_TURN: u32 = 32;

/// Turns full of handlers after which their answers are written even if more calls wait.
const TURNS_UNWRITTEN: u32 = 4;

/// How long nothing has to happen in a session before it is laid to rest; at the next ring of the timer behind it.
const REST: Duration = Duration::from_secs(10);

/// How long a closed connection waits for the other end to let go, so that its last bytes are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// A driver that is dropped in the middle (its runtime shut down) must not leave anybody waiting.
impl Drop for Driver {
    fn drop(&mut self) {
        self.finish(&ConnectionError::Closed);
    }
}

/// A connection's driver. See the module's text.
pub(crate) struct Driver {
    io: Stream,
    connection: Connection,
    limits: Limits,
    link: Arc<Link>,
    /// Its place in the list of the process.
    _listed: Listed,
    services: Arc<Services>,
    sessions: Sessions,
    /// When idle sessions are laid to rest next.
    rest_at: Time,
    /// Sessions of this side that wait for others to close.
    waiting: VecDeque<Opening>,
    connected: Option<oneshot::Sender<Result<(), ConnectionError>>>,

    input: Input,
    output: Output,
    written: usize,
    /// The socket did not take the batch at once.
    interrupted: bool,
    /// The stream took the batch, and keeps some of it until it is flushed: with TLS, records that the socket did not take.
    unflushed: bool,
    /// Since when the socket has taken nothing.
    stalled: Option<Time>,
    /// Bytes of replies in the control lane.
    owed: usize,
    /// Reading waits until they are on their way.
    held_up: bool,
    closing: bool,
    /// This side goes away, and is gone at this time at the latest.
    draining: Option<Time>,
    /// Calls that were under way when their session was cut off.
    cut: u64,
    /// Calls in sessions that are over or at rest, of this side and of the peer.
    calls: (u64, u64),
    /// Since when no session is open, as far as was looked.
    idle: Option<Time>,
    memory: Memory,

    sleep: Pin<Box<Sleep>>,
    armed: Time,
    sleep_polled: bool,
    /// A time at or before the next deadline of any session.
    deadline: Option<Time>,
    handlers: u32,
    frames: u32,
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
    info: &'static ServiceInfo,
    /// The peer's methods, where they are others than ours.
    theirs: Option<Box<[u64]>>,
    decoding: Decoding,
    /// Whoever waits for the peer's S_ACCEPT.
    opening: Option<oneshot::Sender<Result<SessionAccept, OpenError>>>,
    /// How many frames had come and gone when idle sessions were last looked for.
    seen: (u64, u64),
    /// Calls in it that `Driver::calls` has.
    counted: (u64, u64),
}

/// What a driver starts with.
pub(crate) struct Start {
    pub(crate) handshake: Handshake,
    pub(crate) services: Arc<Services>,
    /// Told when the handshake is over.
    pub(crate) connected: Option<oneshot::Sender<Result<(), ConnectionError>>>,
    /// Where what it holds for the peer is counted.
    pub(crate) share: Option<Share>,
}

impl Driver {
    /// Takes a connected stream. Nothing happens before the first poll of [`run`](Self::run).
    pub(crate) fn new(io: Stream, start: Start, link: Arc<Link>) -> Self {
        let (now, instant) = clock::now();
        let Start { handshake, services, connected, share } = start;
        let limits = link.limits.clone();
        Self {
            io,
            _listed: Listed::new(&link, handshake.side, now),
            connection: Connection::new(handshake, limits.clone(), now),
            memory: Memory::new(share, &link),
            link,
            services,
            sessions: Sessions::default(),
            rest_at: now.after(REST),
            waiting: VecDeque::new(),
            connected,
            input: Input::new(FIRST_BUFFER),
            output: Output::default(),
            written: 0,
            interrupted: false,
            unflushed: false,
            stalled: None,
            owed: 0,
            held_up: false,
            closing: false,
            draining: None,
            cut: 0,
            calls: (0, 0),
            idle: None,
            sleep: Box::pin(tokio::time::sleep_until(clock::instant(now.after(limits.handshake)).into())),
            armed: now.after(limits.handshake),
            sleep_polled: false,
            limits,
            deadline: None,
            handlers: 0,
            frames: 0,
            unwritten: 0,
            batch: Batching::default(),
            instant,
            wakers: Vec::new(),
        }
    }

    /// Runs the connection to its end, and tells everyone. Returns how many calls were under way then.
    pub(crate) async fn run(mut self) -> u64 {
        let error = std::future::poll_fn(|cx| self.poll_turns(cx)).await;
        self.finish(&error);
        self.say_goodbye(&error).await;
        self.cut
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
        (self.handlers, self.frames) = (0, 0);
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
                Written::All if self.closing || self.connection.is_drained() => return Err(ConnectionError::Closed),
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
                Command::Abort(session, reason) => self.abort_session(&session, reason),
                Command::Drain(until) => self.drain(until),
                Command::Close => self.closing = true,
                Command::Inspect(inquiry) => self.inspect(inquiry),
            }
        }
    }

    fn timers(&mut self, cx: &mut Context<'_>, now: Time) -> Result<(), ConnectionError> {
        let earlier = |time: Option<Time>| time.is_some_and(|time| time < self.armed);
        let due = now >= self.armed || !self.sleep_polled || earlier(self.deadline) || earlier(self.draining);
        let due = due || earlier(self.memory.next());
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
        if now >= self.rest_at {
            self.rest_at = now.after(REST);
            self.lay_to_rest(now);
        }
        let stall = self.stalled.map(|since| since.after(self.limits.write_stall));
        self.count_memory(now);
        let idle = self.leave_where_idle(now);
        if self.draining.is_some_and(|until| now >= until) {
            return Err(ConnectionError::Closed);
        }
        let next = [Some(self.connection.next_timeout()), self.deadline, stall, self.draining, idle, self.memory.next()];
        let next = next.into_iter().flatten().min().unwrap_or(now);
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
        if let Some(entry) = self.sessions.get(slot) {
            let mut core = entry.state.lock();
            core.proto.stamp(now);
            self.deadline = min(self.deadline, core.proto.next_deadline());
        }
    }

    /// Ends what is overdue, in every session.
    fn expire(&mut self, now: Time) {
        self.deadline = None;
        for entry in self.sessions.awake() {
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

    /// Tells everyone who waits for anything of this connection.
    fn finish(&mut self, error: &ConnectionError) {
        // Sessions are locked before the connection.
        let cut = self.sessions.awake().map(|entry| entry.state.lock().proto.live() as u64).sum();
        let commands = {
            let mut state = self.link.lock();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(error.clone());
            state.cut = cut;
            Event::Sent.add(state.out.sent());
            std::mem::take(&mut state.commands)
        };
        Event::of(error).happened();
        Event::Received.add(self.connection.received());
        self.cut = cut;
        if let Some(connected) = self.connected.take() {
            let _ = connected.send(Err(error.clone()));
        }
        // The last read may have brought answers before it brought the end.
        self.wakers.drain(..).for_each(Waker::wake);
        let reason = error.reason();
        if *error == ConnectionError::Closed && self.connection.is_open() {
            self.abort_callers();
        }
        for slot in self.sessions.slots() {
            self.end_session(slot, reason.clone(), Some(error.clone().into()), error.is_orderly());
        }
        for command in commands {
            if let Command::Open(opening) = command {
                let _ = opening.done.send(Err(error.clone().into()));
            }
        }
        for opening in self.waiting.drain(..) {
            let _ = opening.done.send(Err(error.clone().into()));
        }
        Event::Made.add(self.calls.0);
        Event::Served.add(self.calls.1);
        self.link.ended.notify_waiters();
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
                let n = std::future::poll_fn(|cx| self.io.poll_write_output(cx, &self.output, self.written)).await?;
                if n == 0 {
                    return Ok(());
                }
                self.written += n;
            }
            let mut last = Output::default();
            self.connection.take_batch(&mut self.link.lock().out, &mut last);
            let mut bytes = Vec::with_capacity(last.len());
            last.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
            self.io.io().write_all(&bytes).await?;
            self.io.io().shutdown().await?;
            let mut rest = [0; 4096];
            while self.io.io().read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // What goes wrong here concerns nobody any more.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

fn min(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
