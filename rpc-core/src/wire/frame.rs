//! Frame types and their bodies (docs/PROTOCOL.md §3, §5, §6, §7 and §9): hand-decoded, never recursive, never allocating
//! more than the frame's own length.

use super::header::{Head, PREFIX, Scope};
use super::{DecodeError, HeadBuf, RawFrame, varint};
use crate::code::Code;
use crate::id::{Sid, Xid};

/// The frame types that this version writes, byte 0 whole: S and I bits and code. §3 lists the reserved ones too.
pub mod kind {
    /// First frame of the initiator.
    pub const HELLO: u8 = 0x01;
    /// The acceptor's answer, with the selected values.
    pub const HELLO_ACK: u8 = 0x02;
    /// The acceptor's refusal.
    pub const HELLO_REJECT: u8 = 0x03;
    /// Are you there?
    pub const PING: u8 = 0x04;
    /// The answer to PING, with its eight bytes.
    pub const PONG: u8 = 0x05;
    /// Raises the connection's data credit.
    pub const MAX_CONN_DATA: u8 = 0x06;
    /// "I go away: open no further sessions."
    pub const GOAWAY: u8 = 0x07;
    /// The answer to GOAWAY: no session is opened behind it.
    pub const GOAWAY_ACK: u8 = 0x08;
    /// The end of the connection, with its reason.
    pub const CONN_CLOSE: u8 = 0x09;
    /// Opens a session.
    pub const S_OPEN: u8 = 0x10;
    /// Accepts a session.
    pub const S_ACCEPT: u8 = 0x11;
    /// Rejects a session.
    pub const S_REJECT: u8 = 0x12;
    /// States the sender's counts of sequenced frames.
    pub const ACK: u8 = 0x17;
    /// Raises the session's data and exchange credit.
    pub const MAX_SESSION: u8 = 0x18;
    /// Ends the session at once, with its reason.
    pub const S_ABORT: u8 = 0x19;
    /// "My application has done with everything that you sent."
    pub const S_CLOSE_DONE: u8 = 0x1C;
    /// "I open no new exchanges."
    pub const S_CLOSE: u8 = 0x9C;
    /// Opens an exchange, with the first bytes of its first message.
    pub const OPEN: u8 = 0xA0;
    /// Bytes of a message.
    pub const DATA: u8 = 0xA1;
    /// Ends the sender's direction with a fault.
    pub const RESET: u8 = 0xA2;
    /// Asks the peer to end its direction.
    pub const CANCEL: u8 = 0xA3;
    /// Raises the stream's data credit.
    pub const MAX_STREAM: u8 = 0x28;
    /// "Accepted, items will follow."
    pub const ACCEPT: u8 = 0xA8;
}

/// Flags of OPEN and DATA (§6.1).
pub mod flag {
    /// The sender's direction ends with this frame.
    pub const END: u8 = 0x01;
    /// The message ends with this frame.
    pub const EOM: u8 = 0x02;
    /// OPEN: no answer is expected.
    pub const ONEWAY: u8 = 0x08;
    /// OPEN: a bitmap of optional fields follows the method.
    pub const EXT: u8 = 0x10;
    /// DATA: the message is an application error.
    pub const ERR: u8 = 0x10;
}

/// A reason text is at most this long on the wire, in bytes; longer ones are cut when written.
pub const MAX_REASON: usize = 1024;

/// The credit that the smallest frame takes, in bytes (§7.1): an empty frame must not be free.
pub const MIN_CHARGE: u64 = 16;

/// Whether a connection carries one session or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One session alone on its connection: no session id on the wire.
    Single,
    /// Many sessions: every frame of session or exchange scope carries a session id.
    Multi,
}

/// A frame with its ids read. `sid` and `xid` are zero where the frame has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Byte 0: the S and I bits and the code.
    pub kind: u8,
    /// Byte 4.
    pub flags: u8,
    /// The session's alias.
    pub sid: Sid,
    /// The exchange's id.
    pub xid: Xid,
    /// What follows the ids.
    pub body: &'a [u8],
    /// Further items of the same stream.
    pub behind: Run<'a>,
}

/// Frames that came right behind one of DATA and are as it but for their bodies: items of a stream. They count, are charged
/// and are refused as frames; only their ids are read and looked up once for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run<'a> {
    bytes: &'a [u8],
    /// How long the head of each is.
    head: usize,
}

impl<'a> Run<'a> {
    /// The most frames of a run. What is saved with them is saved then; and a driver that counts frames to know when to write
    /// counts one for each run.
    const MOST: usize = 16;

    /// The longest frame in a run, as the header counts it. Copying a longer one costs more than looking it up.
    const LONGEST: u32 = 4096;

    /// How many bytes of `bytes`, which came behind `frame`, are items as it, and the credit that they take: `credit` at the
    /// most. What is longer than `max_frame` is none of them, nor is what has not arrived whole.
    pub fn measure(frame: &RawFrame<'_>, mode: Mode, max_frame: u32, credit: u64, bytes: &[u8]) -> (usize, u64) {
        let (mut len, mut taken, longest) = (0, 0, max_frame.min(Self::LONGEST));
        let Some((own, mask, fields)) = Self::tag(frame, mode) else { return (len, taken) };
        for _ in 0..Self::MOST {
            // A word more than the prefix: of a frame that is shorter, only its own turn can tell what it is.
            let next = &bytes[len..];
            let Some((head, word)) = Head::read(next).zip(next[PREFIX.min(next.len())..].first_chunk()) else { break };
            let word = u64::from_le_bytes(*word);
            let whole = PREFIX + head.len as usize;
            let is_like = head.kind == frame.kind && word & mask == own && head.len <= longest && head.len as usize >= fields;
            if !is_like || whole > bytes.len() - len {
                break;
            }
            let with = taken + charge(head.len as usize - fields);
            if with > credit {
                break;
            }
            (len, taken) = (len + whole, with);
        }
        (len, taken)
    }

    /// Flags and ids of `frame` as the low bytes of a word, the mask of these bytes, and how many they are; `None`: its ids are
    /// longer than that, or cut off.
    #[inline]
    fn tag(frame: &RawFrame<'_>, mode: Mode) -> Option<(u64, u64, usize)> {
        let mut ids = varint::width(*frame.rest.first()?);
        if mode == Mode::Multi {
            ids += varint::width(*frame.rest.get(ids)?);
        }
        let mut own = [0; 8];
        own[0] = frame.flags;
        own.get_mut(1..=ids)?.copy_from_slice(frame.rest.get(..ids)?);
        Some((u64::from_le_bytes(own), u64::MAX >> (56 - 8 * ids), 1 + ids))
    }

    /// What [`measure`](Self::measure) found behind `frame`, whose body has `body` bytes.
    #[inline]
    fn new(frame: &RawFrame<'_>, body: usize, bytes: &'a [u8]) -> Self {
        Self { bytes, head: PREFIX + 1 + frame.rest.len() - body }
    }

    /// Whether there are no frames.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The first body, and the run behind it.
    #[inline]
    pub fn split_first(self) -> Option<(&'a [u8], Self)> {
        let head = Head::read(self.bytes)?;
        let (frame, bytes) = self.bytes.split_at_checked(PREFIX + head.len as usize)?;
        Some((frame.get(self.head..)?, Self { bytes, ..self }))
    }
}

impl<'a> Frame<'a> {
    /// Reads the ids that the frame's scope and the connection's mode call for.
    ///
    /// # Errors
    /// If the frame ends within an id, or an id is not minimally encoded.
    #[inline]
    pub fn read(raw: RawFrame<'a>, mode: Mode) -> Result<Self, DecodeError> {
        let mut body = raw.rest;
        let scope = raw.scope();
        let sid = if mode == Mode::Multi && scope != Scope::Connection { varint::read(&mut body, "the session id")? } else { 0 };
        let xid = if scope == Scope::Exchange { varint::read(&mut body, "the exchange id")? } else { 0 };
        Ok(Self { kind: raw.kind, flags: raw.flags, sid: Sid(sid), xid: Xid(xid), body, behind: Run::default() })
    }

    /// The frame with what [`Run::measure`] found behind it.
    #[inline]
    #[must_use]
    pub fn with(mut self, raw: &RawFrame<'_>, behind: &'a [u8]) -> Self {
        self.behind = Run::new(raw, self.body.len(), behind);
        self
    }

    /// Whether all bits of `flags` are set.
    #[inline]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The credit that this frame takes at stream, session and connection (§7.1): only OPEN and DATA take any.
    #[inline]
    pub fn charge(&self) -> u64 {
        if matches!(self.kind, kind::OPEN | kind::DATA) { charge(self.body.len()) } else { 0 }
    }
}

/// The credit that a frame with `body` bytes behind its ids takes.
#[inline]
pub const fn charge(body: usize) -> u64 {
    let body = body as u64;
    if body < MIN_CHARGE { MIN_CHARGE } else { body }
}

/// Starts the head of a frame of session scope.
// Always, here and below: a head that is returned is copied.
#[inline(always)]
pub fn session_head(kind: u8, flags: u8, sid: Option<Sid>) -> HeadBuf {
    let mut head = HeadBuf::new(kind, flags);
    if let Some(sid) = sid {
        head.varint(sid.0);
    }
    head
}

/// Starts the head of a frame of exchange scope.
#[inline(always)]
pub fn exchange_head(kind: u8, flags: u8, sid: Option<Sid>, xid: Xid) -> HeadBuf {
    let mut head = session_head(kind, flags, sid);
    head.varint(xid.0);
    head
}

/// Bits of the bitmap behind OPEN's method when its EXT flag is set (§6.1).
mod ext {
    /// The time left to the call, in milliseconds.
    pub(super) const TIMEOUT: u64 = 1;
    /// How urgent the call and its answer are.
    pub(super) const URGENCY: u64 = 2;
    /// Pairs of keys and values, behind their length in bytes. (4 is reserved for target.)
    pub(super) const METADATA: u64 = 8;
}

/// The urgency of a call that states none, as RFC 9218 has it: 0 is the most urgent.
pub const DEFAULT_URGENCY: u8 = 3;

/// The least urgent.
pub const LEAST_URGENCY: u8 = 7;

/// What few calls have beside their arguments, in OPEN's fields behind the timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside<'a> {
    /// 0 to [`LEAST_URGENCY`].
    pub urgency: u8,
    /// Encoded; may be none.
    pub metadata: &'a [u8],
}

impl Beside<'_> {
    /// What most calls have.
    pub const NOTHING: Self = Self { urgency: DEFAULT_URGENCY, metadata: &[] };

    /// Whether there is nothing to be written.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.urgency == DEFAULT_URGENCY && self.metadata.is_empty()
    }

    /// How many bytes it takes, the bitmap aside.
    pub fn size(&self) -> usize {
        let metadata = self.metadata.len();
        let metadata = if metadata == 0 { 0 } else { varint::len(metadata as u64) + metadata };
        usize::from(self.urgency != DEFAULT_URGENCY) + metadata
    }
}

/// The fields of an OPEN before its message bytes, but for those of [`Beside`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// The rank of the method among its service's sorted hashes.
    pub method: u64,
    /// The time left to the call in milliseconds; `None`: the session's default.
    pub timeout_ms: Option<u64>,
    /// The whole message's length in bytes, where it takes several frames.
    pub total: Option<u64>,
}

impl Open {
    /// Appends the fields to `head`.
    #[inline]
    pub fn write(&self, head: &mut HeadBuf) {
        head.varint(self.method);
        if let Some(timeout) = self.timeout_ms {
            head.varint(ext::TIMEOUT);
            head.varint(timeout);
        }
        if let Some(total) = self.total {
            head.varint(total);
        }
    }

    /// The same for an OPEN with more. What does not fit in a head goes to `behind`, which the message follows.
    pub fn write_with(&self, beside: Beside<'_>, head: &mut HeadBuf, behind: &mut Vec<u8>) {
        let bit = |there, bit| if there { bit } else { 0 };
        let (urgent, described) = (beside.urgency != DEFAULT_URGENCY, !beside.metadata.is_empty());
        head.varint(self.method);
        let timed = bit(self.timeout_ms.is_some(), ext::TIMEOUT);
        head.varint(timed | bit(urgent, ext::URGENCY) | bit(described, ext::METADATA));
        if let Some(timeout) = self.timeout_ms {
            head.varint(timeout);
        }
        if urgent {
            head.varint(beside.urgency.into());
        }
        if described {
            head.varint(beside.metadata.len() as u64);
            behind.extend_from_slice(beside.metadata);
        }
        if let Some(total) = self.total {
            varint::push(total, behind);
        }
    }

    /// Reads the fields of `frame` and yields them with what stands beside them and the message bytes behind.
    ///
    /// # Errors
    /// If a field is cut off or out of range, or the bitmap names a field that this connection has not agreed upon.
    #[inline]
    pub fn read<'a>(frame: &Frame<'a>) -> Result<(Self, Beside<'a>, &'a [u8]), DecodeError> {
        let mut body = frame.body;
        let method = varint::read(&mut body, "the method")?;
        let (timeout_ms, beside) = if frame.has(flag::EXT) { read_ext(&mut body)? } else { (None, Beside::NOTHING) };
        let total = if frame.has(flag::EOM) { None } else { Some(varint::read(&mut body, "the message length")?) };
        Ok((Self { method, timeout_ms, total }, beside, body))
    }
}

/// The fields behind EXT. Most calls have none.
fn read_ext<'a>(body: &mut &'a [u8]) -> Result<(Option<u64>, Beside<'a>), DecodeError> {
    let bits = varint::read(body, "the field bitmap")?;
    if bits & !(ext::TIMEOUT | ext::URGENCY | ext::METADATA) != 0 {
        let rule = "only timeout, urgency and metadata are agreed upon";
        return Err(DecodeError::Range { field: "the field bitmap", value: bits, rule });
    }
    let timeout_ms = if bits & ext::TIMEOUT != 0 { Some(varint::read(body, "the timeout")?) } else { None };
    let mut urgency = DEFAULT_URGENCY;
    if bits & ext::URGENCY != 0 {
        let (field, rule) = ("the urgency", "7 is the least urgent");
        let value = varint::read(body, field)?;
        let known = u8::try_from(value).ok().filter(|urgency| *urgency <= LEAST_URGENCY);
        urgency = known.ok_or(DecodeError::Range { field, value, rule })?;
    }
    let mut metadata: &[u8] = &[];
    if bits & ext::METADATA != 0 {
        let len = varint::read(body, "the length of the metadata")?;
        let split = usize::try_from(len).ok().and_then(|len| body.split_at_checked(len));
        (metadata, *body) = split.ok_or(DecodeError::Truncated { field: "the metadata" })?;
    }
    Ok((timeout_ms, Beside { urgency, metadata }))
}

/// A code with a text for people: the body of HELLO_REJECT, S_REJECT, CONN_CLOSE and, behind its own fields, of RESET
/// and S_ABORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What ended it.
    pub code: Code,
    /// Why, in words; may be empty.
    pub text: String,
}

impl Reason {
    /// A reason with a text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Appends code and text; a text over [`MAX_REASON`] bytes is cut at a character.
    pub fn write(&self, out: &mut Vec<u8>) {
        varint::push(u64::from(self.code.0), out);
        let mut end = self.text.len().min(MAX_REASON);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        out.extend_from_slice(&self.text.as_bytes()[..end]);
    }

    /// Reads a code, and the rest of the body as text. A text that is not UTF-8 is shown with replacement characters:
    /// a broken explanation must not hide the code.
    ///
    /// # Errors
    /// If the code is cut off or out of range, or the text is longer than [`MAX_REASON`].
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        let code = read_code(&mut body)?;
        Self::read_text(code, body)
    }

    fn read_text(code: Code, body: &[u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_REASON {
            return Err(DecodeError::Range {
                field: "the reason's length",
                value: body.len() as u64,
                rule: "1024 bytes are the most",
            });
        }
        Ok(Self { code, text: String::from_utf8_lossy(body).into_owned() })
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.text.is_empty() { self.code.fmt(f) } else { write!(f, "{}: {}", self.code, self.text) }
    }
}

fn read_code(body: &mut &[u8]) -> Result<Code, DecodeError> {
    let value = varint::read(body, "the code")?;
    u32::try_from(value).map(Code).map_err(|_| DecodeError::Range { field: "the code", value, rule: "codes have 32 bits" })
}

/// The body of RESET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// The credit that the sender's direction took in all, so that the receiver's accounts stay exact.
    pub final_offset: u64,
    /// Why the direction ends.
    pub reason: Reason,
}

impl Reset {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        varint::push(self.final_offset, out);
        self.reason.write(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If a field is cut off or out of range.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { final_offset: varint::read(&mut body, "the final offset")?, reason: Reason::read(body)? })
    }
}

/// The body of S_ABORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// How many sequenced frames the sender has received in this session: what lies behind was never seen.
    pub rx_next: u64,
    /// Why the session ends.
    pub reason: Reason,
}

impl Abort {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        varint::push(self.rx_next, out);
        self.reason.write(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If a field is cut off or out of range.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { rx_next: varint::read(&mut body, "the receive count")?, reason: Reason::read(body)? })
    }
}

/// The body of GOAWAY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoAway {
    /// The time after which the sender ends what is still under way, in milliseconds; 0: it does not say.
    pub deadline_ms: u64,
    /// Why it goes.
    pub reason: Reason,
}

impl GoAway {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        varint::push(self.deadline_ms, out);
        self.reason.write(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If a field is cut off or out of range.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { deadline_ms: varint::read(&mut body, "the deadline")?, reason: Reason::read(body)? })
    }
}

/// Reads the body of CANCEL.
///
/// # Errors
/// If the code is cut off or out of range.
pub fn read_cancel(mut body: &[u8]) -> Result<Code, DecodeError> {
    read_code(&mut body)
}

/// Reads a body of `N` varints (bytes behind them are a later version's): MAX_STREAM, MAX_CONN_DATA, GOAWAY_ACK and
/// S_CLOSE_DONE have one, MAX_SESSION and ACK have two.
///
/// # Errors
/// If one is cut off.
pub fn read_varints<const N: usize>(mut body: &[u8], fields: [&'static str; N]) -> Result<[u64; N], DecodeError> {
    let mut values = [0; N];
    for (value, field) in values.iter_mut().zip(fields) {
        *value = varint::read(&mut body, field)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(bytes: &[u8]) -> RawFrame<'_> {
        RawFrame { kind: bytes[0], flags: bytes[4], rest: &bytes[5..] }
    }

    #[test]
    fn an_empty_frame_still_takes_credit() {
        let frame = Frame { kind: kind::DATA, flags: 0, sid: Sid(0), xid: Xid(0), body: &[], behind: Run::default() };
        assert_eq!(frame.charge(), MIN_CHARGE);
        assert_eq!(Frame { body: &[0; 17], ..frame }.charge(), 17);
        assert_eq!(Frame { kind: kind::RESET, body: &[0; 17], ..frame }.charge(), 0);
    }

    #[test]
    fn a_field_that_was_not_agreed_upon_is_refused() {
        let (kind, flags, behind) = (kind::OPEN, flag::EXT | flag::EOM, Run::default());
        let frame = Frame { kind, flags, sid: Sid(0), xid: Xid(0), body: &[7, 0b100, 1], behind };
        assert!(matches!(Open::read(&frame), Err(DecodeError::Range { value: 4, .. })));
        for (urgency, ok) in [(7, true), (8, false), (63, false)] {
            let frame = Frame { body: &[7, 0b10, urgency], ..frame };
            assert_eq!(Open::read(&frame).is_ok(), ok, "{urgency}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        Reason::new(Code::INTERNAL, "ü".repeat(MAX_REASON)).write(&mut out);
        let read = Reason::read(&out).unwrap();
        assert_eq!(read.text, "ü".repeat(MAX_REASON / 2));
    }

    /// Frames as they stand in a buffer, the last cut off `cut` bytes before its end.
    fn buffer(frames: &[(u8, u8, u64, usize)], sid: Option<Sid>, cut: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, xid, body) in frames {
            exchange_head(*kind, *flags, sid, Xid(*xid)).append(*body, &mut bytes);
            bytes.extend(std::iter::repeat_n(*body as u8, *body));
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    }

    fn raw(bytes: &[u8]) -> (RawFrame<'_>, &[u8]) {
        let (frame, behind) = bytes.split_at(PREFIX + Head::read(bytes).unwrap().len as usize);
        (RawFrame { kind: frame[0], flags: frame[PREFIX], rest: &frame[PREFIX + 1..] }, behind)
    }

    #[test]
    fn a_run_ends_at_its_length_its_credit_and_the_longest_frame() {
        let items = |count, body| buffer(&vec![(kind::DATA, flag::EOM, 6, body); count], None, 0);
        let measure = |bytes: &[u8], max_frame, credit| {
            let (frame, behind) = raw(bytes);
            Run::measure(&frame, Mode::Single, max_frame, credit, behind)
        };
        assert_eq!(measure(&items(1 + Run::MOST, 20), 99, 9999), (26 * Run::MOST, 20 * Run::MOST as u64));
        assert_eq!(measure(&items(2 + Run::MOST, 20), 99, 9999), (26 * Run::MOST, 20 * Run::MOST as u64));
        assert_eq!(measure(&items(9, 20), 99, 60), (26 * 3, 60));
        assert_eq!(measure(&items(9, 20), 99, 59), (26 * 2, 40));
        assert_eq!(measure(&items(9, 7), 99, 32), (13 * 2, 32), "short ones take 16");
        assert_eq!(measure(&items(9, 20), 22, 9999).0, 26 * 8);
        assert_eq!(measure(&items(9, 20), 21, 9999).0, 0);
        let longest = Run::LONGEST as usize - 2;
        assert_eq!(measure(&items(3, longest), u32::MAX, 9999).0, 2 * (longest + 6));
        assert_eq!(measure(&items(3, longest + 1), u32::MAX, 9999).0, 0);
    }

    proptest! {
        /// A run holds what cutting by frames would find there, and ends where something else begins.
        #[test]
        fn a_run_is_the_frames_behind_that_are_alike(
            first in prop_oneof![0u64..64, 0u64..=varint::MAX],
            frames in proptest::collection::vec((0u8..40, 0usize..40), 1..40),
            sid in proptest::option::of(prop_oneof![0u64..64, 0u64..=varint::MAX]),
            cut in 0usize..20,
        ) {
            let (sid, mode) = (sid.map(Sid), if sid.is_some() { Mode::Multi } else { Mode::Single });
            let of = |(what, body): (u8, usize)| match what {
                0 => (kind::DATA, flag::EOM | flag::END, first, body),
                1 => (kind::DATA, flag::EOM, first ^ 1, body),
                2 => (kind::RESET, flag::EOM, first, body),
                _ => (kind::DATA, flag::EOM, first, body),
            };
            let mut all = vec![(kind::DATA, flag::EOM, first, 30)];
            all.extend(frames.iter().copied().map(of));
            let bytes = buffer(&all, sid, cut);
            prop_assume!(bytes.len() >= buffer(&all[..1], sid, 0).len());
            let (frame, behind) = raw(&bytes);
            let (len, taken) = Run::measure(&frame, mode, u32::MAX, u64::MAX, behind);
            let read = Frame::read(frame, mode).unwrap().with(&frame, &behind[..len]);
            let (mut run, mut count, mut charged) = (read.behind, 0, 0);
            while let Some((body, rest)) = run.split_first() {
                count += 1;
                charged += charge(body.len());
                prop_assert_eq!(body, &vec![all[count].3 as u8; all[count].3]);
                prop_assert_eq!(all[count].0, kind::DATA);
                prop_assert_eq!((all[count].1, all[count].2), (flag::EOM, first));
                run = rest;
            }
            prop_assert_eq!(run.bytes.len(), 0);
            prop_assert_eq!(charged, taken);
            // Nothing is left out but behind what is no item, and where the bytes or the word of ids end.
            let next = all.get(count + 1).filter(|next| (next.0, next.1, next.2) == (kind::DATA, flag::EOM, first));
            let left = behind.len() - len;
            let ids = read.behind.head - PREFIX;
            if let Some(next) = next {
                let is_end = count == Run::MOST || left < read.behind.head + next.3 || left < PREFIX + 8 || ids > 8;
                prop_assert!(is_end, "{left} bytes are left, {next:?}");
            }
        }

        #[test]
        fn an_open_reads_back(method in 0..=varint::MAX, timeout_ms in proptest::option::of(0..=varint::MAX),
                              total in proptest::option::of(0..=varint::MAX), sid in proptest::option::of(0..=varint::MAX),
                              xid in 0..=varint::MAX, message: Vec<u8>) {
            let open = Open { method, timeout_ms, total };
            let flags = if total.is_none() { flag::EOM } else { 0 } | if timeout_ms.is_some() { flag::EXT } else { 0 };
            let mut head = exchange_head(kind::OPEN, flags, sid.map(Sid), Xid(xid));
            open.write(&mut head);
            let mut bytes = head.finish(message.len()).to_vec();
            bytes.extend_from_slice(&message);
            let frame = Frame::read(cut(&bytes), if sid.is_some() { Mode::Multi } else { Mode::Single }).unwrap();
            prop_assert_eq!(frame.sid.0, sid.unwrap_or(0));
            prop_assert_eq!(frame.xid.0, xid);
            prop_assert_eq!(Open::read(&frame).unwrap(), (open, Beside::NOTHING, &message[..]));
        }

        #[test]
        fn an_open_with_metadata_reads_back(method in 0..=varint::MAX, timeout_ms in proptest::option::of(0..=varint::MAX),
                                            total in proptest::option::of(0..=varint::MAX), xid in 0..=varint::MAX,
                                            metadata: Vec<u8>, message: Vec<u8>, cut_off in 0..400usize,
                                            urgency in 0..=LEAST_URGENCY) {
            let beside = Beside { urgency, metadata: &metadata };
            let open = Open { method, timeout_ms, total };
            let flags = flag::EXT | if total.is_none() { flag::EOM } else { 0 };
            let mut head = exchange_head(kind::OPEN, flags, Some(Sid(varint::MAX)), Xid(xid));
            let mut body = Vec::new();
            open.write_with(beside, &mut head, &mut body);
            let fields = body.len();
            body.extend_from_slice(&message);
            let mut bytes = head.finish(body.len()).to_vec();
            let start = bytes.len();
            bytes.extend_from_slice(&body);
            let frame = Frame::read(cut(&bytes), Mode::Multi).unwrap();
            prop_assert_eq!(Open::read(&frame).unwrap(), (open, beside, &message[..]));
            // Cut off within the metadata, it is nothing.
            let frame = Frame::read(cut(&bytes[..start + cut_off.min(metadata.len())]), Mode::Multi).unwrap();
            prop_assert_eq!(Open::read(&frame).is_ok(), fields == 0 || (cut_off >= metadata.len() && total.is_none()));
        }

        #[test]
        fn no_body_makes_a_reader_panic(kind: u8, flags: u8, body: Vec<u8>) {
            for mode in [Mode::Single, Mode::Multi] {
                if let Ok(frame) = Frame::read(RawFrame { kind, flags, rest: &body }, mode) {
                    let _ = Open::read(&frame);
                    let _ = Reset::read(frame.body);
                    let _ = Abort::read(frame.body);
                    let _ = GoAway::read(frame.body);
                    let _ = read_cancel(frame.body);
                    let _ = read_varints(frame.body, ["a", "b"]);
                }
            }
        }

        #[test]
        fn resets_and_aborts_read_back(offset in 0..=varint::MAX, code: u32, text in ".{0,40}") {
            let reason = Reason { code: Code(code), text };
            let (reset, abort) = (Reset { final_offset: offset, reason: reason.clone() }, Abort { rx_next: offset, reason: reason.clone() });
            let goaway = GoAway { deadline_ms: offset, reason };
            let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
            reset.write(&mut a);
            abort.write(&mut b);
            goaway.write(&mut c);
            prop_assert_eq!(GoAway::read(&c).unwrap(), goaway);
            prop_assert_eq!(Reset::read(&a).unwrap(), reset);
            prop_assert_eq!(Abort::read(&b).unwrap(), abort);
        }
    }
}
