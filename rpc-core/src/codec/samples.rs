//! Values of every shape that serde knows, for the tests of the codecs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Newtype(pub(super) u32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pair(u8, String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Shape {
    Unit,
    Newtype(Box<Self>),
    Tuple(u8, Vec<Self>),
    Struct { name: String, next: Option<Box<Self>> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Numbers {
    yes: bool,
    signed: (i8, i16, i32, i64, i128),
    unsigned: (u8, u16, u32, u64, u128),
    floats: (f32, f64),
    letter: char,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Everything {
    numbers: Numbers,
    nothing: (),
    unit: Unit,
    newtype: Newtype,
    pair: Pair,
    array: [u16; 5],
    text: String,
    some: Option<String>,
    none: Option<u64>,
    shapes: Vec<Shape>,
    ordered: BTreeMap<String, Vec<u32>>,
    hashed: HashMap<u64, (bool, char)>,
    set: BTreeSet<i16>,
    units: Vec<()>,
    result: Result<u8, String>,
}

pub(super) fn everything() -> Everything {
    Everything {
        numbers: Numbers {
            yes: true,
            signed: (i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN),
            unsigned: (u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX),
            floats: (f32::MIN_POSITIVE, f64::MAX),
            letter: '🦀',
        },
        nothing: (),
        unit: Unit,
        newtype: Newtype(7),
        pair: Pair(1, "eins".into()),
        array: [0, 1, 127, 128, u16::MAX],
        text: "grüße".into(),
        some: Some(String::new()),
        none: None,
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(Box::new(Shape::Unit)),
            Shape::Tuple(3, vec![Shape::Unit, Shape::Unit]),
            Shape::Struct { name: "n".into(), next: Some(Box::new(Shape::Unit)) },
        ],
        ordered: [("a".into(), vec![1, 2]), ("b".into(), vec![])].into(),
        hashed: [(u64::MAX, (false, 'x')), (0, (true, '\0'))].into(),
        set: [-1, 0, 1].into(),
        units: vec![(); 3],
        result: Err("no".into()),
    }
}

/// Writes one element and then fails in the chosen way.
pub(super) struct Failing;

impl Serialize for Failing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(2))?;
        seq.serialize_element(&1u8)?;
        Err(serde::ser::Error::custom("no"))
    }
}

pub(super) fn shape() -> impl Strategy<Value = Shape> {
    Just(Shape::Unit).prop_recursive(6, 48, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|next| Shape::Newtype(Box::new(next))),
            (any::<u8>(), proptest::collection::vec(inner.clone(), 0..4)).prop_map(|(number, kids)| Shape::Tuple(number, kids)),
            (any::<String>(), proptest::option::of(inner))
                .prop_map(|(name, next)| { Shape::Struct { name, next: next.map(Box::new) } }),
        ]
    })
}
