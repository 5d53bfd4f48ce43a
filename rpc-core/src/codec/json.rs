//! The JSON format: appends in place, reads in place, lends strings that have no escapes.
//!
//! The one file that names the `serde_json` crate; its errors are put into our own words here, so
//! that the crate does not show in the public interface.

use ::serde_json::{Deserializer, Error, error::Category};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::limit::{self, Stopped};
use super::{DecodeError, DecodeLimits, EncodeError};

/// The longest text of an error, in bytes: `serde_json` quotes strings of the peer's, however long they are.
const MAX_WORDS: usize = 256;

#[inline]
pub(super) fn encode<T>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError>
where
    T: Serialize + ?Sized,
{
    let start = out.len();
    ::serde_json::to_writer(&mut *out, value).map_err(|error| {
        // Half a value must not stay in a buffer that already holds other frames.
        out.truncate(start);
        EncodeError::Unsupported { reason: words(&error).into() }
    })
}

#[inline]
pub(super) fn decode<'de, T>(bytes: &'de [u8], limits: Option<&DecodeLimits>) -> Result<T, DecodeError>
where
    T: Deserialize<'de>,
{
    let mut source = Deserializer::from_slice(bytes);
    // It knows no other recursion than by the visitors it is given, each of which the limits count as a level. With a
    // second limit of its own, some types would nest half as deep as under other codecs, and trust would not lift it.
    source.disable_recursion_limit();
    let value = match limits {
        None => T::deserialize(&mut source).map_err(|error| malformed(&error))?,
        Some(limits) => limit::decode_within(&mut source, limits, bytes.len()).map_err(|stopped| match stopped {
            Stopped::Limit(exceeded) => DecodeError::Limit(exceeded),
            Stopped::Inner(error) => malformed(&error),
        })?,
    };
    if source.end().is_ok() {
        return Ok(value);
    }
    let read = source.into_iter::<IgnoredAny>().byte_offset();
    Err(DecodeError::TrailingBytes { left_bytes: bytes.len() - read })
}

#[cold]
fn malformed(error: &Error) -> DecodeError {
    let reason = match error.classify() {
        Category::Eof => "they end too early".into(),
        _ => words(error).into(),
    };
    DecodeError::Malformed { reason }
}

#[cold]
fn words(error: &Error) -> String {
    let mut words = error.to_string();
    let mut end = words.len().min(MAX_WORDS);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words.truncate(end);
    words
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::{BTreeMap, HashMap};
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::super::samples::{Everything, Failing, Newtype, Shape, Unit, everything, shape};
    use super::super::wire::{ByteSlice, ByteVec, BytesRef, OptByteVec, Str};
    use super::super::{Codec, Limit};
    use super::*;
    use crate::status::Never;

    fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        Codec::Json.encode(value, &mut out).unwrap();
        out
    }

    #[track_caller]
    fn looks<T: Serialize + ?Sized>(value: &T, expected: &str) {
        assert_eq!(String::from_utf8(encoded(value)).unwrap(), expected);
    }

    fn within<'de, T: Deserialize<'de>>(text: &'de str, limits: &DecodeLimits) -> Result<T, DecodeError> {
        Codec::Json.decode(text.as_bytes(), Some(limits))
    }

    /// With and without limits, which must agree.
    fn both<'de, T: Deserialize<'de> + PartialEq + Debug>(text: &'de str) -> Result<T, DecodeError> {
        let limited = within(text, &DecodeLimits::default());
        assert_eq!(Codec::Json.decode(text.as_bytes(), None), limited);
        limited
    }

    /// The limit that `text` runs into as a `T`, with its number.
    #[track_caller]
    fn refused<'de, T: Deserialize<'de>>(text: &'de str, limits: &DecodeLimits) -> (Limit, usize) {
        match within::<T>(text, limits) {
            Err(DecodeError::Limit(exceeded)) => (exceeded.limit(), exceeded.max()),
            Err(other) => panic!("refused for another reason: {other}"),
            Ok(_) => panic!("accepted"),
        }
    }

    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let bytes = encoded(value);
        assert_eq!(&Codec::Json.decode::<T>(&bytes, None).unwrap(), value, "without limits");
        assert_eq!(&Codec::Json.decode::<T>(&bytes, Some(&DecodeLimits::default())).unwrap(), value, "within limits");
    }

    // What it looks like

    #[test]
    fn every_shape_comes_back_as_it_was() {
        round_trip(&everything());
        round_trip(&());
        round_trip(&(1u8,));
        round_trip(&Unit);
        round_trip(&Newtype(u32::MAX));
    }

    #[test]
    fn arguments_are_an_array_and_none_of_them_is_null() {
        looks(&(), "null");
        looks(&("key",), r#"["key"]"#);
        looks(&("key", 7u8, Some(true)), r#"["key",7,true]"#);
    }

    #[test]
    fn a_variant_is_its_name_or_an_object_of_its_name() {
        looks(&Shape::Unit, r#""Unit""#);
        looks(&Shape::Newtype(Box::new(Shape::Unit)), r#"{"Newtype":"Unit"}"#);
        looks(&Shape::Tuple(1, vec![Shape::Unit]), r#"{"Tuple":[1,["Unit"]]}"#);
        looks(&Shape::Struct { name: "n".into(), next: None }, r#"{"Struct":{"name":"n","next":null}}"#);
    }

    #[test]
    fn bytes_are_numbers_and_a_string_is_read_as_its_bytes() {
        let bytes = [0u8, 127, 128, 255];
        looks(&BytesRef(&bytes), "[0,127,128,255]");
        looks(&ByteVec(bytes.to_vec()), "[0,127,128,255]");
        looks(&ByteSlice::from(bytes.as_slice()), "[0,127,128,255]");
        looks(&OptByteVec(None), "null");
        assert_eq!(&*both::<ByteSlice<'_>>("[0,127,128,255]").unwrap(), bytes);
        assert_eq!(both::<OptByteVec>("[1]").unwrap().0, Some(vec![1]));
        assert_eq!(both::<ByteVec>(r#""ab""#).unwrap().0, b"ab");
        for wrong in ["[256]", "[-1]", "[1.5]", "[null]", r#"["a"]"#, "{}", "null", "7"] {
            assert!(matches!(both::<ByteVec>(wrong), Err(DecodeError::Malformed { .. })), "{wrong}");
        }
    }

    #[test]
    fn keys_are_strings_where_they_can_be_and_refused_where_not() {
        looks(&BTreeMap::from([(-1i64, 'a')]), r#"{"-1":"a"}"#);
        looks(&BTreeMap::from([(u128::MAX, ())]), r#"{"340282366920938463463374607431768211455":null}"#);
        looks(&BTreeMap::from([(true, 1)]), r#"{"true":1}"#);
        round_trip(&BTreeMap::from([(i128::MIN, 1u8), (i128::MAX, 2)]));
        round_trip(&BTreeMap::from([('"', true), ('\0', false)]));
        let mut out = b"before".to_vec();
        let error = Codec::Json.encode(&BTreeMap::from([((1u8, 2u8), 3u8)]), &mut out).unwrap_err();
        assert_eq!(error.to_string(), "the value cannot be encoded: key must be a string");
        assert_eq!(out, b"before");
    }

    #[test]
    fn floats_come_back_bit_by_bit_and_what_is_no_number_is_refused() {
        let edges =
            [0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::EPSILON, f64::MAX, f64::MIN, 0.1, 2.5e22, 9_007_199_254_740_993.0];
        for edge in edges {
            let back: f64 = Codec::Json.decode(&encoded(&edge), None).unwrap();
            assert_eq!(back.to_bits(), edge.to_bits(), "{edge}");
        }
        for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            looks(&none, "null");
        }
        assert!(matches!(both::<f64>("null"), Err(DecodeError::Malformed { .. })));
        assert!(matches!(both::<f64>("1e999"), Err(DecodeError::Malformed { .. })));
    }

    #[test]
    fn an_option_within_an_option_loses_its_inner_none() {
        looks(&Some(Option::<u8>::None), "null");
        assert_eq!(both::<Option<Option<u8>>>("null").unwrap(), None);
        round_trip(&Some(Some(7u8)));
    }

    #[test]
    fn integers_that_do_not_fit_are_refused() {
        assert_eq!(both::<u64>("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(both::<i128>("-170141183460469231731687303715884105728").unwrap(), i128::MIN);
        for wrong in ["18446744073709551616", "-1", "1.0", "1e3", "\"1\"", "01", "+1", ""] {
            assert!(matches!(both::<u64>(wrong), Err(DecodeError::Malformed { .. })), "{wrong}");
        }
        assert!(both::<i128>("170141183460469231731687303715884105728").is_err());
        assert!(both::<u128>("340282366920938463463374607431768211456").is_err());
    }

    #[test]
    fn fields_come_in_any_order_and_unknown_ones_are_passed_over() {
        let shape = Shape::Struct { name: "n".into(), next: None };
        assert_eq!(both::<Shape>(r#" {"Struct": {"new": [{"a": [[]]}], "next": null, "name": "n"} } "#).unwrap(), shape);
        assert!(both::<Shape>(r#"{"Struct":{"name":"n","name":"n"}}"#).is_err());
        assert!(both::<Shape>(r#"{"Unit":null,"Unit":null}"#).is_err());
    }

    #[test]
    fn never_is_refused_with_its_own_words() {
        let expected = DecodeError::Malformed { reason: "the method has no application error".into() };
        assert_eq!(both::<Never>("null"), Err(expected.clone()));
        assert_eq!(both::<Never>(r#"{"a":1}"#), Err(expected));
    }

    // Borrowing

    #[test]
    fn a_string_stays_borrowed_unless_it_has_escapes() {
        let plain = encoded("grüße 🦀");
        for limits in [None, Some(&DecodeLimits::default())] {
            let text: Str<'_> = Codec::Json.decode(&plain, limits).unwrap();
            assert_eq!(text.as_ptr(), plain[1..].as_ptr());
            let text: Str<'_> = Codec::Json.decode(br#""a\"\\\n\u0000\ud83e\udd80""#, limits).unwrap();
            assert!(matches!(text.into_inner(), Cow::Owned(text) if text == "a\"\\\n\0🦀"));
        }
        let (number, key): (u8, Str<'_>) = both(r#"[7,"k\u00e9y"]"#).unwrap();
        assert_eq!((number, &*key), (7, "kéy"));
        for wrong in [r#""\ud83e""#, r#""\x""#, "\"\n\"", "\"\\u00\"", "\"a"] {
            assert!(both::<Str<'_>>(wrong).is_err(), "{wrong}");
        }
        assert!(Codec::Json.decode::<Str<'_>>(b"\"\xff\"", None).is_err(), "it is no UTF-8");
    }

    // Ends

    #[test]
    fn encoding_appends_and_a_failure_leaves_the_buffer_as_it_was() {
        let mut out = vec![9, 9];
        Codec::Json.encode(&(1u8, "x"), &mut out).unwrap();
        assert_eq!(out, b"\x09\x09[1,\"x\"]");
        let error = Codec::Json.encode(&("before", Failing), &mut out).unwrap_err();
        assert_eq!(error, EncodeError::Unsupported { reason: "no".into() });
        assert_eq!(out, b"\x09\x09[1,\"x\"]");
    }

    #[test]
    fn trailing_bytes_are_an_error_and_white_space_is_none() {
        assert_eq!(both::<u8>(" 1\r\n\t ").unwrap(), 1);
        assert_eq!(both::<u8>("1 2 "), Err(DecodeError::TrailingBytes { left_bytes: 2 }));
        assert_eq!(both::<()>("null]"), Err(DecodeError::TrailingBytes { left_bytes: 1 }));
        assert_eq!(both::<(u8,)>("[1][2]"), Err(DecodeError::TrailingBytes { left_bytes: 3 }));
        assert!(matches!(both::<(u8,)>("[1,2]"), Err(DecodeError::Malformed { .. })), "one argument too many");
        assert!(matches!(both::<(u8, u8)>("[1]"), Err(DecodeError::Malformed { .. })), "one too few");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encoded(&everything());
        for end in 0..bytes.len() {
            for limits in [None, Some(&DecodeLimits::default())] {
                let result = Codec::Json.decode::<Everything>(&bytes[..end], limits);
                assert!(matches!(result, Err(DecodeError::Malformed { .. })), "cut at {end}: {result:?}");
            }
        }
    }

    #[test]
    fn an_error_quotes_little_of_what_the_peer_sent() {
        let long = format!("\"{}\"", "ü".repeat(100_000));
        let Err(DecodeError::Malformed { reason }) = both::<u8>(&long) else { panic!("a string is no number") };
        assert!(reason.starts_with("invalid type: string \"üü") && reason.len() <= MAX_WORDS, "{reason}");
    }

    // Limits

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Chain {
        Leaf,
        Node(Box<Self>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Tree {
        kids: Vec<Self>,
    }

    /// As JSON has it, any value but `null` is another layer of it, without a byte of its own.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Linked(Option<Box<Self>>);

    fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
        [open.repeat(levels), inner.to_owned(), close.repeat(levels)].concat()
    }

    #[test]
    fn values_nest_64_deep_and_no_deeper_whatever_their_shape() {
        let limits = DecodeLimits::default();
        for levels in [62, 63] {
            within::<Chain>(&nested(levels, r#"{"Node":"#, r#""Leaf""#, "}"), &limits).unwrap();
        }
        assert_eq!(refused::<Chain>(&nested(64, r#"{"Node":"#, r#""Leaf""#, "}"), &limits), (Limit::Depth, 64));
        for levels in [30, 31] {
            within::<Tree>(&nested(levels, r#"{"kids":["#, r#"{"kids":[]}"#, "]}"), &limits).unwrap();
        }
        assert_eq!(refused::<Tree>(&nested(32, r#"{"kids":["#, r#"{"kids":[]}"#, "]}"), &limits), (Limit::Depth, 64));
        // An enum's payload belongs to it: two brackets of JSON are one level here, and one more is the list.
        for levels in [30, 31] {
            within::<Shape>(&nested(levels, r#"{"Tuple":[1,["#, r#"{"Tuple":[1,[]]}"#, "]]}"), &limits).unwrap();
        }
        assert_eq!(refused::<Shape>(&nested(32, r#"{"Tuple":[1,["#, r#""Unit""#, "]]}"), &limits), (Limit::Depth, 64));
    }

    #[test]
    fn a_megabyte_of_nesting_is_refused_before_the_stack_ends() {
        // A quarter of what a thread of tokio has.
        let bombs = || {
            let limits = DecodeLimits::default();
            assert_eq!(refused::<Chain>(&r#"{"Node":"#.repeat(1 << 17), &limits), (Limit::Depth, 64));
            assert_eq!(refused::<Tree>(&r#"{"kids":["#.repeat(1 << 17), &limits), (Limit::Depth, 64));
            assert_eq!(refused::<Shape>(&r#"{"Newtype":"#.repeat(1 << 17), &limits), (Limit::Depth, 64));
            assert_eq!(refused::<Shape>(&r#"{"Tuple":[1,["#.repeat(1 << 17), &limits), (Limit::Depth, 64));
            assert_eq!(refused::<Linked>("7", &limits), (Limit::Depth, 64));
            // What nobody reads is passed over without a stack, however deep.
            let unread = format!(r#"{{"kids":[],"new":{}}}"#, nested(1 << 19, "[", "", "]"));
            within::<Tree>(&unread, &limits).unwrap();
        };
        std::thread::Builder::new().stack_size(512 * 1024).spawn(bombs).unwrap().join().unwrap();
    }

    #[test]
    fn without_limits_nothing_but_the_stack_bounds_the_depth() {
        let deep = nested(500, r#"{"Node":"#, r#""Leaf""#, "}");
        assert!(matches!(within::<Chain>(&deep, &DecodeLimits::default()), Err(DecodeError::Limit(_))));
        Codec::Json.decode::<Chain>(deep.as_bytes(), None).unwrap();
        within::<Chain>(&deep, &DecodeLimits::default().max_depth(501)).unwrap();
    }

    #[test]
    fn the_items_limit_is_the_last_number_allowed() {
        let limits = DecodeLimits::default().max_items(3);
        for allowed in ["[1,2]", "[1,2,3]"] {
            within::<Vec<u8>>(allowed, &limits).unwrap();
            within::<ByteVec>(allowed, &limits).unwrap();
        }
        assert_eq!(refused::<Vec<u8>>("[1,2,3,4]", &limits), (Limit::Items, 3));
        assert_eq!(refused::<ByteVec>("[1,2,3,4]", &limits), (Limit::Items, 3));
        assert_eq!(refused::<Vec<()>>("[null,null,null,null]", &limits), (Limit::Items, 3));
        within::<HashMap<u8, u8>>(r#"{"1":1,"2":2,"3":3}"#, &limits).unwrap();
        assert_eq!(refused::<HashMap<u8, u8>>(r#"{"1":1,"2":2,"3":3,"3":3}"#, &limits), (Limit::Items, 3));
    }

    #[test]
    fn the_fields_of_an_object_are_items_because_the_peer_says_how_many() {
        let tree = r#"{"kids":[],"new":1}"#;
        within::<Tree>(tree, &DecodeLimits::default().max_items(2)).unwrap();
        assert_eq!(refused::<Tree>(tree, &DecodeLimits::default().max_items(1)), (Limit::Items, 1));
    }

    fn only_bytes(bytes: usize) -> DecodeLimits {
        DecodeLimits::default().floor_bytes(0).bytes_per_wire_byte(usize::MAX).max_bytes(bytes)
    }

    #[test]
    fn strings_pay_their_length_with_and_without_escapes() {
        for text in [r#""12345""#, r#""1\n3\u00345""#] {
            for enough in [5, 6] {
                within::<String>(text, &only_bytes(enough)).unwrap();
                within::<Str<'_>>(text, &only_bytes(enough)).unwrap();
            }
            assert_eq!(refused::<String>(text, &only_bytes(4)), (Limit::Bytes, 4));
            assert_eq!(refused::<Str<'_>>(text, &only_bytes(4)), (Limit::Bytes, 4));
        }
        for enough in [5, 6] {
            within::<ByteVec>("[1,2,3,4,5]", &only_bytes(enough)).unwrap();
        }
        assert_eq!(refused::<ByteVec>("[1,2,3,4,5]", &only_bytes(4)), (Limit::Bytes, 4));
    }

    #[test]
    fn a_number_of_a_million_digits_costs_no_more_than_its_digits() {
        let digits = "7".repeat(1 << 20);
        assert_eq!(both::<f64>(&format!("0.{digits}")).unwrap(), 7.0 / 9.0);
        assert_eq!(both::<f64>(&format!("{digits}e-{}", 1 << 20)).unwrap(), 7.0 / 9.0);
        for wrong in [digits.clone(), format!("-{digits}"), format!("1e{digits}")] {
            assert!(matches!(both::<f64>(&wrong), Err(DecodeError::Malformed { .. })), "{wrong:.10}");
            assert!(both::<u64>(&wrong).is_err() && both::<i128>(&wrong).is_err(), "{wrong:.10}");
        }
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Big {
        blocks: [[u64; 16]; 8],
    }

    #[test]
    fn two_letters_that_unfold_into_a_kibibyte_are_stopped_by_the_budget() {
        let text = format!("[{}{{}}]", "{},".repeat(60_000));
        assert_eq!(refused::<Vec<Big>>(&text, &DecodeLimits::default()), (Limit::Bytes, (1 << 20).max(32 * text.len())));
    }

    proptest! {
        #[test]
        fn any_tree_comes_back_as_it_was(tree in proptest::collection::vec(shape(), 0..6)) {
            round_trip(&tree);
        }

        #[test]
        fn any_scalars_come_back_as_they_were(
            value in any::<(bool, i8, i16, i32, i64, i128, u128, char, String, Option<u64>)>(),
            map in proptest::collection::btree_map(any::<u16>(), any::<Vec<u32>>(), 0..9),
            words in proptest::collection::btree_map(any::<String>(), any::<bool>(), 0..9),
        ) {
            round_trip(&value);
            round_trip(&map);
            round_trip(&words);
        }

        #[test]
        fn any_number_comes_back_bit_by_bit(double in any::<f64>(), single in any::<f32>()) {
            if double.is_finite() && single.is_finite() {
                let (a, b): (f64, f32) = Codec::Json.decode(&encoded(&(double, single)), None).unwrap();
                prop_assert_eq!((a.to_bits(), b.to_bits()), (double.to_bits(), single.to_bits()));
            }
        }

        /// Limits change what is refused, never what a message means.
        #[test]
        fn any_bytes_decode_alike_with_and_without_limits(bytes: Vec<u8>) {
            let free = Codec::Json.decode::<Vec<Shape>>(&bytes, None);
            let limited = Codec::Json.decode::<Vec<Shape>>(&bytes, Some(&DecodeLimits::default()));
            prop_assert_eq!(free, limited);
        }

        /// Nearly right is where a parser's corners are: pieces of JSON in any order.
        #[test]
        fn any_pieces_decode_alike_with_and_without_limits(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40),
        ) {
            let bytes = pieces.concat();
            let free = Codec::Json.decode::<Vec<Shape>>(bytes.as_bytes(), None);
            let limited = Codec::Json.decode::<Vec<Shape>>(bytes.as_bytes(), Some(&DecodeLimits::default()));
            prop_assert_eq!(free, limited);
            let _ = Codec::Json.decode::<Everything>(bytes.as_bytes(), None);
            let _ = Codec::Json.decode::<(Str<'_>, ByteSlice<'_>, HashMap<i64, f64>)>(bytes.as_bytes(), None);
        }

        /// One byte of a sound message is another.
        #[test]
        fn any_damage_decodes_alike_with_and_without_limits(
            tree in proptest::collection::vec(shape(), 1..4), at: proptest::sample::Index, byte: u8,
        ) {
            let mut bytes = encoded(&tree);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let free = Codec::Json.decode::<Vec<Shape>>(&bytes, None);
            let limited = Codec::Json.decode::<Vec<Shape>>(&bytes, Some(&DecodeLimits::default()));
            prop_assert_eq!(free, limited);
        }
    }

    const PIECES: &[&str] = &[
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"Unit\"",
        "\"Newtype\"",
        "\"Tuple\"",
        "\"Struct\"",
        "\"name\"",
        "\"next\"",
        "\"",
        "\\",
        "\\u",
        "d83e",
        "0",
        "-",
        "1",
        "255",
        "1e9",
        ".",
        "null",
        "true",
        " ",
        "\u{0}",
        "🦀",
    ];
}
