//! Turning values into bytes and back: what travels inside a message body.
//!
//! A [`Codec`] names a serde format. The bytes come from a peer, so decoding is done within
//! [`DecodeLimits`] unless the caller says that the peer is trusted:
//!
//! ```text
//!   T: Serialize ──► codec::postcard ──► appended to the caller's buffer
//!   frame bytes  ──► codec::postcard ──► codec::limit ──► T: Deserialize (may borrow the frame)
//! ```
//!
//! * `postcard`: the one format of today;
//! * `limit`: a wrapper around any serde `Deserializer` that counts what a message makes us do;
//! * [`wire`]: the newtypes in which strings and bytes travel.
//!
//! Floor 0: imports nothing of this crate. No clock, no I/O.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

mod limit;
mod postcard;
pub mod wire;

pub use limit::{DecodeLimits, Limit, LimitExceeded};

/// The format of message bodies. Both sides of a session use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// [postcard](https://postcard.jamesmunns.com): compact, not self-describing.
    #[default]
    Postcard,
}

impl Codec {
    /// Every codec this build speaks, the preferred one first.
    pub const ALL: &'static [Self] = &[Self::Postcard];

    /// The number under which the codec is known on the wire.
    #[must_use]
    pub const fn wire_id(self) -> u8 {
        match self {
            Self::Postcard => 1,
        }
    }

    /// The codec behind a number from the wire, or `None` if this build does not speak it.
    #[must_use]
    pub const fn from_wire_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Postcard),
            _ => None,
        }
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
        }
    }
}

/// A value could not be turned into bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A sequence or map did not know its length before its first element.
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
    fn a_limit_error_names_the_limit_and_its_number() {
        let limits = DecodeLimits::default().max_items(3);
        let error = Codec::Postcard.decode::<Vec<u8>>(&[4, 1, 2, 3, 4], Some(&limits)).unwrap_err();
        assert!(matches!(error, DecodeError::Limit(exceeded) if exceeded.limit() == Limit::Items));
        assert!(error.to_string().contains("items"), "{error}");
        assert!(error.to_string().contains('3'), "{error}");
    }
}
