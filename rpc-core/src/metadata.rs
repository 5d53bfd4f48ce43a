//! What travels beside the arguments of a call: a few pairs of a key and bytes, for those between caller and handler
//! (docs/PROTOCOL.md §6.1). Kept as it travels, so that a call is one copy there and one here.

use std::fmt;

use crate::code::Code;
use crate::wire::varint;

/// The longest key, in bytes: room for a reversed domain name.
const LONGEST_KEY: usize = 255;

/// Metadata of a call: an ordered list of keys, each once, with bytes for values.
///
/// A caller sets them with `Call::metadata`, layers read and change them, and a handler finds them in
/// [`Context::metadata`](crate::context::Context::metadata). A key has 1 to 255 of the characters `a` to `z`, `0` to `9`,
/// `-`, `_` and `.`. Values whose key is `authorization`, `cookie`, or ends in `-token` or `-secret`, are not shown by
/// `Debug`.
///
/// ```
/// use rpc_core::metadata::Metadata;
/// let mut metadata = Metadata::new();
/// metadata.insert("trace-id", "17")?;
/// metadata.insert("api-token", "letmein")?;
/// assert_eq!(metadata.get_text("trace-id"), Some("17"));
/// assert_eq!(format!("{metadata:?}"), r#"{"trace-id": "17", "api-token": ***}"#);
/// # Ok::<(), rpc_core::metadata::MetadataError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Key length, key, value length, value, and so on: as on the wire.
    encoded: Vec<u8>,
    entries: usize,
}

/// Why metadata cannot travel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// A key has other characters than it may, none, or too many.
    #[error("`{key:.60}` is no metadata key: give it 1 to 255 of the characters a-z, 0-9, `-`, `_` and `.`")]
    Key {
        /// The key.
        key: String,
    },
    /// The pairs take more bytes than the limit.
    #[error(
        "the metadata take {size} bytes up to `{key}`, and {most} are the most: send less, or raise `Limits::metadata_bytes` on both sides"
    )]
    TooLarge {
        /// The first key that does not fit.
        key: String,
        /// The bytes of all pairs up to this one.
        size: usize,
        /// The limit.
        most: usize,
    },
    /// There are more pairs than the limit.
    #[error(
        "`{key}` is one key more than the {most} that are the most: send fewer, or raise `Limits::metadata_entries` on both sides"
    )]
    TooMany {
        /// The first key that is too much.
        key: String,
        /// The limit.
        most: usize,
    },
    /// Bytes of the peer are no metadata.
    #[error("the metadata make no sense: {0}")]
    Malformed(&'static str),
}

impl MetadataError {
    /// The code that a call fails with.
    pub fn code(&self) -> Code {
        match self {
            Self::Key { .. } | Self::Malformed(_) => Code::BAD_ARGUMENTS,
            Self::TooLarge { .. } | Self::TooMany { .. } => Code::TOO_LARGE,
        }
    }
}

impl Metadata {
    /// No metadata, without an allocation.
    pub const fn new() -> Self {
        Self { encoded: Vec::new(), entries: 0 }
    }

    /// Sets a key. The value it had is replaced, and keeps its place.
    ///
    /// # Errors
    /// [`MetadataError::Key`]. How much all pairs may take is checked when the call is made.
    pub fn insert(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        if !is_key(key.as_bytes()) {
            return Err(MetadataError::Key { key: key.to_owned() });
        }
        let value = value.as_ref();
        let mut pair = Vec::with_capacity(key.len() + value.len() + 10);
        for part in [key.as_bytes(), value] {
            varint::push(part.len() as u64, &mut pair);
            pair.extend_from_slice(part);
        }
        match self.place(key) {
            Some((start, end)) => drop(self.encoded.splice(start..end, pair)),
            None => {
                self.encoded.extend_from_slice(&pair);
                self.entries += 1;
            }
        }
        Ok(())
    }

    /// Removes a key, and tells whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let place = self.place(key);
        if let Some((start, end)) = place {
            self.encoded.drain(start..end);
            self.entries -= 1;
        }
        place.is_some()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// The value of a key, if it is text.
    pub fn get_text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// The pairs in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &self.encoded[..];
        // What is kept was checked, so that the first error is the end.
        std::iter::from_fn(move || {
            let (key, value) = read_pair(&mut rest).ok()?;
            Some((std::str::from_utf8(key).ok()?, value))
        })
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The pairs as they travel.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Checks the pairs against the limits of whoever sends them.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`] or [`MetadataError::TooMany`], with the first key that is too much.
    pub fn check(&self, bytes: usize, entries: usize) -> Result<(), MetadataError> {
        if self.encoded.len() <= bytes && self.entries <= entries {
            return Ok(());
        }
        let mut rest = &self.encoded[..];
        let mut count = 0;
        while let Ok((key, _)) = read_pair(&mut rest) {
            count += 1;
            let (key, size) = (String::from_utf8_lossy(key).into_owned(), self.encoded.len() - rest.len());
            if size > bytes {
                return Err(MetadataError::TooLarge { key, size, most: bytes });
            }
            if count > entries {
                return Err(MetadataError::TooMany { key, most: entries });
            }
        }
        Ok(())
    }

    /// Reads the pairs of a peer. All is checked before anything is kept.
    ///
    /// # Errors
    /// [`MetadataError::Malformed`] for anything that [`insert`](Self::insert) would not have made, and the errors of
    /// [`check`](Self::check).
    pub fn read(encoded: &[u8], bytes: usize, entries: usize) -> Result<Self, MetadataError> {
        let (mut rest, mut count) = (encoded, 0);
        while !rest.is_empty() {
            let before = &encoded[..encoded.len() - rest.len()];
            let (key, _) = read_pair(&mut rest)?;
            let size = encoded.len() - rest.len();
            if !is_key(key) {
                return Err(MetadataError::Malformed("a key is not 1 to 255 of the characters a-z, 0-9, `-`, `_` and `.`"));
            }
            count += 1;
            // Before the look for repeated keys: the limit of entries is what bounds that one's time.
            if size > bytes || count > entries {
                let key = String::from_utf8_lossy(key).into_owned();
                let too_large = size > bytes;
                return Err(if too_large {
                    MetadataError::TooLarge { key, size, most: bytes }
                } else {
                    MetadataError::TooMany { key, most: entries }
                });
            }
            if Pairs(before).any(|known| known == key) {
                return Err(MetadataError::Malformed("a key stands twice"));
            }
        }
        Ok(Self { encoded: encoded.to_vec(), entries: count })
    }

    /// Where the pair of a key stands.
    fn place(&self, key: &str) -> Option<(usize, usize)> {
        let mut rest = &self.encoded[..];
        loop {
            let start = self.encoded.len() - rest.len();
            let (known, _) = read_pair(&mut rest).ok()?;
            if known == key.as_bytes() {
                return Some((start, self.encoded.len() - rest.len()));
            }
        }
    }
}

/// The keys of pairs that were read before.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        read_pair(&mut self.0).ok().map(|(key, _)| key)
    }
}

fn read_pair<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), MetadataError> {
    Ok((read_part(rest)?, read_part(rest)?))
}

fn read_part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], MetadataError> {
    let len = varint::read(rest, "a length").map_err(|_| MetadataError::Malformed("a length does not read"))?;
    let part = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
    let (part, behind) = part.ok_or(MetadataError::Malformed("a key or a value is cut off"))?;
    *rest = behind;
    Ok(part)
}

fn is_key(key: &[u8]) -> bool {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=LONGEST_KEY).contains(&key.len()) && key.iter().all(allowed)
}

/// Whether a value is nobody's business but its reader's.
fn is_secret(key: &str) -> bool {
    matches!(key, "authorization" | "cookie") || key.ends_with("-token") || key.ends_with("-secret")
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (key, value) in self.iter() {
            match std::str::from_utf8(value) {
                _ if is_secret(key) => map.entry(&key, &format_args!("***")),
                Ok(text) => map.entry(&key, &text),
                Err(_) => map.entry(&key, &format_args!("{} bytes", value.len())),
            };
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[(&str, &[u8])]) -> Metadata {
        let mut metadata = Metadata::new();
        for (key, value) in pairs {
            metadata.insert(key, value).unwrap();
        }
        metadata
    }

    fn pairs(metadata: &Metadata) -> Vec<(&str, &[u8])> {
        metadata.iter().collect()
    }

    #[test]
    fn a_key_stands_once_and_keeps_its_place() {
        let mut metadata = of(&[("a", b"1"), ("b", b"2"), ("c", b"")]);
        metadata.insert("b", vec![7; 300]).unwrap();
        assert_eq!(pairs(&metadata), [("a", &b"1"[..]), ("b", &[7; 300]), ("c", b"")]);
        assert!(metadata.remove("a") && !metadata.remove("a"));
        assert_eq!((metadata.len(), metadata.get("a"), metadata.get_text("c")), (2, None, Some("")));
        assert_eq!(metadata.get_text("b").map(str::len), Some(300));
        metadata.insert("b", [0xFF]).unwrap();
        assert_eq!((metadata.get("b"), metadata.get_text("b")), (Some(&[0xFF][..]), None));
        assert!(metadata.remove("b") && metadata.remove("c") && metadata.is_empty());
        assert_eq!(metadata.encoded(), b"");
    }

    #[test]
    fn a_key_is_of_few_characters_and_neither_empty_nor_long() {
        for (len, ok) in [(0, false), (1, true), (LONGEST_KEY - 1, true), (LONGEST_KEY, true), (LONGEST_KEY + 1, false)] {
            assert_eq!(Metadata::new().insert(&"k".repeat(len), "").is_ok(), ok, "{len}");
        }
        for key in ["Key", "k y", "kéy", "k\n", "k=v", "k\0"] {
            let error = Metadata::new().insert(key, "").unwrap_err();
            assert_eq!((error.clone(), error.code()), (MetadataError::Key { key: key.into() }, Code::BAD_ARGUMENTS));
        }
        Metadata::new().insert("az09-_.", "").unwrap();
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = ["authorization", "cookie", "x-token", "db-secret"];
        let mut metadata = of(&keys.map(|key| (key, &b"hush"[..])));
        metadata.insert("token-count", "3").unwrap();
        metadata.insert("raw", [0xFF, 0]).unwrap();
        let shown = format!("{metadata:?}");
        assert!(!shown.contains("hush") && keys.iter().all(|key| shown.contains(key)), "{shown}");
        assert!(shown.contains(r#""token-count": "3""#) && shown.contains(r#""raw": 2 bytes"#), "{shown}");
    }

    #[test]
    fn the_limits_hold_for_both_sides_at_the_byte_and_at_the_pair() {
        let metadata = of(&[("first", b"1"), ("second", b"22"), ("third", b"333")]);
        let (bytes, entries) = (metadata.encoded().len(), metadata.len());
        for (bytes, entries, ok) in [
            (bytes - 1, entries, false),
            (bytes, entries, true),
            (bytes + 1, entries, true),
            (bytes, entries - 1, false),
            (bytes, entries + 1, true),
        ] {
            let (sent, read) = (metadata.check(bytes, entries), Metadata::read(metadata.encoded(), bytes, entries));
            assert_eq!((sent.is_ok(), read.is_ok()), (ok, ok), "{bytes} bytes, {entries} entries");
            assert_eq!(sent.err(), read.err());
        }
        let error = metadata.check(bytes - 1, entries).unwrap_err();
        assert_eq!(
            (&error, error.code()),
            (&MetadataError::TooLarge { key: "third".into(), size: 28, most: 27 }, Code::TOO_LARGE)
        );
        assert_eq!(metadata.check(99, 1), Err(MetadataError::TooMany { key: "second".into(), most: 1 }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bytes in
            [&b"\x01"[..], b"\x01a", b"\x01a\x05x", b"\x00\x00", b"\x01A\x00", b"\x01a\x00\x01a\x00", b"\x40\x01a\x00", b"\xff"]
        {
            let error = Metadata::read(bytes, 1000, 10).unwrap_err();
            assert!(matches!(error, MetadataError::Malformed(_)), "{bytes:?}: {error}");
        }
        // A length that no memory holds allocates none.
        assert!(Metadata::read(b"\xff\xff\xff\xff\xff\xff\xff\xff", 1000, 10).is_err());
    }

    proptest! {
        #[test]
        fn metadata_read_back(pairs in proptest::collection::vec(("[a-z0-9._-]{1,20}", any::<Vec<u8>>()), 0..20)) {
            let mut metadata = Metadata::new();
            let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
            for (key, value) in pairs {
                metadata.insert(&key, &value).unwrap();
                match expected.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, old)) => *old = value,
                    None => expected.push((key, value)),
                }
            }
            let read = Metadata::read(metadata.encoded(), usize::MAX, 20).unwrap();
            prop_assert_eq!(&read, &metadata);
            prop_assert_eq!(read.len(), expected.len());
            let found: Vec<_> = read.iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            if let Ok(metadata) = Metadata::read(&bytes, 100, 10) {
                prop_assert_eq!(metadata.encoded(), &bytes[..]);
                prop_assert_eq!(metadata.iter().count(), metadata.len());
            }
        }
    }
}
