//! The exchanges of a session by slot and generation, and the ids of the wire that lead to them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::id::{ExchangeKey, Xid};

/// What a slot of a [`Table`] holds while it is free: values are made where they stay, and what a slot has had before is
/// cleared and used again, because moving one costs more than all else that is done with it.
pub(super) trait Blank {
    /// A value that stands for none.
    fn blank() -> Self;

    /// Lets go of all that it holds, and is as `blank` makes it.
    fn clear(&mut self);
}

/// A slab whose keys go stale when their entry is removed.
#[derive(Debug)]
pub(super) struct Table<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    live: bool,
    value: T,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T: Blank> Table<T> {
    /// A key for a value that may come: [`fill`](Self::fill) or [`vacate`](Self::vacate) its slot.
    #[inline]
    pub(super) fn reserve(&mut self) -> ExchangeKey {
        match self.free.pop() {
            Some(slot) => ExchangeKey { slot, generation: self.entries[slot as usize].generation },
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&mut self) -> ExchangeKey {
        let slot = u32::try_from(self.entries.len()).expect("a session has fewer than 2^32 exchanges");
        self.entries.push(Entry { generation: 0, live: false, value: T::blank() });
        ExchangeKey { slot, generation: 0 }
    }

    /// Whether a key was reserved, and is neither filled nor vacated.
    pub(super) fn is_reserved(&self, key: ExchangeKey) -> bool {
        // The generation of a slot that is free is that of its next key, which nobody has.
        self.entries.get(key.slot as usize).is_some_and(|entry| entry.generation == key.generation && !entry.live)
    }

    /// The value of a key that was reserved, blank as it is.
    #[inline]
    pub(super) fn fill(&mut self, key: ExchangeKey) -> &mut T {
        debug_assert!(self.is_reserved(key));
        let entry = &mut self.entries[key.slot as usize];
        entry.live = true;
        &mut entry.value
    }

    /// The value of a key that was reserved will not come.
    #[inline]
    pub(super) fn vacate(&mut self, key: ExchangeKey) {
        debug_assert!(self.is_reserved(key));
        let generation = &mut self.entries[key.slot as usize].generation;
        *generation = generation.wrapping_add(1);
        self.free.push(key.slot);
    }

    #[inline]
    pub(super) fn get(&self, key: ExchangeKey) -> Option<&T> {
        let entry = self.entries.get(key.slot as usize)?;
        if entry.generation == key.generation && entry.live { Some(&entry.value) } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: ExchangeKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation == key.generation && entry.live { Some(&mut entry.value) } else { None }
    }

    #[inline]
    pub(super) fn remove(&mut self, key: ExchangeKey) {
        if let Some(entry) = self.entries.get_mut(key.slot as usize)
            && entry.generation == key.generation
            && entry.live
        {
            entry.value.clear();
            entry.live = false;
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(key.slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter(|entry| entry.live).map(|entry| &entry.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ExchangeKey, &T)> {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.live).map(|(slot, entry)| {
            let key = ExchangeKey { slot: slot as u32, generation: entry.generation };
            (key, &entry.value)
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ExchangeKey, &mut T)> {
        self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.live).map(|(slot, entry)| {
            let key = ExchangeKey { slot: slot as u32, generation: entry.generation };
            (key, &mut entry.value)
        })
    }
}

/// From the ids of the wire to local keys. The ids are dense by rule (§6.2), so the low bits of those that are live
/// rarely meet: an array holds them, and a map the few whose place is taken by an exchange that has lived for long.
#[derive(Debug, Default)]
pub(super) struct Ids {
    places: Vec<(Xid, ExchangeKey)>,
    overflow: HashMap<Xid, ExchangeKey, BuildHasherDefault<DenseHasher>>,
    len: usize,
}

/// No id: varints end below it.
const VACANT: Xid = Xid(u64::MAX);

impl Ids {
    #[inline]
    fn place(&self, xid: Xid) -> usize {
        xid.0 as usize & (self.places.len() - 1)
    }

    #[inline]
    pub(super) fn get(&self, xid: Xid) -> Option<ExchangeKey> {
        if self.places.is_empty() {
            return None;
        }
        let (known, key) = self.places[self.place(xid)];
        if known == xid {
            return Some(key);
        }
        if self.overflow.is_empty() { None } else { self.overflow.get(&xid).copied() }
    }

    #[inline]
    pub(super) fn insert(&mut self, xid: Xid, key: ExchangeKey) {
        self.len += 1;
        // Ids of one side have one parity, so an array twice as large as needed is half used; four times leaves room.
        if self.len * 4 > self.places.len() {
            self.grow();
        }
        let place = self.place(xid);
        if self.places[place].0 == VACANT {
            self.places[place] = (xid, key);
        } else {
            self.overflow.insert(xid, key);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, xid: Xid) {
        self.len -= 1;
        let place = self.place(xid);
        if self.places[place].0 == xid {
            self.places[place].0 = VACANT;
        } else {
            self.overflow.remove(&xid);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let places = vec![(VACANT, ExchangeKey::LOCAL); (self.places.len() * 2).max(16)];
        let old = std::mem::replace(&mut self.places, places);
        let overflow = std::mem::take(&mut self.overflow);
        for (xid, key) in old.into_iter().filter(|(xid, _)| *xid != VACANT).chain(overflow) {
            let place = self.place(xid);
            if self.places[place].0 == VACANT {
                self.places[place] = (xid, key);
            } else {
                self.overflow.insert(xid, key);
            }
        }
    }
}

/// A multiplication is hash enough for dense ids: a peer cannot choose them to collide.
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

    impl Blank for &'static str {
        fn blank() -> Self {
            ""
        }

        fn clear(&mut self) {
            *self = "";
        }
    }

    fn insert(table: &mut Table<&'static str>, value: &'static str) -> ExchangeKey {
        let key = table.reserve();
        assert_eq!(*table.fill(key), "", "a slot is blank whatever it has held");
        *table.get_mut(key).unwrap() = value;
        key
    }

    #[test]
    fn a_key_goes_stale_with_its_entry() {
        let mut table = Table::default();
        let first = insert(&mut table, "first");
        table.remove(first);
        let second = insert(&mut table, "second");
        assert_eq!(first.slot, second.slot, "slots are used again");
        assert_eq!((table.get(first), table.get(second)), (None, Some(&"second")));
        table.remove(first);
        assert_eq!(table.len(), 1);
        assert_eq!(table.values().collect::<Vec<_>>(), [&"second"]);
    }

    #[test]
    fn a_reserved_key_has_no_value_until_it_is_filled_and_is_stale_when_it_is_vacated() {
        let mut table: Table<&'static str> = Table::default();
        let (first, second) = (table.reserve(), table.reserve());
        assert_eq!((table.len(), table.get(first), table.is_reserved(first)), (2, None, true));
        *table.fill(first) = "first";
        assert_eq!((table.get(first), table.is_reserved(first)), (Some(&"first"), false));
        table.vacate(second);
        assert!(!table.is_reserved(second));
        let third = insert(&mut table, "third");
        assert_eq!((third.slot, table.get(second), table.len()), (second.slot, None, 2), "slots are used again");
        table.remove(first);
        assert!(!table.is_reserved(first));
    }

    #[test]
    fn ids_lead_to_their_keys_however_long_some_live() {
        let (mut ids, mut live) = (Ids::default(), HashMap::new());
        for n in 0..10_000u64 {
            let (xid, key) = (Xid(n * 2), ExchangeKey { slot: n as u32, generation: 0 });
            ids.insert(xid, key);
            live.insert(xid, key);
            // Every hundredth stays for good, the others for a moment.
            if n >= 5 && (n - 5) % 100 != 0 {
                let gone = Xid((n - 5) * 2);
                ids.remove(gone);
                live.remove(&gone);
            }
            assert_eq!(ids.get(xid), Some(key));
        }
        assert_eq!(ids.len, live.len());
        for n in 0..10_001u64 {
            assert_eq!(ids.get(Xid(n * 2)), live.get(&Xid(n * 2)).copied(), "{n}");
        }
        assert!(ids.places.len() < 2048, "the array follows what is live, not what ever was");
    }
}
