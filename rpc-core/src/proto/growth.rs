//! When a window is too small for its path, and how much more there is to give (docs/PROTOCOL.md §7.5).
//!
//! Credit is announced each half window. A peer whose credit is announced twice within a round trip has used it up before
//! the second announcement could reach it: the window is what holds it up, and doubling it is worth the memory. The rule
//! needs a time only where credit is announced, and it stops by itself once a window holds two round trips.

use std::time::Duration;

use super::time::Time;

/// How long a measured round trip is believed without another look.
const BELIEVED: Duration = Duration::from_secs(10);

/// What the windows of one connection grow by: the length of its round trip, and the memory that they may still take.
#[derive(Debug, Default)]
pub struct Growth {
    now: Time,
    in_turn: bool,
    round: Option<Duration>,
    /// When the round trip was last measured.
    measured: Time,
    curious: bool,
    room: u64,
    wanted: u64,
}

impl Growth {
    /// A turn of the driver, which knows the time. Windows are announced within one and at no other time.
    #[inline]
    pub fn begin_turn(&mut self, now: Time) {
        self.now = now;
        self.in_turn = true;
    }

    /// The driver's turn is over: what it knew of the time grows old.
    #[inline]
    pub fn end_turn(&mut self) {
        self.in_turn = false;
    }

    /// Whether the time is known.
    #[inline]
    pub fn is_in_turn(&self) -> bool {
        self.in_turn
    }

    /// A round trip took so long. The shortest counts, for what is longer waited in queues; but a path may become longer,
    /// so each measurement lets the figure rise by an eighth.
    pub fn note_round(&mut self, round: Duration) {
        self.round = Some(self.round.map_or(round, |known| round.min(known + known / 8)));
        self.measured = self.now;
    }

    /// The round trip, where it was measured.
    pub fn round(&self) -> Option<Duration> {
        self.round
    }

    /// Whether somebody would like to know how long a round trip is. Asking answers it.
    #[inline]
    pub fn take_curiosity(&mut self) -> bool {
        std::mem::take(&mut self.curious)
    }

    /// Bytes by which windows may still grow.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Sets the bytes by which windows may still grow. None at first.
    pub fn allow(&mut self, room: u64) {
        self.room = room;
    }

    /// Bytes by which windows would have grown since the last look, had there been room.
    pub fn take_wanted(&mut self) -> u64 {
        std::mem::take(&mut self.wanted)
    }

    /// Credit of a window is announced now, and was before at `last`: whether the peer waited for it.
    pub(super) fn is_held_up(&mut self, last: Time) -> bool {
        // It is measured only for those who want it: on most connections, nobody ever does.
        self.curious |= self.round.is_none() || self.now.since(self.measured) >= BELIEVED;
        self.round.is_some_and(|round| self.now.since(last) <= round)
    }

    /// Takes room for a window that grows by `more`; none where there is too little.
    pub(super) fn take(&mut self, more: u64) -> u64 {
        if more <= self.room {
            self.room -= more;
            return more;
        }
        self.wanted = self.wanted.saturating_add(more);
        0
    }

    /// The time of the last turn.
    #[inline]
    pub fn now(&self) -> Time {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_shortest_round_counts_and_a_longer_path_is_believed_in_time() {
        let mut growth = Growth::default();
        growth.note_round(ms(80));
        growth.note_round(ms(400));
        assert_eq!(growth.round(), Some(ms(90)));
        growth.note_round(ms(8));
        assert_eq!(growth.round(), Some(ms(8)));
        for _ in 0..40 {
            growth.note_round(ms(400));
        }
        assert_eq!(growth.round(), Some(ms(400)));
    }

    #[test]
    fn nobody_is_held_up_before_a_round_was_measured_and_then_only_within_one() {
        let mut growth = Growth::default();
        let at = |ms: u64| Time::from_micros(ms * 1000);
        growth.begin_turn(at(1000));
        assert!(!growth.is_held_up(at(1000)) && growth.take_curiosity());
        growth.note_round(ms(50));
        assert!(growth.is_held_up(at(950)) && !growth.is_held_up(at(949)));
        assert!(!growth.take_curiosity());
        growth.begin_turn(at(11_000));
        assert!(!growth.is_held_up(at(950)));
        assert!(growth.take_curiosity(), "what was measured long ago is measured again");
    }

    #[test]
    fn what_there_is_no_room_for_is_wanted() {
        let mut growth = Growth::default();
        assert_eq!((growth.take(100), growth.take_wanted(), growth.take_wanted()), (0, 100, 0));
        growth.allow(100);
        assert_eq!((growth.take(101), growth.take(100), growth.take(1)), (0, 100, 0));
        assert_eq!((growth.room(), growth.take_wanted()), (0, 102));
    }
}
