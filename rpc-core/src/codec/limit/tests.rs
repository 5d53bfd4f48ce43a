//! The bombs, and the limits at one below, at, and one above.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::super::{Codec, DecodeError};
use super::*;

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    Codec::Postcard.encode(value, &mut out).unwrap();
    out
}

fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8], limits: &DecodeLimits) -> Result<T, DecodeError> {
    Codec::Postcard.decode(bytes, Some(limits))
}

/// The limit that `bytes` run into as a `T`, with its number.
#[track_caller]
fn refused<'de, T: Deserialize<'de>>(bytes: &'de [u8], limits: &DecodeLimits) -> (Limit, usize) {
    match decode::<T>(bytes, limits) {
        Err(DecodeError::Limit(exceeded)) => (exceeded.limit(), exceeded.max()),
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

/// A budget of exactly `bytes`, however long the message.
fn only_bytes(bytes: usize) -> DecodeLimits {
    DecodeLimits::default().floor_bytes(0).bytes_per_wire_byte(usize::MAX).max_bytes(bytes)
}

/// A length as postcard writes it, in front of no elements at all.
fn length(len: u64) -> Vec<u8> {
    encoded(&len)
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Chain {
    Leaf,
    Node(Box<Self>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tree {
    kids: Vec<Self>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Linked(Option<Box<Self>>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Mixed {
    Tuple(u8, Option<Box<Self>>),
    Struct { kids: Vec<Self> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Big {
    blocks: [[u64; 16]; 8],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "the bomb is that one byte stands for all of it")]
enum MaybeBig {
    Small,
    Large(Big),
}

/// `enums` of them, counting the leaf.
fn chain(enums: usize) -> Vec<u8> {
    let mut bytes = vec![1; enums - 1];
    bytes.push(0);
    bytes
}

// Depth

#[test]
fn an_enum_in_itself_nests_64_deep_and_no_deeper() {
    let limits = DecodeLimits::default();
    for enums in [1, 63, 64] {
        decode::<Chain>(&chain(enums), &limits).unwrap();
    }
    assert_eq!(refused::<Chain>(&chain(65), &limits), (Limit::Depth, 64));
}

#[test]
fn a_megabyte_of_nesting_is_refused_before_the_stack_ends() {
    let bytes = chain(1 << 20);
    let limits = DecodeLimits::default();
    assert_eq!(refused::<Chain>(&bytes, &limits), (Limit::Depth, 64));
    assert_eq!(refused::<Tree>(&bytes, &limits), (Limit::Depth, 64));
    assert_eq!(refused::<Linked>(&bytes, &limits), (Limit::Depth, 64));
    assert_eq!(refused::<Mixed>(&bytes, &limits), (Limit::Depth, 64));
}

#[test]
fn a_tree_pays_a_level_for_the_struct_and_one_for_its_vec() {
    let mut bytes = vec![1; 31];
    bytes.push(0);
    let limits = DecodeLimits::default();
    decode::<Tree>(&bytes, &limits).unwrap();
    bytes.insert(0, 1);
    assert_eq!(refused::<Tree>(&bytes, &limits), (Limit::Depth, 64));
}

#[test]
fn a_newtype_is_transparent_and_a_some_is_a_level() {
    // Three `Some`, the last of which holds a newtype of `None`.
    let bytes = [1, 1, 1, 0];
    let limits = DecodeLimits::default();
    decode::<Linked>(&bytes, &limits.max_depth(3)).unwrap();
    assert_eq!(refused::<Linked>(&bytes, &limits.max_depth(2)), (Limit::Depth, 2));
}

#[test]
fn a_variants_payload_belongs_to_its_enum() {
    let limits = DecodeLimits::default();
    let tuple = encoded(&Mixed::Tuple(1, None));
    decode::<Mixed>(&tuple, &limits.max_depth(1)).unwrap();
    let fields = encoded(&Mixed::Struct { kids: vec![] });
    decode::<Mixed>(&fields, &limits.max_depth(2)).unwrap();
    assert_eq!(refused::<Mixed>(&fields, &limits.max_depth(1)), (Limit::Depth, 1));
}

#[test]
fn scalars_need_no_depth_and_every_container_one_level() {
    let flat = DecodeLimits::default().max_depth(0);
    decode::<u64>(&[7], &flat).unwrap();
    decode::<String>(&[1, b'x'], &flat).unwrap();
    decode::<Option<u8>>(&[0], &flat).unwrap();
    assert_eq!(refused::<(u8,)>(&[7], &flat), (Limit::Depth, 0));
    assert_eq!(refused::<Option<u8>>(&[1, 7], &flat), (Limit::Depth, 0));
    assert_eq!(refused::<Vec<u8>>(&[0], &flat), (Limit::Depth, 0));
    assert_eq!(refused::<HashMap<u8, u8>>(&[0], &flat), (Limit::Depth, 0));
    assert_eq!(refused::<Chain>(&[0], &flat), (Limit::Depth, 0));
    assert_eq!(refused::<Tree>(&[0], &flat), (Limit::Depth, 0));
}

#[test]
fn siblings_do_not_add_to_the_depth() {
    let rows = encoded(&vec![Some((1u8, Some(2u8))); 1000]);
    decode::<Vec<Option<(u8, Option<u8>)>>>(&rows, &DecodeLimits::default().max_depth(4)).unwrap();
}

// Items

#[test]
fn elements_that_need_no_bytes_are_counted() {
    let limits = DecodeLimits::default();
    for announced in [1 << 28, 1 << 60, u64::MAX] {
        let bytes = length(announced);
        let expected = (Limit::Items, 65_536);
        assert_eq!(refused::<BTreeSet<()>>(&bytes, &limits), expected);
        assert_eq!(refused::<Vec<()>>(&bytes, &limits), expected);
        assert_eq!(refused::<HashMap<(), ()>>(&bytes, &limits), expected);
    }
}

#[test]
fn the_items_limit_is_the_last_number_allowed() {
    let limits = DecodeLimits::default();
    for allowed in [65_535, 65_536] {
        let units: Vec<()> = decode(&length(allowed), &limits).unwrap();
        assert_eq!(units.len() as u64, allowed);
    }
    assert_eq!(refused::<Vec<()>>(&length(65_537), &limits), (Limit::Items, 65_536));
}

#[test]
fn a_message_holds_as_many_elements_as_it_has_bytes_up_to_the_limit() {
    let limits = DecodeLimits::default();
    for (len, passes) in [(65_537, true), (4_194_304, true), (4_194_305, false)] {
        let bytes = encoded(&vec![7u8; len]);
        assert_eq!(decode::<Vec<u8>>(&bytes, &limits).is_ok(), passes, "{len}");
    }
}

#[test]
fn items_are_counted_over_the_whole_message() {
    let bytes = encoded(&(vec![1u8, 2], vec![vec![3u8], vec![4]]));
    let limits = DecodeLimits::default();
    type Message = (Vec<u8>, Vec<Vec<u8>>);
    decode::<Message>(&bytes, &limits.max_items(7)).unwrap();
    decode::<Message>(&bytes, &limits.max_items(6)).unwrap();
    assert_eq!(refused::<Message>(&bytes, &limits.max_items(5)), (Limit::Items, 5));
}

#[test]
fn a_map_entry_is_one_item_and_a_field_none() {
    let bytes = encoded(&HashMap::from([(1u8, (2u8, 3u8, [4u8; 4]))]));
    type Message = HashMap<u8, (u8, u8, [u8; 4])>;
    let limits = DecodeLimits::default();
    decode::<Message>(&bytes, &limits.max_items(1)).unwrap();
    assert_eq!(refused::<Message>(&bytes, &limits.max_items(0)), (Limit::Items, 0));
}

// Bytes

#[test]
fn the_budget_grows_with_the_message_between_floor_and_ceiling() {
    let limits = DecodeLimits::default();
    assert_eq!(limits.budget_bytes(0), MIB);
    assert_eq!(limits.budget_bytes(32 * 1024), MIB);
    assert_eq!(limits.budget_bytes(32 * 1024 + 1), MIB + 32);
    assert_eq!(limits.budget_bytes(2 * MIB), 64 * MIB);
    assert_eq!(limits.budget_bytes(usize::MAX), 64 * MIB);
    assert_eq!(limits.max_bytes(10).budget_bytes(usize::MAX), 10);
}

#[test]
fn a_byte_that_unfolds_into_a_kibibyte_is_stopped_by_the_budget() {
    assert_eq!(size_of::<Big>(), 1024);
    // 60 000 times `None`, which is 60 MiB of nothing.
    let mut bytes = length(60_000);
    bytes.resize(bytes.len() + 60_000, 0);
    let budget = 32 * bytes.len();
    let limits = DecodeLimits::default();
    assert_eq!(refused::<Vec<Option<Big>>>(&bytes, &limits), (Limit::Bytes, budget));
    assert_eq!(refused::<Vec<MaybeBig>>(&bytes, &limits), (Limit::Bytes, budget));
    assert_eq!(refused::<Vec<(u8, Option<Big>)>>(&bytes, &limits), (Limit::Bytes, budget));
}

#[test]
fn a_box_does_not_hide_what_it_holds() {
    let mut bytes = length(60_000);
    bytes.resize(bytes.len() + 60_000, 0);
    let budget = 32 * bytes.len();
    let limits = DecodeLimits::default();
    assert_eq!(refused::<Vec<Box<MaybeBig>>>(&bytes, &limits), (Limit::Bytes, budget));
    assert_eq!(refused::<Vec<Box<Option<Big>>>>(&bytes, &limits), (Limit::Bytes, budget));
}

#[test]
fn an_element_pays_its_size_once_with_all_its_fields() {
    let value = vec![Some(Big { blocks: [[1; 16]; 8] })];
    let bytes = encoded(&value);
    let cost = size_of::<Option<Big>>();
    for enough in [cost, cost + 1] {
        let back: Vec<Option<Big>> = decode(&bytes, &only_bytes(enough)).unwrap();
        assert_eq!(back, value);
    }
    assert_eq!(refused::<Vec<Option<Big>>>(&bytes, &only_bytes(cost - 1)), (Limit::Bytes, cost - 1));
}

#[test]
fn a_box_pays_for_itself_and_for_what_it_holds() {
    let value = vec![Box::new(MaybeBig::Small)];
    let bytes = encoded(&value);
    // The pointer is an element of the vector; the box is charged as one thing with it.
    let cost = size_of::<MaybeBig>();
    decode::<Vec<Box<MaybeBig>>>(&bytes, &only_bytes(cost)).unwrap();
    assert_eq!(refused::<Vec<Box<MaybeBig>>>(&bytes, &only_bytes(cost - 1)), (Limit::Bytes, cost - 1));
}

#[test]
fn strings_and_bytes_pay_their_length() {
    let text = encoded("12345");
    for enough in [5, 6] {
        decode::<String>(&text, &only_bytes(enough)).unwrap();
        decode::<&str>(&text, &only_bytes(enough)).unwrap();
        decode::<&[u8]>(&text, &only_bytes(enough)).unwrap();
    }
    assert_eq!(refused::<String>(&text, &only_bytes(4)), (Limit::Bytes, 4));
    assert_eq!(refused::<&str>(&text, &only_bytes(4)), (Limit::Bytes, 4));
    assert_eq!(refused::<&[u8]>(&text, &only_bytes(4)), (Limit::Bytes, 4));
}

#[test]
fn map_entries_pay_for_key_and_value() {
    let bytes = encoded(&HashMap::from([(1u32, 2u64)]));
    decode::<HashMap<u32, u64>>(&bytes, &only_bytes(12)).unwrap();
    assert_eq!(refused::<HashMap<u32, u64>>(&bytes, &only_bytes(11)), (Limit::Bytes, 11));
}

#[test]
fn a_call_without_collections_needs_no_budget() {
    let bytes = encoded(&(1u8, Some(2u64), [3u16; 4], Chain::Leaf));
    decode::<(u8, Option<u64>, [u16; 4], Chain)>(&bytes, &only_bytes(0).max_items(0)).unwrap();
}

#[test]
fn a_long_list_of_empty_strings_is_legal() {
    let value = vec![String::new(); 60_000];
    let back: Vec<String> = decode(&encoded(&value), &DecodeLimits::default()).unwrap();
    assert_eq!(back, value);
}

// Lying lengths

/// Keeps what it is told to expect and reads nothing.
struct Hint(Option<usize>);

impl<'de> Deserialize<'de> for Hint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap;
        impl<'de> Visitor<'de> for OfMap {
            type Value = Hint;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Hint, A::Error> {
                Ok(Hint(access.size_hint()))
            }
        }
        deserializer.deserialize_map(OfMap)
    }
}

#[test]
fn no_collection_reserves_more_than_64_on_a_peers_word() {
    let limits = DecodeLimits::default();
    for (announced, expected) in [(63, 63), (64, 64), (65, 64), (u64::MAX, 64)] {
        let hint: Hint = decode(&length(announced), &limits).unwrap();
        assert_eq!(hint.0, Some(expected));
    }
}

#[test]
fn a_length_without_its_elements_is_malformed() {
    let limits = DecodeLimits::default();
    let lying = length(1 << 40);
    for error in [
        decode::<HashMap<u64, u64>>(&lying, &limits).unwrap_err(),
        decode::<Vec<HashMap<u64, u64>>>(&lying, &limits).unwrap_err(),
        decode::<Vec<u64>>(&lying, &limits).unwrap_err(),
        decode::<Vec<u8>>(&lying, &limits).unwrap_err(),
        decode::<String>(&lying, &limits).unwrap_err(),
    ] {
        assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
    }
}

// Stubborn types

/// Turns whatever goes wrong into `None`.
struct Lenient(Option<Vec<u8>>);

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::deserialize(deserializer).ok()))
    }
}

#[test]
fn a_type_that_swallows_errors_cannot_swallow_a_limit() {
    let limits = DecodeLimits::default().max_items(1);
    assert!(decode::<Lenient>(&[1, 7], &limits).unwrap().0.is_some());
    assert_eq!(refused::<Lenient>(&[2, 7, 7], &limits), (Limit::Items, 1));
}

/// Looks like a struct of one pointer and keeps big fields on the heap.
struct Rows(Vec<Option<Big>>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Four;
        impl<'de> Visitor<'de> for Four {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("four rows")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = seq.next_element()? {
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_tuple(4, Four)
    }
}

#[test]
fn fields_that_do_not_fit_into_their_struct_pay_for_the_rest() {
    let cost = 4 * size_of::<Option<Big>>() - size_of::<Rows>();
    let rows: Rows = decode(&[0; 4], &only_bytes(cost)).unwrap();
    assert_eq!(rows.0, [const { None }; 4]);
    assert_eq!(refused::<Rows>(&[0; 4], &only_bytes(cost - 1)), (Limit::Bytes, cost - 1));
}

// Other formats

#[test]
fn any_serde_format_is_limited() {
    use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer};

    fn list(limits: &DecodeLimits) -> Result<Vec<u8>, Stopped<ValueError>> {
        decode_within(SeqDeserializer::new([1u8, 2, 3].into_iter()), limits, 0)
    }
    fn object(limits: &DecodeLimits) -> Result<HashMap<String, u8>, Stopped<ValueError>> {
        decode_within(MapDeserializer::new([("a", 1u8), ("b", 2)].into_iter()), limits, 0)
    }
    fn stopped_by<T>(result: Result<T, Stopped<ValueError>>) -> Option<Limit> {
        match result {
            Err(Stopped::Limit(exceeded)) => Some(exceeded.limit()),
            Err(Stopped::Inner(error)) => panic!("refused for another reason: {error}"),
            Ok(_) => None,
        }
    }

    let limits = DecodeLimits::default();
    assert_eq!(stopped_by(list(&limits.max_items(3))), None);
    assert_eq!(stopped_by(list(&limits.max_items(2))), Some(Limit::Items));
    assert_eq!(stopped_by(list(&limits.max_depth(0))), Some(Limit::Depth));
    assert_eq!(stopped_by(object(&limits.max_items(2))), None);
    assert_eq!(stopped_by(object(&limits.max_items(1))), Some(Limit::Items));
    assert_eq!(stopped_by(object(&only_bytes(0))), Some(Limit::Bytes));
}
