//! Cuts frames out of the byte stream. Depends on the header alone; knows no frame type.

use super::error::ProtocolError;
use crate::code::Code;
use crate::wire::header::{Head, PREFIX, RawFrame};

/// The receive buffer of a connection. Grows to one frame of the allowed size, after that size was checked, and no
/// further.
#[derive(Debug)]
pub struct Input {
    /// Initialised to its whole length, so that a socket can be read into it without `unsafe`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// An empty buffer of `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity.max(PREFIX)], start: 0, end: 0 }
    }

    /// Where the next bytes go; never empty. Call [`advance`](Self::advance) with how many there were.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
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
        let frame = &self.buffer[self.start..self.start + whole];
        self.start += whole;
        Ok(Some(RawFrame { kind: frame[0], flags: frame[PREFIX], rest: &frame[PREFIX + 1..] }))
    }

    /// Makes the buffer large enough for a frame of `whole` bytes, whose length has been checked.
    fn make_room(&mut self, whole: usize) {
        if self.buffer.len() < whole {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.buffer.resize(whole, 0);
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
                prop_assert!(input.buffer.len() <= PREFIX + MAX as usize);
            }
        }
    }
}
