//! Whose turn it is among the sessions of a connection (docs/PROTOCOL.md §8.2): control, then expedited messages, then
//! everybody's data by weight. It holds places and counts bytes; it knows neither frames nor sessions.
//!
//! ```text
//! control ─▶ expedited ─▶ active ─ share used up ─▶ spent
//!                           ▲──────── next round ─────┘
//! ```
//! A round gives each session a share of bytes by its weight. A turn is a quantum of it at most, and the sessions that
//! have some of it left take turns, so that a heavy one has more turns and not longer ones. What a frame takes over its
//! share is owed to the next round.

use std::collections::VecDeque;

use crate::wire::hello::DEFAULT_WEIGHT;

/// What a session may write at a turn while others wait, the longest piece of a message then, and the share of a session
/// of [`DEFAULT_WEIGHT`] in a round. 16 KiB: a TLS record; 0.13 ms at 1 Gbit/s.
pub const QUANTUM: usize = 16 * 1024;

/// A session's place in the driver's table of one connection; the scheduler's rings hold these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionSlot(pub u32);

/// What a session has its turn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Frames that need no credit: credit announcements, resets, cancellations.
    Control,
    /// Small messages of the highest urgency.
    Expedited,
    /// Messages.
    Data,
}

/// A session's part of the rounds.
#[derive(Debug, Clone, Copy)]
struct Share {
    weight: u16,
    /// It stands among `active` or `spent`.
    waits: bool,
    /// The round that the two below are of.
    round: u64,
    /// What is left of its share. Negative: taken in advance.
    left: i64,
    /// What of it may go ahead of the other sessions: half, so that the rest of the session has its turns too.
    ahead: i64,
}

impl Share {
    fn quantum(self) -> i64 {
        i64::from(self.weight) * QUANTUM as i64 / i64::from(DEFAULT_WEIGHT)
    }

    /// Adds what the rounds until `round` give. Nothing is saved up: a share is the most.
    fn reach(&mut self, round: u64) {
        let rounds = i64::try_from(round - self.round).unwrap_or(i64::MAX);
        let quantum = self.quantum();
        let gain = |share: i64| rounds.saturating_mul(share);
        self.left = self.left.saturating_add(gain(quantum)).min(quantum);
        self.ahead = self.ahead.saturating_add(gain(quantum / 2)).min(quantum / 2);
        self.round = round;
    }

    /// How many rounds it takes until something is left.
    fn rounds(self) -> u64 {
        if self.left > 0 { 0 } else { (self.left.unsigned_abs() / self.quantum().unsigned_abs()) + 1 }
    }
}

/// The order of turns. See the module's text.
#[derive(Debug, Default)]
pub struct Schedule {
    control: VecDeque<SessionSlot>,
    expedited: VecDeque<SessionSlot>,
    /// Sessions with data and something left of their share.
    active: VecDeque<SessionSlot>,
    /// Sessions with data whose share of this round is used up.
    spent: VecDeque<SessionSlot>,
    /// By slot. `None`: nothing is known of it.
    shares: Vec<Option<Share>>,
    round: u64,
    /// Places in all four queues.
    waiting: usize,
}

impl Schedule {
    /// Whether nobody waits.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    /// Whether sessions wait with data.
    #[inline]
    pub fn has_data(&self) -> bool {
        !self.active.is_empty() || !self.spent.is_empty()
    }

    /// Whether anybody waits with messages.
    fn has_company(&self) -> bool {
        self.has_data() || !self.expedited.is_empty()
    }

    /// Puts a session with control frames before all with data.
    pub fn enqueue_control(&mut self, slot: SessionSlot) {
        self.waiting += 1;
        self.control.push_back(slot);
    }

    /// Puts a session before all with data, for its expedited messages. It asks [`expedites`](Self::expedites) for each.
    pub fn enqueue_expedited(&mut self, slot: SessionSlot) {
        self.waiting += 1;
        self.expedited.push_back(slot);
    }

    /// Puts a session with data behind the others. One that stands there already stays where it is.
    pub fn enqueue(&mut self, slot: SessionSlot, weight: u16) {
        let share = self.share(slot, weight);
        if std::mem::replace(&mut share.waits, true) {
            return;
        }
        let queue = if share.left > 0 { &mut self.active } else { &mut self.spent };
        queue.push_back(slot);
        self.waiting += 1;
    }

    /// Whether a session may send ahead of the others: so far it has used less than half of its share for that.
    pub fn expedites(&mut self, slot: SessionSlot, weight: u16) -> bool {
        self.share(slot, weight).ahead > 0
    }

    /// The session whose turn it is and what for. It is out of its queue then.
    pub fn next_turn(&mut self) -> Option<(SessionSlot, Lane)> {
        let ahead = |queue: &mut VecDeque<_>, lane| queue.pop_front().map(|slot| (slot, lane));
        let next = ahead(&mut self.control, Lane::Control).or_else(|| ahead(&mut self.expedited, Lane::Expedited));
        let next = next.or_else(|| {
            if self.active.is_empty() {
                self.begin_round();
            }
            ahead(&mut self.active, Lane::Data)
        });
        let (slot, lane) = next?;
        self.waiting -= 1;
        if lane == Lane::Data
            && let Some(share) = self.known(slot)
        {
            share.waits = false;
        }
        Some((slot, lane))
    }

    /// How many bytes the turn of a session has that was out of the queue with [`next_turn`](Self::next_turn).
    pub fn turn(&mut self, slot: SessionSlot) -> u64 {
        if !self.has_data() {
            return u64::MAX;
        }
        let left = self.known(slot).map_or(QUANTUM as i64, |share| share.left);
        u64::try_from(left).unwrap_or(0).clamp(1, QUANTUM as u64)
    }

    /// A session has written so many bytes in its turn. They cost it nothing where nobody waits for his.
    pub fn charge(&mut self, slot: SessionSlot, bytes: u64) {
        if self.has_company()
            && let Some(share) = self.known(slot)
        {
            share.left = share.left.saturating_sub_unsigned(bytes);
        }
    }

    /// The same for what went ahead of the others: it comes out of the same share.
    pub fn charge_expedited(&mut self, slot: SessionSlot, bytes: u64) {
        self.charge(slot, bytes);
        if self.has_company()
            && let Some(share) = self.known(slot)
        {
            share.ahead = share.ahead.saturating_sub_unsigned(bytes);
        }
    }

    /// A session is over: its place goes to nobody, and whoever has its slot next begins anew.
    pub fn forget(&mut self, slot: SessionSlot) {
        for queue in [&mut self.control, &mut self.expedited, &mut self.active, &mut self.spent] {
            queue.retain(|waiting| *waiting != slot);
        }
        self.waiting = self.control.len() + self.expedited.len() + self.active.len() + self.spent.len();
        if let Some(share) = self.shares.get_mut(slot.0 as usize) {
            *share = None;
        }
    }

    /// Everybody who waits has used up his share: as many rounds begin as it takes for one to have some again.
    fn begin_round(&mut self) {
        let shares = &mut self.shares;
        let waiting = self.spent.iter().filter_map(|slot| *shares.get(slot.0 as usize)?);
        let Some(rounds) = waiting.map(Share::rounds).min() else { return };
        self.round += rounds;
        // Those that still owe stay, in their order.
        for _ in 0..self.spent.len() {
            let Some(slot) = self.spent.pop_front() else { return };
            let Some(Some(share)) = shares.get_mut(slot.0 as usize) else { continue };
            share.reach(self.round);
            let queue = if share.left > 0 { &mut self.active } else { &mut self.spent };
            queue.push_back(slot);
        }
    }

    fn known(&mut self, slot: SessionSlot) -> Option<&mut Share> {
        self.shares.get_mut(slot.0 as usize)?.as_mut()
    }

    /// The share of a session of this weight as it is in this round.
    fn share(&mut self, slot: SessionSlot, weight: u16) -> &mut Share {
        let at = slot.0 as usize;
        if at >= self.shares.len() {
            self.shares.resize(at + 1, None);
        }
        let round = self.round;
        let share = self.shares[at].get_or_insert_with(|| {
            let mut share = Share { weight: weight.max(1), waits: false, round, left: 0, ahead: 0 };
            (share.left, share.ahead) = (share.quantum(), share.quantum() / 2);
            share
        });
        share.reach(round);
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The longest frame of a turn here, and the longest expedited message.
    const FRAME: u64 = QUANTUM as u64;
    const EXPEDITED: u64 = 1100;

    /// Sessions that write whatever a run of numbers says.
    struct Crowd {
        schedule: Schedule,
        weights: Vec<u16>,
        sent: Vec<u64>,
        choices: Vec<u64>,
        at: usize,
    }

    impl Crowd {
        fn new(weights: &[u16], choices: &[u64]) -> Self {
            let sent = vec![0; weights.len()];
            Self { schedule: Schedule::default(), weights: weights.to_vec(), sent, choices: choices.to_vec(), at: 0 }
        }

        /// A number from 1 to `most`.
        fn choose(&mut self, most: u64) -> u64 {
            self.at += 1;
            1 + self.choices[self.at % self.choices.len()].wrapping_mul(self.at as u64) % most
        }

        fn wait(&mut self, session: usize) {
            self.schedule.enqueue(SessionSlot(session as u32), self.weights[session]);
        }

        fn expedite(&mut self, session: usize) {
            let slot = SessionSlot(session as u32);
            if self.schedule.expedites(slot, self.weights[session]) {
                self.schedule.enqueue_expedited(slot);
            }
        }

        /// The next turn, in frames of whatever length; whose it was.
        fn turn(&mut self) -> Option<(usize, Lane)> {
            let (slot, lane) = self.schedule.next_turn()?;
            let session = slot.0 as usize;
            let mut written = 0;
            match lane {
                Lane::Control => {}
                Lane::Expedited => {
                    while written < QUANTUM as u64 && self.schedule.expedites(slot, self.weights[session]) {
                        let bytes = self.choose(EXPEDITED);
                        self.schedule.charge_expedited(slot, bytes);
                        written += bytes;
                    }
                }
                Lane::Data => {
                    let limit = self.schedule.turn(slot);
                    while written < limit.min(4 * FRAME) {
                        written += self.choose(FRAME);
                    }
                    self.schedule.charge(slot, written);
                }
            }
            self.sent[session] += written;
            Some((session, lane))
        }
    }

    /// How far two sessions that wait all the time come apart, in quanta of their own, over any interval of so many turns;
    /// and how far they may. Others come and go, and each sends ahead where it may. `told`: what the scheduler believes.
    fn apart(weights: &[u16], told: &[u16], choices: &[u64], turns: usize) -> (f64, f64) {
        let mut crowd = Crowd::new(told, choices);
        let (mut least, mut most) = (f64::MAX, f64::MIN);
        (0..weights.len()).for_each(|session| crowd.wait(session));
        let quantum = |session: usize| f64::from(weights[session]) * QUANTUM as f64 / f64::from(DEFAULT_WEIGHT);
        for _ in 0..turns {
            let who = crowd.choose(weights.len() as u64) as usize - 1;
            if crowd.choose(4) == 1 {
                crowd.expedite(who);
            }
            let (session, lane) = crowd.turn().expect("two always wait");
            if lane == Lane::Data && (session < 2 || crowd.choose(3) > 1) {
                crowd.wait(session);
            }
            if crowd.choose(3) == 1 {
                crowd.wait(who);
            }
            let ahead = crowd.sent[0] as f64 / quantum(0) - crowd.sent[1] as f64 / quantum(1);
            (least, most) = (least.min(ahead), most.max(ahead));
        }
        let over = (FRAME + EXPEDITED) as f64;
        (most - least, 3.0 + over / quantum(0) + over / quantum(1))
    }

    fn weights() -> impl Strategy<Value = Vec<u16>> {
        proptest::collection::vec(1..=256u16, 2..7)
    }

    proptest! {
        /// F4, over any interval in which both wait.
        #[test]
        fn sessions_that_wait_send_by_their_weights(weights in weights(), choices in proptest::collection::vec(any::<u64>(), 20..60)) {
            let (apart, bound) = apart(&weights, &weights, &choices, 2000);
            prop_assert!(apart <= bound, "{apart} quanta apart, and {bound} are the most");
        }

        /// Nobody waits for more than a turn of each, and what may go ahead: half a share and a message of each.
        #[test]
        fn a_late_comer_waits_for_a_turn_of_each(weights in weights(), choices in proptest::collection::vec(any::<u64>(), 20..60),
                                                 before in 0..300usize) {
            let last = weights.len();
            let mut crowd = Crowd::new(&[&weights[..], &[16]].concat(), &choices);
            (0..last).for_each(|session| crowd.wait(session));
            for _ in 0..before {
                if let Some((session, Lane::Data)) = crowd.turn() {
                    crowd.wait(session);
                }
            }
            crowd.wait(last);
            let mut turns = 0;
            while let Some((session, _)) = crowd.turn() && session != last {
                crowd.wait(session);
                turns += 1;
            }
            prop_assert!(turns <= last, "{turns} turns of {last} sessions");
        }
    }

    #[test]
    fn a_scheduler_that_ignores_weights_is_noticed() {
        let (apart, bound) = apart(&[16, 64], &[16, 16], &[3, 1 << 40, 77, 1234567], 2000);
        assert!(apart > bound, "{apart} quanta apart pass for {bound}");
    }

    #[test]
    fn a_session_that_sends_only_ahead_gets_its_share_and_no_more() {
        let mut crowd = Crowd::new(&[256, 16], &[1, 5, 1 << 33]);
        (0..2).for_each(|session| crowd.wait(session));
        let mut ahead = 0;
        for _ in 0..5000 {
            crowd.expedite(0);
            let before = crowd.sent[0];
            let (session, lane) = crowd.turn().unwrap();
            ahead += if lane == Lane::Expedited { crowd.sent[0] - before } else { 0 };
            crowd.wait(session);
        }
        let (urgent, other) = (crowd.sent[0] as f64, crowd.sent[1] as f64);
        assert!((urgent / other / 16.0 - 1.0).abs() < 0.05, "{urgent} against {other}");
        assert!((ahead as f64 / urgent - 0.5).abs() < 0.05, "{ahead} of {urgent} went ahead");
    }

    #[test]
    fn control_goes_first_and_what_is_expedited_second() {
        let mut schedule = Schedule::default();
        let slot = SessionSlot;
        schedule.enqueue(slot(0), 256);
        schedule.enqueue_expedited(slot(1));
        schedule.enqueue_control(slot(2));
        let order: Vec<_> = std::iter::from_fn(|| schedule.next_turn()).collect();
        assert_eq!(order, [(slot(2), Lane::Control), (slot(1), Lane::Expedited), (slot(0), Lane::Data)]);
        assert!(schedule.is_idle());
    }

    #[test]
    fn what_a_session_writes_while_nobody_waits_costs_it_nothing() {
        let mut schedule = Schedule::default();
        let (alone, late) = (SessionSlot(0), SessionSlot(1));
        for _ in 0..100 {
            schedule.enqueue(alone, 1);
            assert_eq!((schedule.next_turn(), schedule.turn(alone)), (Some((alone, Lane::Data)), u64::MAX));
            schedule.charge(alone, 1 << 20);
        }
        schedule.enqueue(alone, 1);
        schedule.enqueue(late, 1);
        assert_eq!(schedule.next_turn(), Some((alone, Lane::Data)));
        assert_eq!(schedule.turn(alone), 1024, "a whole share, for a weight of 1");
    }

    #[test]
    fn a_share_is_not_saved_up_and_a_debt_not_lost() {
        let mut schedule = Schedule::default();
        let (one, other) = (SessionSlot(0), SessionSlot(1));
        schedule.enqueue(one, 16);
        schedule.enqueue(other, 16);
        assert_eq!(schedule.next_turn(), Some((one, Lane::Data)));
        // Two shares at once; then it leaves, and comes back at once.
        schedule.charge(one, 2 * QUANTUM as u64);
        schedule.enqueue(one, 16);
        let mut turns = Vec::new();
        for _ in 0..4 {
            let (slot, _) = schedule.next_turn().expect("both wait");
            turns.push(slot);
            // Whoever has a turn uses his share up.
            schedule.charge(slot, QUANTUM as u64);
            schedule.enqueue(slot, 16);
        }
        assert_eq!(turns, [other, other, one, other], "it sits out the round that it has had, and no more");
    }

    #[test]
    fn whoever_has_a_slot_next_begins_anew() {
        let mut schedule = Schedule::default();
        let (one, other) = (SessionSlot(0), SessionSlot(1));
        schedule.enqueue(one, 1);
        schedule.enqueue(other, 1);
        assert_eq!(schedule.next_turn(), Some((one, Lane::Data)));
        schedule.charge(one, 1 << 20);
        schedule.forget(one);
        schedule.enqueue(one, 256);
        assert_eq!(schedule.next_turn(), Some((other, Lane::Data)));
        assert_eq!((schedule.next_turn(), schedule.is_idle()), (Some((one, Lane::Data)), true));
        schedule.enqueue(other, 1);
        schedule.forget(other);
        assert_eq!((schedule.next_turn(), schedule.is_idle()), (None, true));
    }
}
