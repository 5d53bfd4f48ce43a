//! Messages of peers that are not trusted: what is decoded within limits cost no more than they allow, means the same
//! without them, and comes back.

use std::collections::BTreeMap;
use std::fmt::Debug;

use rpc_core::codec::{Codec, DecodeLimits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bytes::Bytes;

/// Everything that can nest or be long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Text(String),
    Many(Vec<Self>),
    Named { name: String, inner: Option<Box<Self>> },
    Map(BTreeMap<u16, Self>),
    Pair((u8, char), Option<Option<bool>>),
}

/// Bytes on the heap, levels, and elements.
#[derive(Default)]
struct Cost {
    bytes: usize,
    depth: usize,
    items: usize,
}

impl Tree {
    fn cost(&self, depth: usize, cost: &mut Cost) {
        cost.depth = cost.depth.max(depth);
        match self {
            Self::Leaf | Self::Number(_) | Self::Pair(..) => {}
            Self::Text(text) => cost.bytes += text.len(),
            Self::Many(trees) => {
                cost.items += trees.len();
                cost.bytes += trees.len() * size_of::<Self>();
                trees.iter().for_each(|tree| tree.cost(depth + 1, cost));
            }
            Self::Named { name, inner } => {
                cost.bytes += name.len();
                if let Some(inner) = inner {
                    inner.cost(depth + 1, cost);
                }
            }
            Self::Map(map) => {
                cost.items += map.len();
                cost.bytes += map.len() * (size_of::<u16>() + size_of::<Self>());
                map.values().for_each(|tree| tree.cost(depth + 1, cost));
            }
        }
    }
}

/// Inputs with a message in them.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let text = Tree::Text("a text".into());
    let nested = Tree::Named { name: "name".into(), inner: Some(Box::new(Tree::Many(vec![Tree::Leaf, text]))) };
    let map = [(7, Tree::Number(-70_000)), (300, Tree::Pair((9, 'ß'), Some(None)))].into_iter().collect();
    let mut inputs = Vec::new();
    for codec in Codec::ALL {
        // The limits are the default ones.
        let mut input = vec![0, 0, 0];
        codec.encode(&Tree::Many(vec![nested.clone(), Tree::Map(BTreeMap::clone(&map))]), &mut input).expect("it can be encoded");
        inputs.push(input);
    }
    inputs
}

/// Decodes as several types, in every codec, under limits that the first bytes choose.
pub(crate) fn decode(data: &[u8]) {
    let mut choices = Bytes(data);
    let small = choices.flag();
    let (depth, items) = (choices.one_of(1..=32) as usize, choices.one_of(0..=64) as usize);
    let limits = DecodeLimits::default();
    let limits = if small { limits.max_depth(depth).max_items(items).floor_bytes(4096).max_bytes(8192) } else { limits };
    for codec in Codec::ALL {
        tree(*codec, choices.0, &limits, small.then_some((depth, items)));
        alike::<Vec<String>>(*codec, choices.0, &limits);
        alike::<(u64, Vec<u8>, Option<String>)>(*codec, choices.0, &limits);
        alike::<BTreeMap<String, Vec<(u8, i32)>>>(*codec, choices.0, &limits);
        alike::<Vec<()>>(*codec, choices.0, &limits);
        alike::<Vec<Vec<[u16; 3]>>>(*codec, choices.0, &limits);
    }
}

fn tree(codec: Codec, bytes: &[u8], limits: &DecodeLimits, small: Option<(usize, usize)>) {
    let Some(tree) = alike::<Tree>(codec, bytes, limits) else { return };
    let mut cost = Cost::default();
    tree.cost(0, &mut cost);
    assert!(cost.bytes <= limits.budget_bytes(bytes.len()), "{} bytes from {}", cost.bytes, bytes.len());
    if let Some((depth, items)) = small {
        assert!(cost.depth <= depth && cost.items <= items, "{} levels, {} elements", cost.depth, cost.items);
    }
}

/// What passes the limits is what the bytes mean without them, and encodes to something that means it again. (Without
/// limits only what has passed them is decoded: all else may cost anything.)
fn alike<T: Serialize + DeserializeOwned + Debug + PartialEq>(codec: Codec, bytes: &[u8], limits: &DecodeLimits) -> Option<T> {
    let value: T = codec.decode(bytes, Some(limits)).ok()?;
    assert_eq!(codec.decode::<T>(bytes, None).as_ref(), Ok(&value));
    let mut encoded = Vec::new();
    codec.encode(&value, &mut encoded).expect("what was decoded can be encoded");
    assert_eq!(codec.decode::<T>(&encoded, None).as_ref(), Ok(&value));
    Some(value)
}
