//! Bytes as a source of choices: any input is a script, and a longer one does more.

use std::ops::RangeInclusive;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; zero behind the end.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// One of a few: `range` has at most 256.
    pub(crate) fn one_of(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + u64::from(self.byte()) % (range.end() - range.start() + 1)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// A number that is small, or near a power of two, or anything: where limits are.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=127 => small.into(),
            power @ 128..=191 => (1_u64 << (power % 62)).wrapping_add(u64::from(self.byte() % 5)).wrapping_sub(2),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// At most `most` of the bytes that follow.
    pub(crate) fn some(&mut self, most: usize) -> &'a [u8] {
        let n = usize::from(self.byte()).min(most).min(self.0.len());
        let (some, rest) = self.0.split_at(n);
        self.0 = rest;
        some
    }
}
