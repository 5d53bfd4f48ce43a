//! The preface and the key-value bodies of HELLO, HELLO_ACK, HELLO_REJECT, S_OPEN, S_ACCEPT and S_REJECT
//! (docs/PROTOCOL.md §4 and §5).
//!
//! A body is a list of (key varint, length varint, value). **Odd keys may be ignored, even keys must be understood**,
//! so a later version can add either kind without a new frame type.

use super::frame::{Mode, Reason};
use super::{DecodeError, varint};
use crate::code::Code;

/// What both sides send before anything else: a byte that no text protocol starts with, the name, an end-of-line that
/// a text-mode transfer would damage, and the major version.
pub const PREFACE: [u8; 8] = [0xF5, b'R', b'P', b'C', 0x0D, 0x0A, 0x1A, VERSION];

/// The protocol version that this crate speaks, and its range in HELLO.
pub const VERSION: u8 = 1;

/// The longest HELLO, HELLO_ACK or HELLO_REJECT, in bytes: a stranger's first bytes are not worth more memory.
pub const MAX_HELLO: u32 = 4096;

/// The smallest `max_frame` that a side may announce, in bytes: every frame that cannot be cut into pieces fits.
pub const SMALLEST_FRAME: u32 = 4096;

/// What a peer that does not speak this protocol seems to speak, told from its first bytes.
pub fn recognise(first: &[u8]) -> &'static str {
    const HTTP: [&[u8]; 8] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"PRI ", b"OPTI", b"DELE", b"HTTP"];
    match first {
        [0x16, 0x03, ..] => "a TLS hello",
        [0x15, 0x03, ..] => "a TLS alert, as servers do that expect TLS",
        [b'S', b'S', b'H', b'-', ..] => "an SSH banner",
        _ if HTTP.iter().any(|verb| first.starts_with(verb)) => "an HTTP request or answer",
        [0xF5, b'R', b'P', b'C', ..] => "another major version of this protocol",
        _ => "an unknown protocol",
    }
}

/// The values that both HELLO and HELLO_ACK carry: in HELLO what is wished for, in HELLO_ACK what holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version spoken; equal in HELLO_ACK.
    pub versions: (u8, u8),
    /// One session or many.
    pub mode: Mode,
    /// The longest frame that the sender accepts: the value of the header's `len`, in bytes.
    pub max_frame: u32,
    /// Codecs by number, the sender's preference first.
    pub codecs: Vec<u8>,
    /// Units wanted (HELLO) or granted (HELLO_ACK), one bit each; this version grants none.
    pub units: u64,
    /// Units without which the sender does not want the connection.
    pub required_units: u64,
    /// The sender's initial connection window in bytes.
    pub connection_window: u64,
    /// How many sessions the peer may have open at a time.
    pub sessions: u64,
    /// In HELLO_ACK: silence in milliseconds after which either side sends PING. The server chooses for both.
    pub keepalive_interval_ms: u64,
    /// In HELLO_ACK: silence in milliseconds behind a PING after which the peer counts as gone.
    pub keepalive_timeout_ms: u64,
}

mod key {
    pub(super) const VERSIONS: u64 = 0;
    pub(super) const MODE: u64 = 2;
    pub(super) const MAX_FRAME: u64 = 4;
    pub(super) const CODECS: u64 = 6;
    pub(super) const UNITS: u64 = 8;
    pub(super) const CONNECTION_WINDOW: u64 = 10;
    pub(super) const KEEPALIVE: u64 = 12;
    pub(super) const SESSIONS: u64 = 14;

    pub(super) const SERVICE: u64 = 0;
    pub(super) const FINGERPRINT: u64 = 2;
    pub(super) const SESSION_CODECS: u64 = 4;
    pub(super) const WINDOWS: u64 = 6;
    pub(super) const METHODS: u64 = 8;
    /// Odd: who does not know it gives the session the default weight, and nothing else is different.
    pub(super) const WEIGHT: u64 = 9;

    pub(super) const REASON: u64 = 0;

    /// Any odd key: written so that peers prove that they pass over what they need not know.
    pub(super) const GREASE: u64 = 0x1D;
}

/// Writes key-value lists.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn bytes(&mut self, key: u64, value: &[u8]) {
        varint::push(key, self.0);
        varint::push(value.len() as u64, self.0);
        self.0.extend_from_slice(value);
    }

    fn varints(&mut self, key: u64, values: &[u64]) {
        varint::push(key, self.0);
        varint::push(values.iter().map(|value| varint::len(*value) as u64).sum(), self.0);
        for value in values {
            varint::push(*value, self.0);
        }
    }
}

/// Reads the next pair; `None` at the end.
fn next_field<'a>(body: &mut &'a [u8]) -> Result<Option<(u64, &'a [u8])>, DecodeError> {
    if body.is_empty() {
        return Ok(None);
    }
    let key = varint::read(body, "a key")?;
    let len = varint::read(body, "a value's length")?;
    let split = usize::try_from(len).ok().and_then(|len| body.split_at_checked(len));
    let (value, rest) = split.ok_or(DecodeError::Truncated { field: "a value" })?;
    *body = rest;
    Ok(Some((key, value)))
}

/// An unknown key: passed over where odd, refused where even.
fn unknown(key: u64) -> Result<(), DecodeError> {
    if key & 1 == 1 { Ok(()) } else { Err(DecodeError::UnknownKey { key }) }
}

fn narrow<T: TryFrom<u64>>(value: u64, field: &'static str, rule: &'static str) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::Range { field, value, rule })
}

impl Hello {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.varints(key::VERSIONS, &[self.versions.0.into(), self.versions.1.into()]);
        fields.varints(key::MODE, &[u64::from(self.mode == Mode::Multi)]);
        fields.varints(key::MAX_FRAME, &[self.max_frame.into()]);
        fields.bytes(key::CODECS, &self.codecs);
        fields.varints(key::UNITS, &[self.units, self.required_units]);
        fields.varints(key::CONNECTION_WINDOW, &[self.connection_window]);
        fields.varints(key::KEEPALIVE, &[self.keepalive_interval_ms, self.keepalive_timeout_ms]);
        fields.varints(key::SESSIONS, &[self.sessions]);
        fields.bytes(key::GREASE, b"grease");
    }

    /// Reads a body.
    ///
    /// # Errors
    /// If a field is cut off, out of range, missing, or unknown with an even key.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        let mut hello = Self {
            versions: (0, 0),
            mode: Mode::Multi,
            max_frame: 0,
            codecs: Vec::new(),
            units: 0,
            required_units: 0,
            connection_window: 0,
            sessions: 0,
            keepalive_interval_ms: 0,
            keepalive_timeout_ms: 0,
        };
        while let Some((key, mut value)) = next_field(&mut body)? {
            let v = &mut value;
            match key {
                key::VERSIONS => {
                    let rule = "versions are below 256";
                    hello.versions.0 = narrow(varint::read(v, "the lowest version")?, "the lowest version", rule)?;
                    hello.versions.1 = narrow(varint::read(v, "the highest version")?, "the highest version", rule)?;
                }
                key::MODE => {
                    hello.mode = match varint::read(v, "the mode")? {
                        0 => Mode::Single,
                        1 => Mode::Multi,
                        value => return Err(DecodeError::Range { field: "the mode", value, rule: "there are only 0 and 1" }),
                    }
                }
                key::MAX_FRAME => {
                    let rule = "a frame holds between 4096 and 2^24 - 1 bytes";
                    let value = varint::read(v, "the longest frame")?;
                    hello.max_frame = narrow(value, "the longest frame", rule)?;
                    if !(SMALLEST_FRAME..=super::header::MAX_LEN).contains(&hello.max_frame) {
                        return Err(DecodeError::Range { field: "the longest frame", value, rule });
                    }
                }
                key::CODECS => hello.codecs = value.to_vec(),
                key::UNITS => {
                    hello.units = varint::read(v, "the units wanted")?;
                    hello.required_units = varint::read(v, "the units required")?;
                }
                key::CONNECTION_WINDOW => hello.connection_window = varint::read(v, "the connection window")?,
                key::KEEPALIVE => {
                    hello.keepalive_interval_ms = varint::read(v, "the keepalive interval")?;
                    hello.keepalive_timeout_ms = varint::read(v, "the keepalive timeout")?;
                }
                key::SESSIONS => hello.sessions = varint::read(v, "the number of sessions")?,
                _ => unknown(key)?,
            }
        }
        if hello.max_frame == 0 {
            return Err(DecodeError::Missing { field: "the longest frame" });
        }
        if hello.versions.1 == 0 {
            return Err(DecodeError::Missing { field: "the version range" });
        }
        Ok(hello)
    }
}

/// Windows that the sender of S_OPEN or S_ACCEPT grants to its peer (§7): what it is ready to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Bytes on each stream.
    pub stream: u64,
    /// Bytes in the session.
    pub session: u64,
    /// Exchanges that the peer may have open at a time.
    pub exchanges: u64,
    /// The longest message, in bytes.
    pub message: u64,
}

impl Windows {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.varints(key::WINDOWS, &[self.stream, self.session, self.exchanges, self.message]);
    }

    fn read(v: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            stream: varint::read(v, "the stream window")?,
            session: varint::read(v, "the session window")?,
            exchanges: varint::read(v, "the number of exchanges")?,
            message: varint::read(v, "the longest message")?,
        })
    }
}

/// The body of S_OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpen {
    /// The service that the session is for.
    pub service: String,
    /// The opener's fingerprint of the service's sorted method hashes; 0 where it offers none.
    pub fingerprint: u64,
    /// Codecs by number, in the opener's order of preference.
    pub codecs: Vec<u8>,
    /// What the opener is ready to receive.
    pub windows: Windows,
    /// The weight that the session has at its opener, and should have at its acceptor: [`DEFAULT_WEIGHT`] where none is
    /// stated.
    pub weight: u16,
}

/// The weight of a session that states none.
pub const DEFAULT_WEIGHT: u16 = 16;

/// The largest weight of a session.
pub const MAX_WEIGHT: u16 = 256;

/// The longest service name, in bytes.
pub const MAX_SERVICE_NAME: usize = 256;

impl SessionOpen {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.bytes(key::SERVICE, self.service.as_bytes());
        fields.bytes(key::FINGERPRINT, &self.fingerprint.to_le_bytes());
        fields.bytes(key::SESSION_CODECS, &self.codecs);
        self.windows.write(&mut fields);
        if self.weight != DEFAULT_WEIGHT {
            fields.varints(key::WEIGHT, &[self.weight.into()]);
        }
        fields.bytes(key::GREASE, b"grease");
    }

    /// Reads a body. A weight out of range counts as the nearest that there is: it is a wish.
    ///
    /// # Errors
    /// If a field is cut off, out of range, missing, or unknown with an even key.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        let (mut service, mut fingerprint, mut codecs, mut windows) = (None, 0, Vec::new(), None);
        let mut weight = DEFAULT_WEIGHT;
        while let Some((key, mut value)) = next_field(&mut body)? {
            match key {
                key::SERVICE => {
                    if value.len() > MAX_SERVICE_NAME {
                        let (field, rule) = ("the service name's length", "256 bytes are the most");
                        return Err(DecodeError::Range { field, value: value.len() as u64, rule });
                    }
                    let name = std::str::from_utf8(value).map_err(|_| DecodeError::Utf8 { field: "the service name" })?;
                    service = Some(name.to_owned());
                }
                key::FINGERPRINT => fingerprint = read_hash(&mut value)?,
                key::SESSION_CODECS => codecs = value.to_vec(),
                key::WINDOWS => windows = Some(Windows::read(&mut value)?),
                key::WEIGHT => {
                    let wish = varint::read(&mut value, "the weight")?.clamp(1, MAX_WEIGHT.into());
                    weight = u16::try_from(wish).unwrap_or(MAX_WEIGHT);
                }
                _ => unknown(key)?,
            }
        }
        Ok(Self {
            service: service.ok_or(DecodeError::Missing { field: "the service name" })?,
            fingerprint,
            codecs,
            windows: windows.ok_or(DecodeError::Missing { field: "the windows" })?,
            weight,
        })
    }
}

/// The body of S_ACCEPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAccept {
    /// The codec of this session, out of those that the opener offered.
    pub codec: u8,
    /// What the acceptor is ready to receive.
    pub windows: Windows,
    /// The acceptor's sorted method hashes, where the fingerprints differ: the opener maps its own ranks onto them.
    pub methods: Option<Vec<u64>>,
}

impl SessionAccept {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.bytes(key::SESSION_CODECS, &[self.codec]);
        self.windows.write(&mut fields);
        if let Some(methods) = &self.methods {
            let hashes: Vec<u8> = methods.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            fields.bytes(key::METHODS, &hashes);
        }
        fields.bytes(key::GREASE, b"grease");
    }

    /// Reads a body.
    ///
    /// # Errors
    /// If a field is cut off, out of range, missing, or unknown with an even key.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        let (mut codec, mut windows, mut methods) = (None, None, None);
        while let Some((key, mut value)) = next_field(&mut body)? {
            match key {
                key::SESSION_CODECS => codec = value.first().copied(),
                key::WINDOWS => windows = Some(Windows::read(&mut value)?),
                key::METHODS => {
                    let mut list = Vec::with_capacity(value.len() / 8);
                    while !value.is_empty() {
                        list.push(read_hash(&mut value)?);
                    }
                    methods = Some(list);
                }
                _ => unknown(key)?,
            }
        }
        Ok(Self {
            codec: codec.ok_or(DecodeError::Missing { field: "the codec" })?,
            windows: windows.ok_or(DecodeError::Missing { field: "the windows" })?,
            methods,
        })
    }
}

fn read_hash(value: &mut &[u8]) -> Result<u64, DecodeError> {
    let Some((hash, rest)) = value.split_first_chunk::<8>() else {
        return Err(DecodeError::Truncated { field: "a method hash" });
    };
    *value = rest;
    Ok(u64::from_le_bytes(*hash))
}

/// The body of HELLO_REJECT and S_REJECT: a reason, and the codecs that would have been accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: Reason,
    /// The refusing side's codecs, by number.
    pub codecs: Vec<u8>,
}

impl Reject {
    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut reason = Vec::new();
        self.reason.write(&mut reason);
        let mut fields = Fields(out);
        fields.bytes(key::REASON, &reason);
        fields.bytes(key::SESSION_CODECS, &self.codecs);
    }

    /// Reads a body.
    ///
    /// # Errors
    /// If a field is cut off, out of range, or unknown with an even key.
    pub fn read(mut body: &[u8]) -> Result<Self, DecodeError> {
        let mut reject = Self { reason: Reason::new(Code::REFUSED, ""), codecs: Vec::new() };
        while let Some((key, value)) = next_field(&mut body)? {
            match key {
                key::REASON => reject.reason = Reason::read(value)?,
                key::SESSION_CODECS => reject.codecs = value.to_vec(),
                _ => unknown(key)?,
            }
        }
        Ok(reject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn windows() -> Windows {
        Windows { stream: 1 << 18, session: 1 << 20, exchanges: 1024, message: 4 << 20 }
    }

    #[test]
    fn an_unknown_even_key_is_refused_and_an_odd_one_is_passed_over() {
        let open = SessionOpen { service: "Kv".into(), fingerprint: 7, codecs: vec![1], windows: windows(), weight: 7 };
        let mut bytes = Vec::new();
        open.write(&mut bytes);
        Fields(&mut bytes).bytes(4711, b"whatever");
        assert_eq!(SessionOpen::read(&bytes), Ok(open));
        Fields(&mut bytes).bytes(4712, b"whatever");
        assert_eq!(SessionOpen::read(&bytes), Err(DecodeError::UnknownKey { key: 4712 }));
    }

    #[test]
    fn a_long_service_name_is_refused() {
        for (len, ok) in [(MAX_SERVICE_NAME - 1, true), (MAX_SERVICE_NAME, true), (MAX_SERVICE_NAME + 1, false)] {
            let mut bytes = Vec::new();
            let service = "x".repeat(len);
            SessionOpen { service, fingerprint: 0, codecs: vec![1], windows: windows(), weight: 1 }.write(&mut bytes);
            assert_eq!(SessionOpen::read(&bytes).is_ok(), ok, "{len}");
        }
    }

    #[test]
    fn strangers_are_recognised() {
        assert_eq!(recognise(b"GET / HTTP/1.1"), "an HTTP request or answer");
        assert_eq!(recognise(&[0x16, 0x03, 0x01, 0x02]), "a TLS hello");
        assert_eq!(recognise(b"SSH-2.0-x"), "an SSH banner");
        assert_eq!(recognise(&[0xF5, b'R', b'P', b'C', 0x0D, 0x0A, 0x1A, 9]), "another major version of this protocol");
        assert_eq!(recognise(b"\0\0\0\0"), "an unknown protocol");
    }

    proptest! {
        #[test]
        fn a_hello_reads_back(max_frame in SMALLEST_FRAME..=0xFF_FFFF, codecs: Vec<u8>, units in 0..=varint::MAX, window in 0..=varint::MAX,
                              single: bool, keepalive in (0..=varint::MAX, 0..=varint::MAX)) {
            let hello = Hello {
                versions: (1, 3), mode: if single { Mode::Single } else { Mode::Multi }, max_frame, codecs, units, required_units: 1,
                connection_window: window, sessions: 128, keepalive_interval_ms: keepalive.0, keepalive_timeout_ms: keepalive.1,
            };
            let mut bytes = Vec::new();
            hello.write(&mut bytes);
            prop_assert_eq!(Hello::read(&bytes), Ok(hello));
        }

        #[test]
        fn an_accept_reads_back(codec: u8, methods in proptest::option::of(proptest::collection::vec(any::<u64>(), 0..20))) {
            let accept = SessionAccept { codec, windows: windows(), methods };
            let mut bytes = Vec::new();
            accept.write(&mut bytes);
            prop_assert_eq!(SessionAccept::read(&bytes), Ok(accept));
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let _ = Hello::read(&bytes);
            let _ = SessionOpen::read(&bytes);
            let _ = SessionAccept::read(&bytes);
            let _ = Reject::read(&bytes);
            let _ = recognise(&bytes);
        }
    }
}
