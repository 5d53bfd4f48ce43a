//! Cuts frames out of the byte stream. Depends on the header alone; knows no frame type.

use super::error::ProtocolError;
use crate::code::Code;
use crate::wire::header::{Head, PREFIX, RawFrame};

/// Frames larger than the first buffer after which it grows to hold several: a peer that sends so many has more.
const STREAK: u32 = 4;

/// How many large frames the buffer holds then: reads are few, and what is moved between them is little.
const FRAMES: usize = 4;

/// Reads without a large frame after which the buffer is small again.
const QUIET: u32 = 256;

/// The receive buffer of a connection. It grows to one frame of the allowed size, after that size was checked; to four
/// while large frames come in numbers; and shrinks when they have stopped.
#[derive(Debug)]
pub struct Input {
    /// Its size at the start.
    capacity: usize,
    /// Large frames since the buffer was small.
    large: u32,
    /// Reads since the last large frame.
    quiet: u32,
    /// Initialised to its whole length, so that a socket can be read into it without `unsafe`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// An empty buffer of `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(PREFIX);
        Self { capacity, large: 0, quiet: 0, buffer: vec![0; capacity], start: 0, end: 0 }
    }

    /// Makes room for at least `capacity` bytes: the peer has said who it is.
    pub fn grow(&mut self, capacity: usize) {
        if self.buffer.len() < capacity {
            self.buffer.resize(capacity, 0);
        }
    }

    /// How many bytes the buffer has room for.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Where the next bytes go; never empty. Call [`advance`](Self::advance) with how many there were.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.large > 0 {
                self.shrink();
            }
        } else {
            let (free, pending) = (self.buffer.len() - self.end, self.end - self.start);
            // Moving a little makes room for a large read.
            if free == 0 || (self.large > 0 && free < self.buffer.len() / 2 && self.start >= 2 * pending) {
                self.move_to_front();
            }
        }
        debug_assert!(self.end < self.buffer.len(), "frames are taken before more is read");
        &mut self.buffer[self.end..]
    }

    /// `n` bytes of [`space`](Self::space) have been filled.
    ///
    /// # Panics
    /// If there was less space.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        self.end += n;
        assert!(self.end <= self.buffer.len());
    }

    /// Whether every byte has been taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes that have not been taken yet.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes `n` bytes from the front, if there are so many.
    pub fn take(&mut self, n: usize) -> Option<&[u8]> {
        if self.end - self.start < n {
            return None;
        }
        self.start += n;
        Some(&self.buffer[self.start - n..self.start])
    }

    /// Takes the next frame, if it has arrived whole. `max_frame` is the longest allowed, as the header counts it.
    ///
    /// # Errors
    /// A frame that is longer, or too short to have flags. The connection cannot go on: the stream is out of step.
    #[inline]
    pub fn next_frame(&mut self, max_frame: u32) -> Result<Option<RawFrame<'_>>, ProtocolError> {
        Ok(self.next_frames(max_frame, |_, _| 0)?.map(|(frame, _)| frame))
    }

    /// Takes the next frame if it has arrived whole and `take` makes something of it. Else nothing has happened, and
    /// [`next_frame`](Self::next_frame) tells why.
    #[inline]
    pub fn next_if<'i, T>(&'i mut self, max_frame: u32, take: impl FnOnce(RawFrame<'i>) -> Option<T>) -> Option<T> {
        let pending = &self.buffer[self.start..self.end];
        let head = Head::read(pending)?;
        let whole = PREFIX + head.len as usize;
        if head.len > max_frame || whole > self.capacity {
            return None;
        }
        let [kind, _, _, _, flags, rest @ ..] = pending.get(..whole)? else { return None };
        let taken = take(RawFrame { kind: *kind, flags: *flags, rest })?;
        self.start += whole;
        Some(taken)
    }

    /// The same as [`next_frame`](Self::next_frame), with as many of the bytes behind the frame as `behind` wants of those that have arrived.
    ///
    /// # Errors
    /// As [`next_frame`](Self::next_frame).
    ///
    /// # Panics
    /// If it wants more.
    #[inline]
    pub fn next_frames(
        &mut self,
        max_frame: u32,
        behind: impl FnOnce(&RawFrame<'_>, &[u8]) -> usize,
    ) -> Result<Option<(RawFrame<'_>, &[u8])>, ProtocolError> {
        let Some(head) = Head::read(&self.buffer[self.start..self.end]) else {
            return Ok(None);
        };
        if head.len > max_frame || head.len == 0 {
            return Err(refuse(head, max_frame));
        }
        let whole = PREFIX + head.len as usize;
        if self.end - self.start < whole {
            self.make_room(whole);
            return Ok(None);
        }
        if whole > self.capacity {
            (self.large, self.quiet) = (self.large.saturating_add(1), 0);
        }
        let (frame, rest) = self.buffer[self.start..self.end].split_at(whole);
        let frame = RawFrame { kind: frame[0], flags: frame[PREFIX], rest: &frame[PREFIX + 1..] };
        let more = behind(&frame, rest);
        self.start += whole + more;
        Ok(Some((frame, &rest[..more])))
    }

    /// Makes the buffer large enough for a frame of `whole` bytes, whose length has been checked.
    fn make_room(&mut self, whole: usize) {
        let wanted = if whole > self.capacity && self.large >= STREAK { FRAMES * whole } else { whole };
        if self.buffer.len() < wanted {
            self.move_to_front();
            self.buffer.resize(wanted, 0);
        }
    }

    fn move_to_front(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Counts a read while the buffer is large and empty, and gives its memory back when large frames have stopped.
    fn shrink(&mut self) {
        self.quiet += 1;
        if self.quiet > QUIET {
            (self.large, self.quiet) = (0, 0);
            self.buffer = vec![0; self.capacity];
        }
    }
}

#[cold]
fn refuse(head: Head, max_frame: u32) -> ProtocolError {
    if head.len == 0 {
        return ProtocolError::new(Code::PROTOCOL, "a frame without flags");
    }
    ProtocolError::new(Code::TOO_LARGE, format!("a frame of {} bytes, where {max_frame} are the most", head.len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HeadBuf;
    use proptest::prelude::*;

    const MAX: u32 = 2000;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = HeadBuf::new(kind, 7).finish(body.len()).to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    fn feed(input: &mut Input, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = input.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            input.advance(n);
            bytes = &bytes[n..];
            if !bytes.is_empty() {
                assert!(input.next_frame(MAX).unwrap().is_none(), "the frame is not whole yet");
            }
        }
    }

    #[test]
    fn a_frame_at_the_limit_passes_and_one_above_is_refused_by_its_head_alone() {
        for (len, ok) in [(MAX - 1, true), (MAX, true), (MAX + 1, false)] {
            let mut input = Input::new(16);
            feed(&mut input, &[&[0xA1][..], &len.to_le_bytes()[..3]].concat());
            assert_eq!(input.next_frame(MAX).is_ok(), ok, "{len}");
            assert!(input.buffer.len() <= PREFIX + MAX as usize, "nothing is allocated for a frame that is refused");
        }
    }

    #[test]
    fn a_frame_without_flags_is_refused() {
        let mut input = Input::new(16);
        feed(&mut input, &[4, 0, 0, 0]);
        assert_eq!(input.next_frame(MAX).unwrap_err().reason.code, Code::PROTOCOL);
    }

    #[test]
    fn the_buffer_holds_several_large_frames_while_they_come_and_is_small_again_behind_them() {
        let mut input = Input::new(64);
        // In reads that end in the middle of frames.
        let mut stream = frame(0xA1, &[1; 1000]).repeat(20);
        while !stream.is_empty() {
            let n = input.space().len().min(stream.len()).min(600);
            input.space()[..n].copy_from_slice(&stream[..n]);
            input.advance(n);
            stream.drain(..n);
            while input.next_frame(MAX).unwrap().is_some() {}
        }
        assert_eq!(input.buffer.len(), FRAMES * 1005);
        for _ in 0..2 * QUIET {
            feed(&mut input, &frame(0xA1, &[1; 10]));
            assert!(input.next_frame(MAX).unwrap().is_some());
        }
        assert_eq!(input.buffer.len(), 64);
    }

    proptest! {
        /// W3: any byte string split at any points yields the same frames.
        #[test]
        fn splits_do_not_matter(bodies in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
                                splits in proptest::collection::vec(1usize..400, 1..50)) {
            let stream: Vec<u8> = bodies.iter().flat_map(|(kind, body)| frame(*kind, body)).collect();
            let mut input = Input::new(64);
            let (mut seen, mut rest, mut splits) = (Vec::new(), &stream[..], splits.iter().cycle());
            while !rest.is_empty() {
                let n = (*splits.next().unwrap()).min(rest.len()).min(input.space().len());
                input.space()[..n].copy_from_slice(&rest[..n]);
                input.advance(n);
                rest = &rest[n..];
                while let Some(raw) = input.next_frame(MAX).unwrap() {
                    prop_assert_eq!(raw.flags, 7);
                    seen.push((raw.kind, raw.rest.to_vec()));
                }
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn garbage_never_panics_and_never_grows_the_buffer(bytes: Vec<u8>) {
            let mut input = Input::new(64);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let n = input.space().len().min(rest.len());
                input.space()[..n].copy_from_slice(&rest[..n]);
                input.advance(n);
                rest = &rest[n..];
                loop {
                    match input.next_frame(MAX) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(input.buffer.len() <= FRAMES * (PREFIX + MAX as usize));
            }
        }
    }
}
