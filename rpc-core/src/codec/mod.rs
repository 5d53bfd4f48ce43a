//! Turning values into bytes and back: what travels inside a message body.
//!
//! A [`Codec`] names a serde format. The bytes come from a peer, so decoding is done within
//! [`DecodeLimits`] unless the caller says that the peer is trusted:
//!
//! ```text
//!   T: Serialize ──► codec::{postcard, json} ──► appended to the caller's buffer
//!   frame bytes  ──► codec::{postcard, json} ──► codec::limit ──► T: Deserialize (may borrow the frame)
//! ```
//!
//! * `postcard`, and with the feature `json` also `json`: the formats;
//! * `limit`: a wrapper around any serde `Deserializer` that counts what a message makes us do;
//! * [`wire`]: the newtypes in which strings and bytes travel;
//! * [`shared`]: bytes that are a part of their message instead of a copy.
//!
//! Imports nothing of this crate but the pool of buffers. No clock, no I/O.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

#[cfg(feature = "json")]
mod json;
mod limit;
mod postcard;
#[cfg(test)]
mod samples;
pub mod shared;
pub mod wire;

pub use limit::{DecodeLimits, Limit, LimitExceeded};

/// The format of message bodies. Both sides of a session use the same one: the first of the opener's list that both have.
///
/// The order of preference is an argument of `ConnectionBuilder::codecs`, `ServerBuilder::codecs` and
/// `SessionBuilder::codec`. Without them every codec of the build is offered, postcard first.
///
/// ```
/// use rpc_core::codec::Codec;
/// assert_eq!(Codec::ALL[0], Codec::Postcard);
/// assert_eq!(Codec::Postcard.to_string(), "postcard");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// [postcard](https://postcard.jamesmunns.com): compact, not self-describing.
    #[default]
    Postcard,
    /// [JSON](https://www.json.org) as `serde_json` writes it, with the feature `json`: for peers that have no postcard,
    /// and for people who read along. Several times as large and as slow.
    ///
    /// A struct is an object and a tuple an array; the arguments of a call are one array, or `null` where there are none.
    /// `Option` is the value or `null`. A unit variant is its name, any other an object of its name and its payload.
    /// Integers have all their digits, also 128 bits of them, and floats come back bit by bit. Bytes are an array of
    /// numbers, 3.6 bytes for each on average; a string is read as its bytes too. Keys of maps are strings: those of
    /// integers, floats, booleans, characters and unit variants are put into quotes.
    ///
    /// Values that JSON does not have are refused: a map whose keys are compound cannot be encoded, and NaN and the
    /// infinities are written as `null`, which does not decode as a float. One pair of values it cannot tell apart:
    /// `Some(None)` arrives as `None`, and so does `Some(())`.
    #[cfg(feature = "json")]
    Json,
}

/// Every codec of the protocol by number, those that this build leaves out too: a refusal names them (docs/PROTOCOL.md §4.4).
const NAMES: &[(u8, &str)] = &[(1, "postcard"), (2, "json")];

/// The most codecs that a list for people shows: it may be a peer's, which is as long as the peer likes.
const MOST_SHOWN: usize = 16;

impl Codec {
    /// Every codec this build speaks, the preferred one first.
    pub const ALL: &'static [Self] = &[
        Self::Postcard,
        #[cfg(feature = "json")]
        Self::Json,
    ];

    /// The number under which the codec is known on the wire.
    #[must_use]
    pub const fn wire_id(self) -> u8 {
        match self {
            Self::Postcard => 1,
            #[cfg(feature = "json")]
            Self::Json => 2,
        }
    }

    /// The codec behind a number from the wire, or `None` if this build does not speak it.
    #[must_use]
    pub const fn from_wire_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Postcard),
            #[cfg(feature = "json")]
            2 => Some(Self::Json),
            _ => None,
        }
    }

    /// The name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(self.wire_id()).unwrap_or_default()
    }

    /// Checks a list of codecs, in order of preference, and returns their numbers.
    ///
    /// # Errors
    /// A sentence that names the fault of `argument` and the fix: the list is empty, or has a codec twice.
    pub fn offer(argument: &str, codecs: &[Self]) -> Result<Vec<u8>, String> {
        if codecs.is_empty() {
            let all: Vec<u8> = Self::ALL.iter().map(|codec| codec.wire_id()).collect();
            return Err(format!("{argument} is empty; give it at least one of: {}", listed(&all)));
        }
        let mut offered = Vec::new();
        for codec in codecs {
            if offered.contains(&codec.wire_id()) {
                return Err(format!("{argument} has {codec} twice; name each codec once"));
            }
            offered.push(codec.wire_id());
        }
        Ok(offered)
    }

    /// Appends `value` to `out`.
    ///
    /// # Errors
    ///
    /// When the value cannot be expressed in this codec; `out` is then as long as it was before.
    #[inline]
    pub fn encode<T>(self, value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError>
    where
        T: Serialize + ?Sized,
    {
        match self {
            Self::Postcard => postcard::encode(value, out),
            #[cfg(feature = "json")]
            Self::Json => json::encode(value, out),
        }
    }

    /// Reads one value that fills `bytes` exactly. `None` for `limits` is for trusted peers only:
    /// a message of a few bytes can then cost any amount of time, memory and stack.
    ///
    /// # Errors
    ///
    /// When the bytes are not a `T`, when some are left over, or when `T` passes a limit.
    #[inline]
    pub fn decode<'de, T>(self, bytes: &'de [u8], limits: Option<&DecodeLimits>) -> Result<T, DecodeError>
    where
        T: Deserialize<'de>,
    {
        match (self, limits) {
            (Self::Postcard, None) => postcard::decode(bytes),
            (Self::Postcard, Some(limits)) => postcard::decode_within(bytes, limits),
            #[cfg(feature = "json")]
            (Self::Json, limits) => json::decode(bytes, limits),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn name_of(id: u8) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == id).map(|(_, name)| *name)
}

/// Codecs by number as a person reads them: by name, or as numbers where the protocol has no name for them.
fn listed(ids: &[u8]) -> String {
    let mut names: Vec<Cow<'_, str>> =
        ids.iter().take(MOST_SHOWN).map(|id| name_of(*id).map_or_else(|| id.to_string().into(), Cow::Borrowed)).collect();
    match ids.len().saturating_sub(MOST_SHOWN) {
        0 if ids.is_empty() => "none".to_owned(),
        0 => names.join(", "),
        more => {
            names.push(format!("{more} more").into());
            names.join(", ")
        }
    }
}

/// Why two sides cannot talk, for people on both: which codecs, by number, each of them would take.
#[must_use]
pub fn nothing_in_common(client: &[u8], server: &[u8]) -> String {
    format!("the client has {}, the server has {}", listed(client), listed(server))
}

/// A value could not be turned into bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A sequence or map did not know its length before its first element, which postcard needs.
    #[error("a sequence or map of unknown length cannot be encoded")]
    UnknownLength,
    /// The `Serialize` implementation gave up, or asked for something the codec does not have.
    #[error("the value cannot be encoded: {reason}")]
    Unsupported {
        /// What was wrong, as far as the codec says.
        reason: Cow<'static, str>,
    },
}

/// Bytes from a peer could not be turned into a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not a value of the expected type.
    #[error("the bytes are not a value of the expected type: {reason}")]
    Malformed {
        /// What was wrong, as far as the codec says.
        reason: Cow<'static, str>,
    },
    /// The value ended before the bytes did.
    #[error("the value is followed by {left_bytes} bytes that belong to nothing")]
    TrailingBytes {
        /// How many bytes are left.
        left_bytes: usize,
    },
    /// The value would have cost more than [`DecodeLimits`] allows.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_ids_lead_back_to_their_codec() {
        for &codec in Codec::ALL {
            assert_eq!(Codec::from_wire_id(codec.wire_id()), Some(codec));
        }
        assert_eq!(Codec::Postcard.wire_id(), 1);
    }

    #[test]
    fn unknown_wire_ids_are_no_codec() {
        assert_eq!(Codec::from_wire_id(0), None);
        assert_eq!(Codec::from_wire_id(255), None);
    }

    #[test]
    fn every_codec_has_a_name() {
        assert_eq!(Codec::Postcard.name(), "postcard");
        for codec in Codec::ALL {
            assert!(!codec.name().is_empty(), "{codec:?}");
        }
    }

    #[test]
    fn a_list_of_codecs_is_neither_empty_nor_double() {
        assert_eq!(Codec::offer("X::codecs", Codec::ALL).unwrap().len(), Codec::ALL.len());
        let error = Codec::offer("X::codecs", &[]).unwrap_err();
        assert!(error.starts_with("X::codecs is empty; give it at least one of: postcard"), "{error}");
        let error = Codec::offer("X::codecs", &[Codec::Postcard, Codec::Postcard]).unwrap_err();
        assert_eq!(error, "X::codecs has postcard twice; name each codec once");
    }

    #[test]
    fn lists_show_names_and_unknown_numbers_and_stay_short() {
        assert_eq!(nothing_in_common(&[2, 1], &[7]), "the client has json, postcard, the server has 7");
        assert_eq!(nothing_in_common(&[], &[1]), "the client has none, the server has postcard");
        let many = nothing_in_common(&[9; 100_000], &[1]);
        assert!(many.contains(", 9, 99984 more, the server") && many.len() < 200, "{many}");
    }

    #[test]
    fn a_limit_error_names_the_limit_and_its_number() {
        let limits = DecodeLimits::default().max_items(3);
        let error = Codec::Postcard.decode::<Vec<u8>>(&[4, 1, 2, 3, 4], Some(&limits)).unwrap_err();
        assert!(matches!(error, DecodeError::Limit(exceeded) if exceeded.limit() == Limit::Items));
        assert!(error.to_string().contains("items"), "{error}");
        assert!(error.to_string().contains('3'), "{error}");
    }
}
