//! The writing half of a turn: turns of the sessions, the swap, the socket.

use std::io;
use std::task::{Context, Poll, Waker};

use rpc_core::proto::outbox::{BATCH, Lane, SessionSlot};
use rpc_core::proto::{ConnectionError, Time};

use super::Driver;
use crate::state::fire;

/// How an attempt to write everything ended.
pub(super) enum Written {
    /// Nothing is left, and the driver's waker is where the next one with something to say finds it.
    All,
    /// The socket takes no more; it will wake the driver, and so will anybody with something to say.
    Blocked,
    /// Others are given a turn before the write; the driver has woken itself.
    Later,
    /// There is something to be done first.
    Commands,
}

impl Driver {
    /// Writes until nothing is left or the socket takes no more.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, now: Time) -> Result<Written, ConnectionError> {
        loop {
            if self.unflushed && self.flush(cx)?.is_pending() {
                return self.blocked(cx, now);
            }
            if self.written == self.output.len() {
                if self.written >= BATCH {
                    self.link.lock().out.note_written(self.written, !self.interrupted);
                }
                self.interrupted = false;
                self.output.clear();
                self.written = 0;
                if let Some(written) = self.collect(cx, now)? {
                    return Ok(written);
                }
            }
            match self.io.poll_write_output(cx, &self.output, self.written) {
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return self.blocked(cx, now),
            }
            self.unflushed = self.written == self.output.len();
        }
    }

    /// Flushes what the stream took and kept.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        match self.io.io().poll_flush(cx) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(result) => {
                self.unflushed = false;
                self.stalled = None;
                result.map(Poll::Ready)
            }
        }
    }

    /// The socket takes no more. Commands are still heard, and the time of new calls begins; bytes wait for the socket.
    fn blocked(&mut self, cx: &mut Context<'_>, now: Time) -> Result<Written, ConnectionError> {
        self.interrupted = true;
        self.memory.look(now);
        if self.stalled.is_none() {
            self.stalled = Some(now);
            // The time-out of a stalled write must find the timer set.
            self.armed = self.armed.min(now);
            cx.waker().wake_by_ref();
        }
        loop {
            let mut state = self.link.lock();
            if !state.commands.is_empty() {
                return Ok(Written::Commands);
            }
            let Some(slot) = state.out.next_unstamped() else {
                state.out.growth().end_turn();
                state.driver = Some(cx.waker().clone());
                return Ok(Written::Blocked);
            };
            let last = !state.out.has_unstamped();
            drop(state);
            self.begin_time(cx, now, slot, last)?;
        }
    }

    /// The time of a session's new calls begins now. Behind the last such session the timer is looked at.
    fn begin_time(&mut self, cx: &mut Context<'_>, now: Time, slot: SessionSlot, last: bool) -> Result<(), ConnectionError> {
        self.stamp(slot, now);
        if last { self.timers(cx, now) } else { Ok(()) }
    }

    /// Gives the waiting sessions their turns and takes what they wrote. `None`: there is something to write. Where there
    /// is nothing, the driver's waker is left behind under the same lock, so that nothing can come in between.
    pub(super) fn collect(&mut self, cx: &mut Context<'_>, now: Time) -> Result<Option<Written>, ConnectionError> {
        loop {
            let mut state = self.link.lock();
            state.out.growth().begin_turn(now);
            self.connection.flush(&mut state.out);
            if !state.commands.is_empty() {
                return Ok(Some(Written::Commands));
            }
            if let Some(slot) = state.out.next_unstamped() {
                let last = !state.out.has_unstamped();
                drop(state);
                self.begin_time(cx, now, slot, last)?;
                continue;
            }
            let frames = state.out.frames();
            if self.batch.grows(frames) {
                cx.waker().wake_by_ref();
                return Ok(Some(Written::Later));
            }
            let Some((slot, lane)) = state.out.next_session() else {
                if state.out.is_quiet() {
                    state.out.growth().end_turn();
                    state.driver = Some(cx.waker().clone());
                    return Ok(Some(Written::All));
                }
                self.batch = Batching::default();
                self.connection.take_batch(&mut state.out, &mut self.output);
                self.owed = 0;
                if std::mem::take(&mut self.held_up) {
                    cx.waker().wake_by_ref();
                }
                return Ok(None);
            };
            drop(state);
            self.batch.closed = true;
            self.take_turn(slot, lane);
        }
    }

    pub(super) fn take_turn(&mut self, slot: SessionSlot, lane: Lane) {
        let Some(entry) = self.sessions.get(slot) else { return };
        let mut core = entry.state.lock();
        core.proto.transmit(lane, &mut self.link.lock().out);
        core.drained(&mut self.wakers);
        let wake = core.flush();
        drop(core);
        fire(wake);
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// When to write: a batch that still grows is worth a turn of everybody else's first, because one write serves all of
/// it (benches/README.md, "The yield").
#[derive(Default)]
pub(super) struct Batching {
    /// Callers woken since the last write: most of them will have something to say at once.
    pub(super) woken: usize,
    /// Frames at the last look.
    frames: usize,
    yields: u32,
    pub(super) closed: bool,
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
