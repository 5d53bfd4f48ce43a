//! The exchanges of a session that have something to write, in the order of their turns (docs/PROTOCOL.md §8.2): those
//! with little to say first, and between them those with large messages, so that neither holds the other up.

use std::collections::VecDeque;

use crate::id::ExchangeKey;
use crate::proto::outbox::QUANTUM;

/// How much an exchange has to write at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// A quantum at most.
    Short,
    /// More.
    Bulk,
}

/// The ring. Keys may be stale: whoever takes one looks.
#[derive(Debug, Default)]
pub(super) struct Ring {
    short: VecDeque<ExchangeKey>,
    bulk: VecDeque<ExchangeKey>,
    /// What the session had written when the last turn of a large message ended.
    mark: u64,
    after_bulk: bool,
}

impl Ring {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.bulk.is_empty()
    }

    /// Whether somebody waits who would be done soon.
    #[inline]
    pub(super) fn has_short(&self) -> bool {
        !self.short.is_empty()
    }

    pub(super) fn push(&mut self, key: ExchangeKey, size: Size) {
        self.of(size).push_back(key);
    }

    /// Puts an exchange back before the others of its size.
    pub(super) fn push_front(&mut self, key: ExchangeKey, size: Size) {
        self.of(size).push_front(key);
    }

    fn of(&mut self, size: Size) -> &mut VecDeque<ExchangeKey> {
        match size {
            Size::Short => &mut self.short,
            Size::Bulk => &mut self.bulk,
        }
    }

    /// Whose turn it is, where the session has written `used` bytes so far: a large message has one behind every quantum
    /// of the others.
    pub(super) fn pop(&mut self, used: u64) -> Option<ExchangeKey> {
        if std::mem::take(&mut self.after_bulk) {
            self.mark = used;
        }
        let bulk = self.short.is_empty() || used - self.mark >= QUANTUM as u64;
        if bulk && let Some(key) = self.bulk.pop_front() {
            self.after_bulk = true;
            return Some(key);
        }
        self.short.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.short.len() + self.bulk.len()
    }

    /// Sweeps out the keys that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&ExchangeKey) -> bool) {
        self.short.retain(&keep);
        self.bulk.retain(&keep);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ExchangeKey> {
        self.short.iter().chain(&self.bulk)
    }

    pub(super) fn clear(&mut self) {
        self.short.clear();
        self.bulk.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> ExchangeKey {
        ExchangeKey { slot, generation: 0 }
    }

    /// Order of turns, where a short one writes `short` bytes and a bulk one `bulk`.
    fn turns(ring: &mut Ring, short: u64, bulk: u64, count: usize) -> Vec<Size> {
        let mut used = 0;
        let mut order = Vec::new();
        while order.len() < count
            && let Some(key) = ring.pop(used)
        {
            let size = if key.slot < 100 { Size::Short } else { Size::Bulk };
            used += if size == Size::Short { short } else { bulk };
            ring.push(key, size);
            order.push(size);
        }
        order
    }

    #[test]
    fn short_ones_go_first_and_a_large_one_has_its_turn_behind_a_quantum() {
        let mut ring = Ring::default();
        ring.push(key(100), Size::Bulk);
        (0..3).for_each(|slot| ring.push(key(slot), Size::Short));
        let order = turns(&mut ring, QUANTUM as u64 / 4, QUANTUM as u64, 15);
        let bulk: Vec<usize> = (0..15).filter(|at| order[*at] == Size::Bulk).collect();
        assert_eq!(bulk, [4, 9, 14], "{order:?}");
    }

    #[test]
    fn large_ones_alone_have_their_turns_one_after_the_other() {
        let mut ring = Ring::default();
        (100..103).for_each(|slot| ring.push(key(slot), Size::Bulk));
        let order: Vec<u32> = (0..6)
            .filter_map(|used| {
                let key = ring.pop(used * 1000)?;
                ring.push(key, Size::Bulk);
                Some(key.slot)
            })
            .collect();
        assert_eq!(order, [100, 101, 102, 100, 101, 102]);
    }
}
