//! What a connection is about to write: the bytes, the sessions that wait for their turn, and the connection's credit.
//! It is the one meeting place of all sessions of a connection, so it is small and its sections are short.
//!
//! ```text
//! control  ──┐
//! schedule ──┴→ bytes (≤ 64 KiB ahead of the socket, plus one frame) → the driver swaps them out and writes
//! ```
//! Control lane first, then the sessions in the order of the [`Schedule`] (docs/PROTOCOL.md §8).

use std::collections::VecDeque;

use bytes::Bytes;

use super::credit::{Grant, SendCredit};
use super::growth::Growth;
use super::schedule::Schedule;
pub use super::schedule::{Lane, QUANTUM, SessionSlot};
use crate::pool;
use crate::wire::HeadBuf;
use crate::wire::frame::{charge, kind};

/// A batch: once so many bytes wait for the socket, nobody adds more until they are gone. 64 KiB, which is what one
/// write to a loopback socket takes at once.
pub const BATCH: usize = 64 * 1024;

/// The most that a batch holds where nothing is copied and no other session waits: large messages that have the connection
/// to themselves go out in few system calls. A socket that takes such a batch at once may get a larger one, up to this: a
/// millisecond at 1 GiB/s. One that does not gets half.
pub const BULK: usize = 1024 * 1024;

/// Pieces of at least this size travel as a reference to the message instead of a copy. Below, a copy is cheaper than
/// a further element in the vectored write.
const SHARE: usize = 8 * 1024;

/// Bytes on their way to the socket. The driver swaps the whole value out and an emptied one back in, so that a steady
/// state allocates nothing.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Pieces that are not in `bytes`, and the position in `bytes` that each one stands before.
    shared: VecDeque<(usize, Bytes)>,
    shared_len: usize,
    frames: usize,
}

/// A part of an [`Output`].
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Bytes of the batch itself.
    Copied(&'a [u8]),
    /// A message that the batch refers to, and how much of its front has been written.
    Shared(&'a Bytes, usize),
}

impl Output {
    /// How many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_len
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many frames wait.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The bytes in order, as slices, from position `written` on; at most `max` slices.
    pub fn slices<'a>(&'a self, written: usize, max: usize, mut each: impl FnMut(&'a [u8])) {
        self.pieces(written, max, |piece| match piece {
            Piece::Copied(slice) => each(slice),
            Piece::Shared(bytes, skipped) => each(&bytes[skipped..]),
        });
    }

    /// The same as pieces, for whoever can take the shared ones as they are.
    pub fn pieces<'a>(&'a self, written: usize, max: usize, mut each: impl FnMut(Piece<'a>)) {
        let (mut skip, mut at, mut count) = (written, 0, 0);
        let mut next = |len: usize, piece: &mut dyn FnMut(usize) -> Piece<'a>| {
            let skipped = skip.min(len);
            skip -= skipped;
            if skipped < len && count < max {
                count += 1;
                each(piece(skipped));
            }
        };
        for (before, shared) in &self.shared {
            let copied = &self.bytes[at..*before];
            next(copied.len(), &mut |skipped| Piece::Copied(&copied[skipped..]));
            next(shared.len(), &mut |skipped| Piece::Shared(shared, skipped));
            at = *before;
        }
        let copied = &self.bytes[at..];
        next(copied.len(), &mut |skipped| Piece::Copied(&copied[skipped..]));
    }

    /// Whether everything is in one slice, and if so which.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.shared.is_empty() { Some(&self.bytes) } else { None }
    }

    /// Empties it and keeps the allocation, unless a burst made it far larger than a batch.
    pub fn clear(&mut self) {
        if self.is_empty() {
            return;
        }
        self.bytes.clear();
        if self.bytes.capacity() > 4 * BATCH {
            self.bytes = Vec::new();
        }
        self.shared.drain(..).for_each(|(_, piece)| recycle(piece));
        self.shared_len = 0;
        self.frames = 0;
    }
}

/// A piece was written. The last one of a message leaves its memory for the next large one.
fn recycle(piece: Bytes) {
    if let Ok(mut message) = piece.try_into_mut() {
        // Without its bytes, which would be moved to the front.
        message.clear();
        pool::give(message.into());
    }
}

/// The outgoing half of a connection. See the module's text.
#[derive(Debug)]
pub struct Outbox {
    output: Output,
    /// Bytes of the control lane that wait for the next transmission. Owed replies count here (§10).
    control: Vec<u8>,
    schedule: Schedule,
    /// Sessions that wait for connection credit.
    blocked: Vec<SessionSlot>,
    /// Sessions with deadlines that the driver has not stamped yet.
    unstamped: Vec<SessionSlot>,
    send: SendCredit,
    grant: Grant,
    /// What the connection's own window is at first, and may grow to.
    windows: (u64, u64),
    growth: Growth,
    max_frame: u32,
    /// See [`BULK`]: what the socket takes without a pause.
    bulk: usize,
    /// What the peer let this side send at first.
    window: u64,
    open: bool,
}

impl Outbox {
    /// An outbox whose peer may send `window` bytes. It takes no frames of sessions until [`open`](Self::open).
    pub fn new(window: u64) -> Self {
        Self {
            output: Output::default(),
            control: Vec::new(),
            schedule: Schedule::default(),
            blocked: Vec::new(),
            unstamped: Vec::new(),
            send: SendCredit::new(0),
            grant: Grant::new(window),
            windows: (window, window),
            growth: Growth::default(),
            max_frame: 0,
            bulk: BATCH,
            window: 0,
            open: false,
        }
    }

    /// The handshake told what the peer takes.
    pub fn open(&mut self, max_frame: u32, window: u64) {
        self.max_frame = max_frame;
        self.window = window;
        self.send.raise(window);
        self.open = true;
    }

    /// Appends a frame to the control lane, ahead of all data that is not yet among the bytes.
    pub fn control(&mut self, mut head: HeadBuf, body: &[u8]) {
        self.control.extend_from_slice(head.finish(body.len()));
        self.control.extend_from_slice(body);
    }

    /// Appends a frame behind everything that waits: where the order of sessions and connection matters.
    pub fn last(&mut self, mut head: HeadBuf, body: &[u8]) {
        self.output.bytes.extend_from_slice(head.finish(body.len()));
        self.output.bytes.extend_from_slice(body);
    }

    /// Appends raw bytes to the control lane: the preface.
    pub fn preface(&mut self, bytes: &[u8]) {
        self.control.extend_from_slice(bytes);
    }

    /// How many bytes of the control lane wait for the next swap. The driver stops reading when they exceed
    /// [`Limits::owed`](super::Limits::owed) (X1: owed replies are bounded).
    pub fn owed(&self) -> usize {
        self.control.len()
    }

    /// Whether nothing waits: no bytes, no session, no credit to announce.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.output.is_empty() && self.control.is_empty() && self.schedule.is_idle() && !self.grant.is_due()
    }

    /// Whether the driver has anything to do: bytes, turns, credit, or deadlines without a time.
    #[inline]
    pub fn needs_driver(&self) -> bool {
        !self.is_quiet() || !self.unstamped.is_empty()
    }

    /// Whether a session's control frames may be written at once.
    #[inline]
    pub fn takes_control(&self) -> bool {
        self.open && !self.is_full()
    }

    /// Whether a session may write data at once: nobody waits before it and the batch is not full.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.open && self.schedule.is_idle() && self.output.len() < BATCH
    }

    /// Bytes that wait for the next [`swap`](Self::swap).
    pub fn waiting(&self) -> usize {
        self.output.len() + self.control.len()
    }

    /// Whether the batch is full.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.output.bytes.len() >= BATCH || self.output.len() >= if self.has_competition() { BATCH } else { self.bulk }
    }

    /// The socket took a whole batch of `len` bytes at once, or not.
    pub fn note_written(&mut self, len: usize, at_once: bool) {
        if !at_once {
            self.bulk = (self.bulk / 2).max(BATCH);
        } else if len >= self.bulk {
            self.bulk = (self.bulk * 2).min(BULK);
        }
    }

    /// Whether sessions wait for their turn.
    #[inline]
    pub fn has_competition(&self) -> bool {
        self.schedule.has_data()
    }

    /// How many frames wait among the bytes.
    pub fn frames(&self) -> usize {
        self.output.frames
    }

    /// The longest frame that the peer accepts, as the header counts it.
    #[inline]
    pub fn max_frame(&self) -> u32 {
        self.max_frame
    }

    /// The peer's window for the connection.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The order of turns.
    #[inline]
    pub fn schedule(&mut self) -> &mut Schedule {
        &mut self.schedule
    }

    /// Sets a session aside until the peer announces connection credit.
    pub fn block(&mut self, slot: SessionSlot) {
        self.blocked.push(slot);
    }

    /// A session is over: its place in the rings goes to nobody.
    pub fn forget(&mut self, slot: SessionSlot) {
        self.schedule.forget(slot);
        self.blocked.retain(|waiting| *waiting != slot);
        self.unstamped.retain(|waiting| *waiting != slot);
    }

    /// Remembers that a session has a deadline without a time.
    #[inline]
    pub fn needs_stamp(&mut self, slot: SessionSlot) {
        self.unstamped.push(slot);
    }

    /// Whether a session has deadlines without a time.
    #[inline]
    pub fn has_unstamped(&self) -> bool {
        !self.unstamped.is_empty()
    }

    /// The next session with an unstamped deadline.
    pub fn next_unstamped(&mut self) -> Option<SessionSlot> {
        self.unstamped.pop()
    }

    /// The session whose turn it is and what for, unless the batch is full. It is out of the ring then.
    pub fn next_session(&mut self) -> Option<(SessionSlot, Lane)> {
        if self.schedule.is_idle() || !self.open || self.is_full() {
            return None;
        }
        self.schedule.next_turn()
    }

    /// Connection credit for data.
    #[inline]
    pub fn credit(&self) -> u64 {
        self.send.available()
    }

    /// The peer announced `max` for the connection.
    pub fn raise(&mut self, max: u64) {
        if self.send.raise(max) {
            // What is expedited goes first here too; with the rest they line up behind that, in the order in which they came.
            self.blocked.drain(..).for_each(|slot| self.schedule.enqueue_expedited(slot));
        }
    }

    /// Bytes of data that this side has sent on the connection, as its credit counts them.
    pub fn sent(&self) -> u64 {
        self.send.used()
    }

    /// The highest maximum that the peer announced for the connection.
    #[inline]
    pub fn credit_max(&self) -> u64 {
        self.send.max()
    }

    /// Connection credit given to the peer.
    #[inline]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What the windows of the connection and its sessions grow by.
    #[inline]
    pub fn growth(&mut self) -> &mut Growth {
        &mut self.growth
    }

    /// Lets the window of the connection grow to `most` bytes, where it holds the peer up.
    pub fn grow_to(&mut self, most: u64) {
        self.windows.1 = most;
    }

    /// So many bytes have come over this connection in all, and went on to their sessions: what those do with them is
    /// bounded by their own credit (docs/PROTOCOL.md §7.2).
    #[inline]
    pub fn note_received(&mut self, received: u64) {
        self.grant.note_passed_on(received);
    }

    /// Appends a frame that takes `charge` of connection credit.
    #[inline]
    pub(super) fn frame(&mut self, head: &mut HeadBuf, body: &[u8], charge: u64) {
        self.send.take(charge);
        self.output.frames += 1;
        let bytes = &mut self.output.bytes;
        head.append(body.len(), bytes);
        bytes.extend_from_slice(body);
    }

    /// Appends a frame for each of `bodies` behind the same head, which take `most` of connection credit together at the most,
    /// until the batch is full. Yields how many it appended, and the credit that they took.
    pub(super) fn run<'b>(&mut self, mut head: HeadBuf, bodies: impl Iterator<Item = &'b [u8]>, most: u64) -> (usize, u64) {
        let (mut count, mut taken) = (0, 0);
        // Up to which length of the bytes the batch is not full.
        let bulk = if self.has_competition() { BATCH } else { self.bulk };
        let full = bulk.saturating_sub(self.output.shared_len).min(BATCH);
        let bytes = &mut self.output.bytes;
        for body in bodies {
            let with = taken + charge(body.len());
            if with > most || bytes.len() >= full {
                break;
            }
            (count, taken) = (count + 1, with);
            head.append(body.len(), bytes);
            bytes.extend_from_slice(body);
        }
        self.send.take(taken);
        self.output.frames += count;
        (count, taken)
    }

    /// Appends a frame of a piece of a shared message, which is copied only where that is cheaper.
    pub fn frame_shared(&mut self, mut head: HeadBuf, body: Bytes, charge: u64) {
        if body.len() < SHARE {
            return self.frame(&mut head, &body, charge);
        }
        self.send.take(charge);
        let output = &mut self.output;
        output.frames += 1;
        output.bytes.extend_from_slice(head.finish(body.len()));
        output.shared_len += body.len();
        output.shared.push_back((output.bytes.len(), body));
    }

    /// Exchanges the bytes that wait for `empty`, with the control lane in front of everything that was added since the
    /// last swap and with connection credit announced where it is due. A connection's driver calls
    /// [`Connection::take_batch`](super::Connection::take_batch), which remembers what was announced.
    pub fn swap(&mut self, empty: &mut Output) {
        debug_assert!(empty.is_empty());
        if self.grant.is_due() {
            let mut head = HeadBuf::new(kind::MAX_CONN_DATA, 0);
            head.varint(self.grant.announce_grown(self.windows.0, self.windows.1, &mut self.growth));
            self.control(head, &[]);
        }
        if !self.control.is_empty() {
            if self.output.bytes.is_empty() && self.output.shared.is_empty() {
                std::mem::swap(&mut self.output.bytes, &mut self.control);
            } else {
                let ahead = self.control.len();
                self.output.bytes.splice(0..0, self.control.drain(..));
                self.output.shared.iter_mut().for_each(|(before, _)| *before += ahead);
            }
        }
        std::mem::swap(&mut self.output, empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Outbox {
        let mut out = Outbox::new(4096);
        out.open(1 << 20, 1 << 20);
        out
    }

    fn bytes(output: &Output, from: usize) -> Vec<u8> {
        let mut all = Vec::new();
        output.slices(from, usize::MAX, |slice| all.extend_from_slice(slice));
        all
    }

    #[test]
    fn the_memory_of_a_message_comes_back_when_its_last_piece_is_written() {
        let message = vec![7; 256 * 1024];
        let (place, len) = (message.as_ptr(), message.len());
        let message = Bytes::from(message);
        let mut out = opened();
        let mut output = Output::default();
        out.frame_shared(HeadBuf::new(0xA1, 0), message.slice(..len / 2), len as u64 / 2);
        out.swap(&mut output);
        output.clear();
        let another = pool::large(len);
        assert_ne!(another.as_ptr(), place, "the rest of it is still to be written");
        out.frame_shared(HeadBuf::new(0xA1, 0), message.slice(len / 2..), len as u64 / 2);
        drop(message);
        out.swap(&mut output);
        output.clear();
        let back = pool::large(len);
        assert_eq!(back.as_ptr(), place);
    }

    /// F5: whatever waits, a control frame is in the very next batch, and at its front.
    #[test]
    fn the_control_lane_goes_first_and_shared_pieces_keep_their_place() {
        let mut out = opened();
        let message = Bytes::from(vec![9; SHARE]);
        out.frame(&mut HeadBuf::new(0xA1, 0), b"small", 16);
        out.frame_shared(HeadBuf::new(0xA1, 0), message.clone(), SHARE as u64);
        out.frame(&mut HeadBuf::new(0xA1, 0), b"tail", 16);
        out.control(HeadBuf::new(kind::PONG, 0), &[1; 8]);
        let mut output = Output::default();
        out.swap(&mut output);
        let all = bytes(&output, 0);
        assert_eq!(all.len(), output.len());
        assert_eq!((all[0], &all[5..13]), (kind::PONG, &[1; 8][..]));
        assert_eq!(&all[13 + 5..13 + 10], b"small");
        assert_eq!(&all[28..28 + SHARE], &message[..]);
        assert_eq!(&all[all.len() - 4..], b"tail");
        for from in [0, 1, 13, 28, 29, 28 + SHARE, all.len() - 1, all.len()] {
            assert_eq!(bytes(&output, from), all[from..], "from {from}");
        }
        assert!(out.is_quiet());
    }

    #[test]
    fn a_full_batch_lets_nobody_in() {
        let mut out = opened();
        assert!(out.is_idle());
        out.frame(&mut HeadBuf::new(0xA1, 0), &vec![0; BATCH], BATCH as u64);
        assert!(!out.is_idle());
        out.schedule().enqueue(SessionSlot(3), 1);
        assert_eq!(out.next_session(), None);
        out.swap(&mut Output::default());
        assert_eq!(out.next_session(), Some((SessionSlot(3), Lane::Data)));
    }

    #[test]
    fn credit_is_announced_when_half_of_the_window_has_come() {
        let mut out = opened();
        out.note_received(2047);
        assert!(out.is_quiet());
        out.note_received(2048);
        assert!(!out.is_quiet());
        let mut output = Output::default();
        out.swap(&mut output);
        assert_eq!(bytes(&output, 0)[0], kind::MAX_CONN_DATA);
        assert!(out.is_quiet());
    }

    #[test]
    fn a_session_that_is_over_stands_in_no_ring() {
        let mut out = opened();
        for slot in [SessionSlot(1), SessionSlot(2)] {
            out.schedule().enqueue(slot, 1);
            out.schedule().enqueue_control(slot);
            out.block(slot);
            out.needs_stamp(slot);
        }
        out.forget(SessionSlot(1));
        assert_eq!(out.next_unstamped(), Some(SessionSlot(2)));
        assert_eq!(out.next_unstamped(), None);
        out.raise((1 << 20) + 1);
        let turns: Vec<_> = std::iter::from_fn(|| out.next_session()).collect();
        let slot = SessionSlot(2);
        assert_eq!(turns, [(slot, Lane::Control), (slot, Lane::Expedited), (slot, Lane::Data)]);
    }

    #[test]
    fn blocked_sessions_return_with_credit() {
        let mut out = opened();
        out.block(SessionSlot(1));
        out.raise(1 << 20);
        assert_eq!(out.next_session(), None, "an old announcement is no credit");
        out.raise((1 << 20) + 1);
        assert_eq!(out.next_session(), Some((SessionSlot(1), Lane::Expedited)));
    }
}
