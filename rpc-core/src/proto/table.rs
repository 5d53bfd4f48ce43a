//! The exchanges of a session by slot and generation, and the ids of the wire that lead to them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::id::{ExchangeKey, Xid};

/// A slab whose keys go stale when their entry is removed.
#[derive(Debug)]
pub(super) struct Table<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> ExchangeKey {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot as usize];
            entry.1 = Some(value);
            return ExchangeKey { slot, generation: entry.0 };
        }
        let slot = u32::try_from(self.entries.len()).expect("a session has fewer than 2^32 exchanges");
        self.entries.push((0, Some(value)));
        ExchangeKey { slot, generation: 0 }
    }

    #[inline]
    pub(super) fn get(&self, key: ExchangeKey) -> Option<&T> {
        let (generation, value) = self.entries.get(key.slot as usize)?;
        if *generation == key.generation { value.as_ref() } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: ExchangeKey) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key.slot as usize)?;
        if *generation == key.generation { value.as_mut() } else { None }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: ExchangeKey) -> Option<T> {
        let (generation, value) = self.entries.get_mut(key.slot as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ExchangeKey, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(slot, (generation, value))| {
            let key = ExchangeKey { slot: slot as u32, generation: *generation };
            value.as_mut().map(|value| (key, value))
        })
    }
}

/// From the ids of the wire to local keys. The ids are dense by rule (§6.2), so a peer cannot choose them to collide
/// and a multiplication is hash enough.
pub(super) type Ids = HashMap<Xid, ExchangeKey, BuildHasherDefault<DenseHasher>>;

#[derive(Default)]
pub(super) struct DenseHasher(u64);

impl Hasher for DenseHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio spreads consecutive numbers over the high bits, which hashbrown looks at too.
        self.0 = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_stale_with_its_entry() {
        let mut table = Table::default();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(first.slot, second.slot, "slots are used again");
        assert_eq!((table.get(first), table.get(second)), (None, Some(&"second")));
        assert_eq!(table.remove(first), None);
        assert_eq!(table.len(), 1);
    }
}
