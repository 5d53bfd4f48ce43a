//! The exchanges of a session that have something to write, in the order of their turns (docs/PROTOCOL.md §8.2): the most
//! urgent first, and of one urgency those with little to say, so that no large message holds up a small one. Whoever
//! stands behind others has his turn too: large messages between small ones, low urgencies between high ones.

use std::collections::VecDeque;

use crate::id::ExchangeKey;
use crate::proto::schedule::QUANTUM;

/// How much an exchange has to write at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// A quantum at most.
    Short,
    /// More.
    Bulk,
}

/// Where an exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank {
    /// 0: expedited. Else the urgency, and 1.
    level: u8,
    size: Size,
}

impl Rank {
    /// Before all, and ahead of other sessions.
    pub(super) const EXPEDITED: Self = Self { level: 0, size: Size::Short };

    /// Among those of its urgency.
    pub(super) fn new(urgency: u8, size: Size) -> Self {
        Self { level: urgency + 1, size }
    }
}

/// While lower levels wait the highest has so much before one of them has a quantum: every sixteenth is theirs.
const BEFORE_LOWER: u64 = 15 * QUANTUM as u64;

/// Exchanges of one urgency.
#[derive(Debug, Default)]
struct Level {
    short: VecDeque<ExchangeKey>,
    bulk: VecDeque<ExchangeKey>,
    /// What the short ones have written since the last turn of a large one.
    since_bulk: u64,
}

impl Level {
    fn of(&mut self, size: Size) -> &mut VecDeque<ExchangeKey> {
        match size {
            Size::Short => &mut self.short,
            Size::Bulk => &mut self.bulk,
        }
    }

    /// A large message has its turn behind every quantum of the others.
    fn pop(&mut self) -> Option<(ExchangeKey, Size)> {
        let bulk = |level: &mut Self| level.bulk.pop_front().map(|key| (key, Size::Bulk));
        if self.since_bulk >= QUANTUM as u64
            && let Some(turn) = bulk(self)
        {
            return Some(turn);
        }
        self.short.pop_front().map(|key| (key, Size::Short)).or_else(|| bulk(self))
    }

    fn is_empty(&self) -> bool {
        self.short.is_empty() && self.bulk.is_empty()
    }
}

/// The ring. Keys may be stale: whoever takes one looks.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// From the highest to the lowest that ever was used.
    levels: Vec<Level>,
    /// A bit for each level in which somebody waits.
    occupied: u16,
    len: usize,
    short: usize,
    /// The turn that is under way: whose it is, and what the session had written before.
    turn: Option<(Rank, u64)>,
    /// What the highest level has written since a lower one had its quantum.
    ahead: u64,
    /// A lower level has its quantum, of which so much is left.
    lower: Option<(u8, u64)>,
    /// The lower level that had the last one.
    last_lower: u8,
}

impl Ring {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether whoever has his turn should be short: somebody waits who would be done soon, or who is of another urgency.
    #[inline]
    pub(super) fn is_pressed(&self) -> bool {
        let own = self.turn.map_or(0, |(rank, _)| 1 << rank.level);
        self.short > 0 || self.occupied & !own != 0
    }

    /// How many expedited exchanges wait.
    #[inline]
    pub(super) fn expedited(&self) -> usize {
        if self.occupied & 1 == 0 { 0 } else { self.levels[0].short.len() }
    }

    pub(super) fn push(&mut self, key: ExchangeKey, rank: Rank) {
        self.place(rank).push_back(key);
    }

    /// Puts an exchange back before the others of its rank.
    pub(super) fn push_front(&mut self, key: ExchangeKey, rank: Rank) {
        self.place(rank).push_front(key);
    }

    fn place(&mut self, Rank { level, size }: Rank) -> &mut VecDeque<ExchangeKey> {
        let at = usize::from(level);
        if self.len == 0 {
            // Whoever wrote before kept nobody waiting.
            (self.turn, self.ahead, self.lower) = (None, 0, None);
        }
        if at >= self.levels.len() {
            self.levels.resize_with(at + 1, Level::default);
        }
        self.len += 1;
        self.short += usize::from(size == Size::Short);
        self.occupied |= 1 << level;
        self.levels[at].of(size)
    }

    /// Whose turn it is, where the session has written `used` bytes so far.
    pub(super) fn pop(&mut self, used: u64) -> Option<ExchangeKey> {
        self.settle(used);
        let level = self.next_level()?;
        self.take(level, used)
    }

    /// The next expedited one.
    pub(super) fn pop_expedited(&mut self, used: u64) -> Option<ExchangeKey> {
        self.settle(used);
        self.take(0, used)
    }

    /// The turn before is over: what it wrote counts for whom it kept waiting.
    fn settle(&mut self, used: u64) {
        let Some((rank, before)) = self.turn.take() else { return };
        let written = used - before;
        let level = &mut self.levels[usize::from(rank.level)];
        level.since_bulk = if rank.size == Size::Bulk { 0 } else { level.since_bulk + written };
        match &mut self.lower {
            Some((lower, left)) if *lower == rank.level => *left = left.saturating_sub(written),
            _ => self.ahead += written,
        }
    }

    fn next_level(&mut self) -> Option<u8> {
        if self.occupied == 0 {
            return None;
        }
        if let Some((level, left)) = self.lower {
            if left > 0 && self.occupied & 1 << level != 0 {
                return Some(level);
            }
            (self.ahead, self.lower) = (0, None);
        }
        let highest = self.occupied.trailing_zeros() as u8;
        let lower = self.occupied & (self.occupied - 1);
        if lower == 0 {
            // Nobody waits behind it.
            self.ahead = 0;
        } else if self.ahead >= BEFORE_LOWER {
            // One after the other, so that those in the middle have theirs too.
            let behind = lower & (u16::MAX << 1 << self.last_lower);
            let level = if behind == 0 { lower } else { behind }.trailing_zeros() as u8;
            (self.last_lower, self.lower) = (level, Some((level, QUANTUM as u64)));
            return Some(level);
        }
        Some(highest)
    }

    fn take(&mut self, level: u8, used: u64) -> Option<ExchangeKey> {
        let at = self.levels.get_mut(usize::from(level))?;
        let (key, size) = at.pop()?;
        self.len -= 1;
        self.short -= usize::from(size == Size::Short);
        if at.is_empty() {
            self.occupied &= !(1 << level);
        }
        self.turn = Some((Rank { level, size }, used));
        Some(key)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sweeps out the keys that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&ExchangeKey) -> bool) {
        (self.len, self.short, self.occupied) = (0, 0, 0);
        for (at, level) in self.levels.iter_mut().enumerate() {
            level.short.retain(&keep);
            level.bulk.retain(&keep);
            self.len += level.short.len() + level.bulk.len();
            self.short += level.short.len();
            self.occupied |= u16::from(!level.is_empty()) << at;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ExchangeKey> {
        self.levels.iter().flat_map(|level| level.short.iter().chain(&level.bulk))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(slot: u32) -> ExchangeKey {
        ExchangeKey { slot, generation: 0 }
    }

    fn bulk(urgency: u8) -> Rank {
        Rank::new(urgency, Size::Bulk)
    }

    fn short(urgency: u8) -> Rank {
        Rank::new(urgency, Size::Short)
    }

    /// Who has the turns, where everybody stands in line again behind his own and writes as `bytes` says.
    fn turns(
        ranks: &[Rank],
        bytes: impl Fn(usize) -> u64,
        pop: impl Fn(&mut Ring, u64) -> Option<ExchangeKey>,
    ) -> Vec<(usize, u64)> {
        let (mut ring, mut used, mut order) = (Ring::default(), 0, Vec::new());
        ranks.iter().enumerate().for_each(|(at, rank)| ring.push(key(at as u32), *rank));
        while order.len() < 6000 {
            let at = pop(&mut ring, used).expect("somebody always waits").slot as usize;
            order.push((at, used));
            used += bytes(order.len()).min(if ranks[at].level == 0 { 1024 } else { QUANTUM as u64 });
            ring.push(key(at as u32), ranks[at]);
        }
        order
    }

    /// Whether each is served before the session has written so many quanta: eighteen (the sixteen, and what two frames
    /// take over) for each lower level that waits, and three such for each exchange of its own level.
    fn serves_all(ranks: &[Rank], order: &[(usize, u64)]) -> Result<(), String> {
        let levels: std::collections::BTreeSet<u8> = ranks.iter().map(|rank| rank.level).collect();
        let end = order.last().expect("there are turns").1;
        for (at, rank) in ranks.iter().enumerate() {
            let own = ranks.iter().filter(|other| other.level == rank.level).count() as u64;
            let bound = 18 * (levels.len() as u64 - 1).max(1) * (3 * own + 1) * QUANTUM as u64;
            let mut last = 0;
            for used in order.iter().filter(|(who, _)| *who == at).map(|(_, used)| *used).chain([end]) {
                if used - last > bound {
                    return Err(format!("{rank:?} waited for {} bytes, and {bound} are the most", used - last));
                }
                last = used;
            }
        }
        Ok(())
    }

    fn ranks() -> impl Strategy<Value = Vec<Rank>> {
        let rank = prop_oneof![
            Just(Rank::EXPEDITED),
            (0..8u8, any::<bool>())
                .prop_map(|(urgency, large)| { Rank::new(urgency, if large { Size::Bulk } else { Size::Short }) })
        ];
        proptest::collection::vec(rank, 1..12)
    }

    proptest! {
        #[test]
        fn everybody_has_his_turn(ranks in ranks(), lengths in proptest::collection::vec(1..=QUANTUM as u64, 1..40)) {
            let order = turns(&ranks, |turn| lengths[turn % lengths.len()], |ring, used| ring.pop(used));
            prop_assert_eq!(serves_all(&ranks, &order), Ok(()));
        }
    }

    #[test]
    fn a_ring_that_starves_the_least_urgent_is_noticed() {
        let strict = |ring: &mut Ring, used| ring.take(ring.occupied.trailing_zeros() as u8, used);
        let ranks = [bulk(1), bulk(6)];
        assert!(serves_all(&ranks, &turns(&ranks, |_| QUANTUM as u64, strict)).is_err());
        // And one that remembers the last alone, and forgets those in the middle.
        let ends = |ring: &mut Ring, used: u64| {
            let low = (used / QUANTUM as u64).is_multiple_of(16);
            ring.take(if low { 15 - ring.occupied.leading_zeros() } else { ring.occupied.trailing_zeros() } as u8, used)
        };
        let ranks = [bulk(1), bulk(4), bulk(6)];
        assert!(serves_all(&ranks, &turns(&ranks, |_| QUANTUM as u64, ends)).is_err());
    }

    #[test]
    fn every_sixteenth_quantum_is_for_one_of_the_less_urgent() {
        let order = turns(&[bulk(0), bulk(3), bulk(7)], |_| QUANTUM as u64, |ring, used| ring.pop(used));
        let others: Vec<(usize, usize)> =
            order.iter().take(64).enumerate().filter(|(_, turn)| turn.0 > 0).map(|(at, turn)| (at, turn.0)).collect();
        assert_eq!(others, [(15, 1), (31, 2), (47, 1), (63, 2)]);
    }

    #[test]
    fn short_ones_go_first_and_a_large_one_has_its_turn_behind_a_quantum() {
        let ranks = [bulk(3), short(3), short(3), short(3)];
        let bytes = |turn: usize| if turn.is_multiple_of(5) { QUANTUM as u64 } else { QUANTUM as u64 / 4 };
        let order = turns(&ranks, bytes, |ring, used| ring.pop(used));
        let large: Vec<usize> = (0..15).filter(|at| order[*at].0 == 0).collect();
        assert_eq!(large, [4, 9, 14], "{order:?}");
    }

    #[test]
    fn large_ones_alone_have_their_turns_one_after_the_other() {
        let order = turns(&[bulk(3), bulk(3), bulk(3)], |_| 1000, |ring, used| ring.pop(used));
        assert_eq!(order[..6].iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_more_urgent_go_first_whoever_came_before() {
        let mut ring = Ring::default();
        for (slot, rank) in [bulk(3), short(3), short(7), bulk(0), short(0), Rank::EXPEDITED].into_iter().enumerate() {
            ring.push(key(slot as u32), rank);
        }
        assert_eq!((ring.len(), ring.expedited()), (6, 1));
        let order: Vec<u32> = std::iter::from_fn(|| ring.pop(0)).map(|key| key.slot).collect();
        assert_eq!((order, ring.is_empty()), (vec![5, 4, 3, 1, 0, 2], true));
    }

    #[test]
    fn what_is_swept_out_is_counted_out() {
        let mut ring = Ring::default();
        (0..8).for_each(|slot| ring.push(key(slot), if slot % 2 == 0 { short(slot as u8) } else { bulk(slot as u8) }));
        ring.push(key(8), Rank::EXPEDITED);
        ring.retain(|key| key.slot == 5);
        assert_eq!((ring.len(), ring.expedited(), ring.is_pressed()), (1, 0, true));
        assert_eq!(ring.pop(0), Some(key(5)));
        assert!(ring.is_empty() && !ring.is_pressed() && ring.pop(0).is_none());
    }
}
