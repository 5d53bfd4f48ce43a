//! The frame header (docs/PROTOCOL.md §2.1): the one thing a framer must know.
//!
//! ```text
//!  byte 0              bytes 1..3 (LE)   byte 4
//! +---+---+---------+-----------------+---------+-------------------
//! | S | I | code:6  |    len: u24     |  flags  | [sid] [xid] body …
//! +---+---+---------+-----------------+---------+-------------------
//! ```
//! `len` counts everything behind byte 3, so frames are cut without knowing any type.

use super::varint;

/// The part of a frame that must have arrived before its length is known, in bytes.
pub const PREFIX: usize = 4;

/// The largest length that the header can express: 2^24 − 1 bytes.
pub const MAX_LEN: u32 = 0xFF_FFFF;

const SEQUENCED: u8 = 0x80;
const IGNORABLE: u8 = 0x40;
const CODE: u8 = 0x3F;

/// The first four bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Byte 0: the S and I bits and the code.
    pub kind: u8,
    /// How many bytes follow byte 3.
    pub len: u32,
}

impl Head {
    /// Reads the head from the first four bytes of `bytes`; `None` if there are fewer.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = u32::from_le_bytes(bytes.first_chunk::<PREFIX>().copied()?);
        Some(Self { kind: word as u8, len: word >> 8 })
    }
}

/// One frame as cut from the byte stream; the ids are still in `rest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// Byte 0: the S and I bits and the code.
    pub kind: u8,
    /// Byte 4.
    pub flags: u8,
    /// Everything behind byte 4.
    pub rest: &'a [u8],
}

impl RawFrame<'_> {
    /// Whether the frame is counted in its session's sequence. Decided by the bit alone, for unknown types too.
    #[inline]
    pub const fn is_sequenced(&self) -> bool {
        self.kind & SEQUENCED != 0
    }

    /// Whether a receiver that does not know the type passes over it.
    #[inline]
    pub const fn is_ignorable(&self) -> bool {
        self.kind & IGNORABLE != 0
    }

    /// What the frame belongs to, told by its code alone.
    #[inline]
    pub const fn scope(&self) -> Scope {
        match self.kind & CODE {
            0x00..=0x0F => Scope::Connection,
            0x10..=0x1F => Scope::Session,
            _ => Scope::Exchange,
        }
    }
}

/// What a frame belongs to; also the smallest thing that a fault in it can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Codes 00 to 0F.
    Connection,
    /// Codes 10 to 1F: a session id follows in multi-session mode.
    Session,
    /// Codes 20 to 3F: a session id (multi-session mode) and an exchange id follow.
    Exchange,
}

/// A frame's head under construction: everything before the message bytes, in an array so that a frame costs one
/// `extend_from_slice` for the head and one for the body (a put for each field costs six times as much).
#[derive(Debug)]
pub struct HeadBuf {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl HeadBuf {
    /// 5 fixed bytes, two ids of up to 8, and up to 43 of type-specific fields.
    const CAPACITY: usize = 64;

    /// Nearly every head is at most so long.
    const SHORT: usize = 16;

    /// Starts a frame of type `kind` (S and I bits included).
    #[inline]
    pub const fn new(kind: u8, flags: u8) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        bytes[0] = kind;
        bytes[4] = flags;
        Self { bytes, len: PREFIX + 1 }
    }

    /// Appends a varint.
    ///
    /// # Panics
    /// If the fields outgrow the array: the widest head there is takes 61 bytes.
    #[inline]
    pub fn varint(&mut self, value: u64) {
        if value < 1 << 6 {
            self.bytes[self.len] = value as u8;
            self.len += 1;
        } else if value < 1 << 14 {
            let [high, low] = (value as u16 | 0x4000).to_be_bytes();
            self.bytes[self.len] = high;
            self.bytes[self.len + 1] = low;
            self.len += 2;
        } else {
            self.len += varint::write(value, &mut self.bytes[self.len..]);
        }
    }

    /// Byte 0.
    #[inline]
    pub const fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// How many bytes the head has so far.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether only the five fixed bytes are there.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == PREFIX + 1
    }

    /// Fills in the length for a body of `body` further bytes and yields the head.
    ///
    /// # Panics
    /// If the frame exceeds [`MAX_LEN`]; callers cut bodies to the peer's `max_frame` before.
    #[inline]
    pub fn finish(&mut self, body: usize) -> &[u8] {
        let len = self.len - PREFIX + body;
        assert!(len <= MAX_LEN as usize, "a frame holds at most 2^24 - 1 bytes");
        self.bytes[1..PREFIX].copy_from_slice(&(len as u32).to_le_bytes()[..3]);
        &self.bytes[..self.len]
    }

    /// [`finish`](Self::finish), with the head appended to `out`.
    ///
    /// # Panics
    /// As `finish`.
    #[inline]
    pub fn append(&mut self, body: usize, out: &mut Vec<u8>) {
        if self.finish(body).len() > Self::SHORT {
            return out.extend_from_slice(&self.bytes[..self.len]);
        }
        // Of a length that the compiler knows it is a store or two; of any other a call, which costs more than the bytes.
        let end = out.len() + self.len;
        out.extend_from_slice(&self.bytes[..Self::SHORT]);
        out.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_bytes_are_no_head() {
        assert_eq!(Head::read(&[1, 2, 3]), None);
        assert_eq!(Head::read(&[0xA0, 2, 0, 0]), Some(Head { kind: 0xA0, len: 2 }));
    }

    #[test]
    fn the_scope_follows_from_the_code_alone() {
        let scope = |kind| RawFrame { kind, flags: 0, rest: &[] }.scope();
        assert_eq!(scope(0x04), Scope::Connection);
        assert_eq!(scope(0x9C), Scope::Session);
        assert_eq!(scope(0x5F), Scope::Session);
        assert_eq!(scope(0xA0), Scope::Exchange);
        assert_eq!(scope(0xFF), Scope::Exchange);
    }

    #[test]
    fn the_widest_head_fits_its_array() {
        let mut head = HeadBuf::new(0xA0, 0xFF);
        // sid, xid, method, bitmap, timeout, total length: the fields of the widest OPEN
        for _ in 0..6 {
            head.varint(varint::MAX);
        }
        assert_eq!(head.len(), 5 + 6 * 8);
    }

    proptest! {
        #[test]
        fn a_written_head_reads_back(kind: u8, flags: u8, ids in proptest::collection::vec(0..=varint::MAX, 0..3), body in 0usize..70_000) {
            let mut head = HeadBuf::new(kind, flags);
            for id in &ids {
                head.varint(*id);
            }
            let bytes = head.finish(body).to_vec();
            let mut appended = vec![1, 2, 3];
            head.append(body, &mut appended);
            prop_assert_eq!(&appended[3..], &bytes);
            let read = Head::read(&bytes).unwrap();
            prop_assert_eq!(read.kind, kind);
            prop_assert_eq!(read.len as usize, bytes.len() - PREFIX + body);
            prop_assert_eq!(bytes[4], flags);
        }
    }
}
