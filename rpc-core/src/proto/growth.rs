//! When a window is too small for its path, and how much more there is to give (docs/PROTOCOL.md §7.5).
//!
//! A sender whose window holds it up, and who hears of its credit by halves, sends half a window to a whole one in a round
//! trip. So where a reader has taken half a window in a round trip or more, at the pace of the time since the last
//! announcement, doubling the window is worth the memory. It ends with a window of two round trips. The rule needs a time only
//! where credit is announced.

use std::time::Duration;

use super::time::Time;

/// How long a measured round trip is believed without another look.
const BELIEVED: Duration = Duration::from_secs(10);

/// A path on which the first windows are large enough for anything: 512 KiB in each millisecond are 4 Gbit/s. Larger ones only
/// make longer queues there, and on one machine they cost a third of the rate, because what waits falls out of its caches.
const NEAR: Duration = Duration::from_millis(1);

/// What the windows of one connection grow by: the length of its round trip, and the memory that they may still take.
#[derive(Debug, Default)]
pub struct Growth {
    now: Time,
    in_turn: bool,
    round: Option<Duration>,
    /// When a round trip was last measured because somebody wanted to know.
    measured: Option<Time>,
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

    /// A round trip took so long, while much else was under way. The shortest counts: what is longer waited in queues, and
    /// windows that grew by the time that they themselves make others wait would grow for ever.
    pub fn note_round(&mut self, round: Duration) {
        self.round = Some(self.round.map_or(round, |known| known.min(round)));
        self.measured = Some(self.now);
    }

    /// A round trip took so long, while nothing was under way: so long is the path now.
    pub fn note_quiet_round(&mut self, round: Duration) {
        self.round = Some(round);
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

    /// Of a window, `part` is announced now, and credit was before at `last`: whether the window holds the peer up.
    pub(super) fn is_held_up(&mut self, last: Time, part: u64, window: u64) -> bool {
        // It is measured only for those who want it: on most connections, nobody ever does.
        self.curious |= self.measured.is_none_or(|measured| self.now.since(measured) >= BELIEVED);
        let Some(round) = self.round.filter(|round| *round >= NEAR) else { return false };
        // part / gap * round >= window / 2
        u128::from(part) * round.as_micros() * 2 >= u128::from(window) * self.now.since(last).as_micros()
    }

    /// Whether the path is so short that no window needs to be larger than at first.
    pub(super) fn is_near(&self) -> bool {
        self.round.is_some_and(|round| round < NEAR)
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
    fn the_shortest_round_counts_until_a_quiet_one_says_otherwise() {
        let mut growth = Growth::default();
        growth.note_round(ms(80));
        growth.note_round(ms(400));
        assert_eq!(growth.round(), Some(ms(80)));
        growth.note_round(ms(8));
        assert_eq!(growth.round(), Some(ms(8)));
        growth.note_quiet_round(ms(40));
        assert_eq!(growth.round(), Some(ms(40)));
    }

    #[test]
    fn nobody_is_held_up_before_a_round_was_measured_and_then_at_half_a_window_in_one() {
        let mut growth = Growth::default();
        let at = |ms: u64| Time::from_micros(ms * 1000);
        growth.begin_turn(at(1000));
        assert!(!growth.is_held_up(at(1000), 50, 100) && growth.take_curiosity());
        growth.note_round(ms(60));
        assert!(growth.is_held_up(at(940), 50, 100) && !growth.is_held_up(at(939), 50, 100));
        assert!(growth.is_held_up(at(880), 100, 100) && !growth.is_held_up(at(879), 100, 100));
        assert!(!growth.is_held_up(at(0), u64::MAX, u64::MAX), "and nothing wraps");
        assert!(!growth.take_curiosity());
        growth.begin_turn(at(11_000));
        assert!(!growth.is_held_up(at(940), 50, 100));
        assert!(growth.take_curiosity(), "what was measured long ago is measured again");
    }

    #[test]
    fn nobody_is_held_up_on_a_short_path() {
        let mut growth = Growth::default();
        growth.begin_turn(Time::from_micros(1000));
        growth.note_round(NEAR);
        assert!(growth.is_held_up(Time::from_micros(1000), 50, 100) && !growth.is_near());
        growth.note_round(NEAR - Duration::from_micros(1));
        assert!(!growth.is_held_up(Time::from_micros(1000), 50, 100) && growth.is_near());
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
