//! The postcard format: appends in place, reads in place.
//!
//! The one file that names the `postcard` crate; its errors are put into our own words here, so
//! that the crate does not show in the public interface.

use ::postcard::{Deserializer, de_flavors, ser_flavors};
use serde::{Deserialize, Serialize};

use super::limit::{self, Stopped};
use super::{DecodeError, DecodeLimits, EncodeError};
use crate::pool;

/// Room for what may follow a large piece of bytes.
const BEHIND: usize = 256;

#[inline]
pub(super) fn encode<T>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError>
where
    T: Serialize + ?Sized,
{
    let start = out.len();
    ::postcard::serialize_with_flavor(value, Append(out)).map_err(|error| {
        // Half a value must not stay in a buffer that already holds other frames.
        out.truncate(start);
        encode_error(&error)
    })
}

#[inline]
pub(super) fn decode<'de, T>(bytes: &'de [u8]) -> Result<T, DecodeError>
where
    T: Deserialize<'de>,
{
    let mut source = Deserializer::from_bytes(bytes);
    let value = T::deserialize(&mut source).map_err(|error| malformed(&error))?;
    finish(source, value)
}

#[inline]
pub(super) fn decode_within<'de, T>(bytes: &'de [u8], limits: &DecodeLimits) -> Result<T, DecodeError>
where
    T: Deserialize<'de>,
{
    let mut source = Deserializer::from_bytes(bytes);
    let value = limit::decode_within(&mut source, limits, bytes.len()).map_err(|stopped| match stopped {
        Stopped::Limit(exceeded) => DecodeError::Limit(exceeded),
        Stopped::Inner(error) => malformed(&error),
    })?;
    finish(source, value)
}

#[inline]
fn finish<'de, T>(source: Deserializer<'de, de_flavors::Slice<'de>>, value: T) -> Result<T, DecodeError> {
    let left = source.finalize().map_err(|error| malformed(&error))?;
    if left.is_empty() { Ok(value) } else { Err(DecodeError::TrailingBytes { left_bytes: left.len() }) }
}

/// Appends to the caller's buffer, so that a body is written straight behind its header.
struct Append<'a>(&'a mut Vec<u8>);

impl ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, data: u8) -> ::postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> ::postcard::Result<()> {
        // Most integers and lengths are one byte, for which a call of memcpy costs more than the byte.
        if let [byte] = data {
            self.0.push(*byte);
            return Ok(());
        }
        if data.len() >= pool::LARGE_FROM && self.0.capacity() - self.0.len() < data.len() {
            make_room(self.0, data.len());
        }
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn finalize(self) -> ::postcard::Result<()> {
        Ok(())
    }
}

/// Moves what there is into a buffer that has room for `len` further bytes, from where large ones are kept. It is twice as large
/// at least, so that what has many large pieces is not moved for each of them.
#[cold]
fn make_room(out: &mut Vec<u8>, len: usize) {
    let mut larger = pool::large((out.len() + len + BEHIND).max(2 * out.capacity()));
    larger.extend_from_slice(out);
    pool::give(std::mem::replace(out, larger));
}

#[cold]
fn encode_error(error: &::postcard::Error) -> EncodeError {
    use ::postcard::Error as E;
    let reason = match error {
        E::SerializeSeqLengthUnknown => return EncodeError::UnknownLength,
        E::SerdeSerCustom => "its Serialize implementation failed",
        E::CollectStrError => "its Display implementation failed",
        _ => "postcard does not support it",
    };
    EncodeError::Unsupported { reason: reason.into() }
}

#[cold]
fn malformed(error: &::postcard::Error) -> DecodeError {
    use ::postcard::Error as E;
    let reason = match error {
        E::DeserializeUnexpectedEnd => "they end too early",
        E::DeserializeBadVarint => "an integer is too large",
        E::DeserializeBadBool => "a bool is neither 0 nor 1",
        E::DeserializeBadChar => "a char is no Unicode scalar value",
        E::DeserializeBadUtf8 => "a string is not UTF-8",
        E::DeserializeBadOption => "an option is neither 0 nor 1",
        E::SerdeDeCustom => "the type's Deserialize implementation refused them",
        E::WontImplement => "the type needs a self-describing codec, which postcard is not",
        _ => "they are not postcard",
    };
    DecodeError::Malformed { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde::ser::{SerializeSeq, Serializer};

    use super::super::Codec;
    use super::super::samples::{Everything, Failing, Newtype, Shape, Unit, everything, shape};
    use super::*;

    fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        Codec::Postcard.encode(value, &mut out).unwrap();
        out
    }

    /// Both ways of decoding, and the crate's own encoder as the judge of the bytes.
    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let bytes = encoded(value);
        assert_eq!(bytes, ::postcard::to_stdvec(value).unwrap());
        assert_eq!(&Codec::Postcard.decode::<T>(&bytes, None).unwrap(), value, "without limits");
        assert_eq!(&Codec::Postcard.decode::<T>(&bytes, Some(&DecodeLimits::default())).unwrap(), value, "within limits");
    }

    #[test]
    fn many_large_pieces_are_not_moved_for_each_of_them() {
        use ser_flavors::Flavor;
        let (mut out, mut moves, piece) = (Vec::new(), 0, vec![7; pool::LARGE_FROM]);
        for count in 1..=64 {
            let before = out.capacity();
            Append(&mut out).try_extend(&piece).unwrap();
            moves += usize::from(out.capacity() != before);
            assert_eq!(out.len(), count * piece.len());
        }
        assert!(moves <= 8, "{moves} times");
        assert!(out.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn every_shape_comes_back_as_it_was() {
        round_trip(&everything());
        round_trip(&());
        round_trip(&(1u8,));
        round_trip(&Option::<Option<u8>>::Some(None));
        round_trip(&Unit);
        round_trip(&Newtype(u32::MAX));
    }

    #[test]
    fn unsized_values_encode() {
        assert_eq!(encoded("ab"), [2, b'a', b'b']);
        assert_eq!(encoded([1u16, 300].as_slice()), [2, 1, 0xac, 2]);
    }

    #[test]
    fn encoding_appends_behind_what_is_there() {
        let mut out = vec![9, 9];
        Codec::Postcard.encode(&(1u8, "x"), &mut out).unwrap();
        assert_eq!(out, [9, 9, 1, 1, b'x']);
    }

    #[test]
    fn encoding_into_a_large_enough_buffer_does_not_move_it() {
        let mut out = Vec::with_capacity(4096);
        let before = out.as_ptr();
        Codec::Postcard.encode(&everything(), &mut out).unwrap();
        assert_eq!(out.as_ptr(), before);
    }

    struct Endless;

    impl Serialize for Endless {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_seq(None)?.end()
        }
    }

    #[test]
    fn a_failed_encoding_leaves_the_buffer_as_it_was() {
        let mut out = vec![7];
        let error = Codec::Postcard.encode(&("before", Failing), &mut out).unwrap_err();
        assert!(matches!(error, EncodeError::Unsupported { .. }), "{error}");
        assert_eq!(out, [7]);
    }

    #[test]
    fn a_sequence_of_unknown_length_is_an_error() {
        let mut out = Vec::new();
        assert_eq!(Codec::Postcard.encode(&Endless, &mut out), Err(EncodeError::UnknownLength));
    }

    #[test]
    fn trailing_bytes_are_an_error_with_and_without_limits() {
        for limits in [None, Some(&DecodeLimits::default())] {
            assert_eq!(Codec::Postcard.decode::<u8>(&[1, 2, 3], limits), Err(DecodeError::TrailingBytes { left_bytes: 2 }));
            assert_eq!(Codec::Postcard.decode::<()>(&[0], limits), Err(DecodeError::TrailingBytes { left_bytes: 1 }));
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encoded(&everything());
        for end in 0..bytes.len() {
            for limits in [None, Some(&DecodeLimits::default())] {
                let result = Codec::Postcard.decode::<Everything>(&bytes[..end], limits);
                assert!(matches!(result, Err(DecodeError::Malformed { .. })), "cut at {end}: {result:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_tree_comes_back_as_it_was(tree in proptest::collection::vec(shape(), 0..6)) {
            round_trip(&tree);
        }

        #[test]
        fn any_scalars_come_back_as_they_were(
            value in any::<(bool, i8, i16, i32, i64, i128, char, String, Option<u64>)>(),
            map in proptest::collection::btree_map(any::<u16>(), any::<Vec<u32>>(), 0..9),
        ) {
            round_trip(&value);
            round_trip(&map);
        }

        /// Limits change what is refused, never what a message means.
        #[test]
        fn any_bytes_decode_alike_with_and_without_limits(
            bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..60),
        ) {
            let free = Codec::Postcard.decode::<Vec<Shape>>(&bytes, None);
            let limited = Codec::Postcard.decode::<Vec<Shape>>(&bytes, Some(&DecodeLimits::default()));
            prop_assert_eq!(free, limited);
        }
    }
}
