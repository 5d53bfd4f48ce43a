//! The newtypes in which strings and bytes travel.
//!
//! serde sees a `Vec<u8>` as a sequence of numbers and visits it element by element; these
//! wrappers hand it over as one piece. [`Str`] and [`ByteSlice`] borrow from the frame when the
//! codec can lend, and own otherwise, so that a service's `&str` argument costs no copy.
//! On the wire each looks as what it wraps.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A string that borrows from the message when it can.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Str<'de>(Cow<'de, str>);

/// Bytes that borrow from the message when they can.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteSlice<'de>(Cow<'de, [u8]>);

/// Owned bytes, read and written as one piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteVec(pub Vec<u8>);

/// Owned bytes or nothing, read and written as one piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct OptByteVec(pub Option<Vec<u8>>);

/// Borrowed bytes, written as one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BytesRef<'a>(pub &'a [u8]);

impl<'de> Str<'de> {
    /// The string as it is held: `Borrowed` if the codec could lend it.
    #[must_use]
    pub fn into_inner(self) -> Cow<'de, str> {
        self.0
    }
}

impl<'de> ByteSlice<'de> {
    /// The bytes as they are held: `Borrowed` if the codec could lend them.
    #[must_use]
    pub fn into_inner(self) -> Cow<'de, [u8]> {
        self.0
    }
}

impl Deref for Str<'_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for ByteSlice<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> From<&'de str> for Str<'de> {
    #[inline]
    fn from(text: &'de str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'de> From<&'de [u8]> for ByteSlice<'de> {
    #[inline]
    fn from(bytes: &'de [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for ByteVec {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<ByteVec> for Vec<u8> {
    #[inline]
    fn from(bytes: ByteVec) -> Self {
        bytes.0
    }
}

impl From<Option<Vec<u8>>> for OptByteVec {
    #[inline]
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl From<OptByteVec> for Option<Vec<u8>> {
    #[inline]
    fn from(bytes: OptByteVec) -> Self {
        bytes.0
    }
}

impl Serialize for Str<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl Serialize for ByteSlice<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl Serialize for ByteVec {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl Serialize for OptByteVec {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(bytes) => serializer.serialize_some(&BytesRef(bytes)),
            None => serializer.serialize_none(),
        }
    }
}

impl Serialize for BytesRef<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Str<'de> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StrVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for ByteSlice<'de> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor(PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for ByteVec {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor(PhantomData)).map(|bytes| Self(bytes.into_owned()))
    }
}

impl<'de> Deserialize<'de> for OptByteVec {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Option::<ByteVec>::deserialize(deserializer)?;
        Ok(Self(bytes.map(Vec::from)))
    }
}

struct StrVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for StrVisitor<'a> {
    type Value = Str<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Str(Cow::Borrowed(text)))
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Str(Cow::Owned(text.to_owned())))
    }

    #[inline]
    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Str(Cow::Owned(text)))
    }
}

struct BytesVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for BytesVisitor<'a> {
    type Value = Cow<'a, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    #[inline]
    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    #[inline]
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }

    #[inline]
    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes))
    }

    /// Formats without bytes of their own, such as JSON, write them as numbers. The length is the
    /// peer's word, so nothing is reserved for it.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(Cow::Owned(bytes))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::{BytesDeserializer, Error as ValueError, SeqDeserializer};

    use super::super::{Codec, DecodeLimits};
    use super::*;

    const MIB: usize = 1 << 20;

    fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        Codec::Postcard.encode(value, &mut out).unwrap();
        out
    }

    fn within<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> T {
        Codec::Postcard.decode(bytes, Some(&DecodeLimits::default())).unwrap()
    }

    /// One element would be one too many: what decodes under this came as one piece.
    fn in_one_piece<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> T {
        Codec::Postcard.decode(bytes, Some(&DecodeLimits::default().max_items(0))).unwrap()
    }

    #[test]
    fn wrappers_look_on_the_wire_as_what_they_wrap() {
        let bytes = [0u8, 127, 128, 255];
        let plain = encoded(bytes.as_slice());
        assert_eq!(encoded(&BytesRef(&bytes)), plain);
        assert_eq!(encoded(&ByteVec(bytes.to_vec())), plain);
        assert_eq!(encoded(&ByteSlice::from(bytes.as_slice())), plain);
        assert_eq!(encoded(&Str::from("ab")), encoded("ab"));
        assert_eq!(encoded(&OptByteVec(Some(bytes.to_vec()))), encoded(&Some(bytes.to_vec())));
        assert_eq!(encoded(&OptByteVec(None)), [0]);
    }

    #[test]
    fn a_string_stays_borrowed() {
        let bytes = encoded("grüße");
        for limits in [None, Some(&DecodeLimits::default())] {
            let text: Str<'_> = Codec::Postcard.decode(&bytes, limits).unwrap();
            assert_eq!(&*text, "grüße");
            assert_eq!(text.as_ptr(), bytes[1..].as_ptr());
            assert!(matches!(text.into_inner(), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn bytes_stay_borrowed() {
        let bytes = encoded(&BytesRef(b"abc"));
        for limits in [None, Some(&DecodeLimits::default())] {
            let slice: ByteSlice<'_> = Codec::Postcard.decode(&bytes, limits).unwrap();
            assert_eq!(&*slice, b"abc");
            assert!(matches!(slice.into_inner(), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn plain_references_borrow_through_the_limits() {
        let bytes = encoded(&("ab", BytesRef(b"cd"), Some("ef")));
        let (text, raw, some): (&str, &[u8], Option<&str>) = within(&bytes);
        assert_eq!((text, raw, some), ("ab", b"cd".as_slice(), Some("ef")));
        assert_eq!(text.as_ptr(), bytes[1..].as_ptr());
    }

    #[test]
    fn borrowing_works_inside_a_tuple_of_arguments() {
        let bytes = encoded(&(7u8, "key", BytesRef(b"value")));
        let (number, key, value): (u8, Str<'_>, ByteSlice<'_>) = within(&bytes);
        assert_eq!((number, &*key, &*value), (7, "key", b"value".as_slice()));
    }

    #[test]
    fn strings_and_bytes_own_when_the_format_cannot_lend() {
        let text = Str::deserialize(IntoDeserializer::<ValueError>::into_deserializer(String::from("x"))).unwrap();
        assert!(matches!(text.into_inner(), Cow::Owned(text) if text == "x"));
        let numbers = SeqDeserializer::<_, ValueError>::new([1u8, 2].into_iter());
        let bytes = ByteSlice::deserialize(numbers).unwrap();
        assert!(matches!(bytes.into_inner(), Cow::Owned(bytes) if bytes == [1, 2]));
    }

    #[test]
    fn a_mebibyte_arrives_in_one_piece() {
        let payload = vec![0xa5; MIB];
        let bytes = encoded(&BytesRef(&payload));
        assert_eq!(in_one_piece::<ByteVec>(&bytes).0, payload);
        assert_eq!(&*in_one_piece::<ByteSlice<'_>>(&bytes), payload);
        let some = encoded(&OptByteVec(Some(payload.clone())));
        assert_eq!(in_one_piece::<OptByteVec>(&some).0, Some(payload));
    }

    #[test]
    fn bytes_are_taken_from_a_single_visit() {
        let once = BytesDeserializer::<ValueError>::new(b"abc");
        assert_eq!(ByteVec::deserialize(once).unwrap().0, b"abc");
    }

    /// Watches in what pieces postcard hands bytes on: the largest one.
    struct LargestPiece(usize);

    impl postcard::ser_flavors::Flavor for LargestPiece {
        type Output = usize;

        fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
            self.0 = self.0.max(data.len());
            Ok(())
        }

        fn try_push(&mut self, _: u8) -> postcard::Result<()> {
            Ok(())
        }

        fn finalize(self) -> postcard::Result<usize> {
            Ok(self.0)
        }
    }

    fn largest_piece<T: Serialize>(value: &T) -> usize {
        postcard::serialize_with_flavor(value, LargestPiece(0)).unwrap()
    }

    #[test]
    fn a_mebibyte_leaves_in_one_piece() {
        let payload = vec![0xa5; MIB];
        assert_eq!(largest_piece(&BytesRef(&payload)), MIB);
        assert_eq!(largest_piece(&ByteSlice::from(payload.as_slice())), MIB);
        assert!(largest_piece(&payload) < MIB, "the wrappers would be needless");
        assert_eq!(largest_piece(&ByteVec(payload.clone())), MIB);
        assert_eq!(largest_piece(&OptByteVec(Some(payload))), MIB);
    }
}
