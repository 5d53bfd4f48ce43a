//! Credit arithmetic (docs/PROTOCOL.md §7): absolute, monotone maxima in bytes, the same at stream, session and
//! connection. No allocation; a time only for windows that grow.

use super::growth::Growth;
use super::time::Time;

/// What may still be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendCredit {
    max: u64,
    used: u64,
}

impl SendCredit {
    /// Credit of `window` bytes from the start.
    pub const fn new(window: u64) -> Self {
        Self { max: window, used: 0 }
    }

    /// Credit as it was: `max` announced, `used` taken.
    pub const fn resumed(max: u64, used: u64) -> Self {
        Self { max, used }
    }

    /// The highest maximum announced by the peer.
    #[inline]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Bytes that may be sent now.
    #[inline]
    pub const fn available(&self) -> u64 {
        self.max - self.used
    }

    /// Bytes sent so far.
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Takes `n` bytes.
    ///
    /// # Panics
    /// If fewer are available: callers look first.
    #[inline]
    pub const fn take(&mut self, n: u64) {
        assert!(n <= self.available(), "credit is looked at before it is taken");
        self.used += n;
    }

    /// The peer announced `max`. A smaller one than known is old news and changes nothing (maxima never decrease).
    /// Tells whether there is more credit than before.
    #[inline]
    pub const fn raise(&mut self, max: u64) -> bool {
        let more = max > self.max;
        if more {
            self.max = max;
        }
        more
    }
}

/// The peer sent more than it had credit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

/// What the peer may send to us: the maximum it was told, and what the application has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    window: u64,
    max: u64,
    released: u64,
    received: u64,
    announced: Time,
}

impl Grant {
    /// Credit of `window` bytes, known to the peer from the start.
    pub const fn new(window: u64) -> Self {
        Self { window, max: window, released: 0, received: 0, announced: Time::from_micros(0) }
    }

    /// The maximum that the peer knows, or will know with the next announcement.
    #[inline]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Bytes that the application has taken.
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// The application has taken `n` bytes.
    #[inline]
    pub const fn release(&mut self, n: u64) {
        self.released += n;
    }

    /// So much has been received in all, and is done with already.
    #[inline]
    pub const fn note_passed_on(&mut self, received: u64) {
        (self.received, self.released) = (received, received);
    }

    /// Bytes received so far, as far as is known here.
    #[inline]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether an announcement is worth its frame: at least half of the window would be new to the peer, or the peer
    /// has little left and the rest of the window is held by somebody who takes nothing.
    #[inline]
    pub const fn is_due(&self) -> bool {
        let next = self.released + self.window;
        next > self.max && (next - self.max >= self.window / 2 || self.is_low())
    }

    /// Whether less than a quarter of the window is left to the peer.
    #[inline]
    pub const fn is_low(&self) -> bool {
        self.max - self.received < self.window / 4
    }

    /// How much the peer may send ahead of the application.
    #[inline]
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// [`announce`](Self::announce) with a window that is doubled, up to `most`, where it holds the peer up, and that is as it
    /// was `first` where the path turns out to be short: what was announced remains, and nothing more is until it is used up.
    pub fn announce_grown(&mut self, first: u64, most: u64, growth: &mut Growth) -> u64 {
        let part = (self.released + self.window).saturating_sub(self.max);
        if self.window < most && growth.is_held_up(self.announced, part, self.window) {
            self.window += growth.take(self.window.min(most - self.window));
        } else if self.window > first && growth.is_near() {
            self.window = first;
        }
        self.announced = growth.now();
        self.announce()
    }

    /// Raises the maximum to a whole window beyond what was released, and yields it for the announcement.
    pub const fn announce(&mut self) -> u64 {
        let max = self.released + self.window;
        if max > self.max {
            self.max = max;
        }
        self.max
    }
}

/// A [`Grant`] together with what the peer has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvCredit {
    grant: Grant,
}

impl RecvCredit {
    /// Credit of `window` bytes, known to the peer from the start.
    pub const fn new(window: u64) -> Self {
        Self { grant: Grant::new(window) }
    }

    /// Credit as it was: `max` announced, `received` received and released.
    pub const fn resumed(window: u64, max: u64, received: u64) -> Self {
        Self { grant: Grant { window, max, released: received, received, announced: Time::from_micros(0) } }
    }

    /// Counts `n` received bytes.
    ///
    /// # Errors
    /// [`Overrun`] if they exceed what was announced; nothing is counted then.
    #[inline]
    pub const fn receive(&mut self, n: u64) -> Result<(), Overrun> {
        if n > self.grant.max - self.grant.received {
            return Err(Overrun);
        }
        self.grant.received += n;
        Ok(())
    }

    /// Bytes received so far.
    #[inline]
    pub const fn received(&self) -> u64 {
        self.grant.received
    }

    /// What the peer may send yet, as was announced.
    #[inline]
    pub const fn left(&self) -> u64 {
        self.grant.max - self.grant.received
    }

    /// Bytes received and not yet released.
    #[inline]
    pub const fn held(&self) -> u64 {
        self.grant.received - self.grant.released
    }

    /// The maximum that the peer knows, or will know with the next announcement.
    #[inline]
    pub const fn max(&self) -> u64 {
        self.grant.max
    }

    /// The application has taken `n` bytes.
    ///
    /// # Panics
    /// If more is released than was received: a mistake in this crate, never of a peer.
    #[inline]
    pub const fn release(&mut self, n: u64) {
        assert!(n <= self.held(), "no more is released than was received");
        self.grant.release(n);
    }

    /// Whether at least half of the window would be new to the peer.
    #[inline]
    pub const fn is_due(&self) -> bool {
        self.grant.is_due()
    }

    /// Whether the peer has so little left that any announcement would be worth its frame.
    #[inline]
    pub const fn is_low(&self) -> bool {
        self.grant.is_low()
    }

    /// How much the peer may send ahead of the application.
    #[inline]
    pub const fn window(&self) -> u64 {
        self.grant.window
    }

    /// Raises the maximum to a whole window beyond what was released, and yields it for the announcement.
    pub const fn announce(&mut self) -> u64 {
        self.grant.announce()
    }

    /// See [`Grant::announce_grown`].
    pub fn announce_grown(&mut self, first: u64, most: u64, growth: &mut Growth) -> u64 {
        self.grant.announce_grown(first, most, growth)
    }

    /// Admits `n` bytes beyond what was received so far (a message larger than the window).
    pub const fn admit(&mut self, n: u64) {
        let max = self.grant.received.saturating_add(n);
        if max > self.grant.max {
            self.grant.max = max;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_byte_over_the_window_is_an_overrun() {
        let mut credit = RecvCredit::new(100);
        assert_eq!(credit.receive(99), Ok(()));
        assert_eq!(credit.receive(2), Err(Overrun));
        assert_eq!(credit.receive(1), Ok(()));
        assert_eq!(credit.receive(1), Err(Overrun));
        assert_eq!(credit.receive(u64::MAX), Err(Overrun), "no arithmetic of the peer's wraps");
    }

    #[test]
    fn an_old_announcement_changes_nothing() {
        let mut credit = SendCredit::new(10);
        assert!(credit.raise(20));
        assert!(!credit.raise(15));
        assert!(!credit.raise(20));
        assert_eq!(credit.available(), 20);
        assert!(credit.raise(u64::MAX));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send(u64),
        Release(u64),
        Announce,
        Admit(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..2000u64).prop_map(Step::Send),
            (0..2000u64).prop_map(Step::Release),
            Just(Step::Announce),
            (0..5000u64).prop_map(Step::Admit),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// F1 and F2: what is sent never exceeds what was announced, and maxima never decrease.
        #[test]
        fn a_sender_within_its_credit_never_overruns(window in 512..4096u64, steps in steps()) {
            let (mut send, mut recv) = (SendCredit::new(window), RecvCredit::new(window));
            for step in steps {
                let before = recv.max();
                match step {
                    Step::Send(n) => {
                        let n = n.min(send.available());
                        send.take(n);
                        prop_assert_eq!(recv.receive(n), Ok(()));
                    }
                    Step::Release(n) => recv.release(n.min(recv.held())),
                    Step::Announce => { send.raise(recv.announce()); }
                    Step::Admit(n) => { recv.admit(n); send.raise(recv.max()); }
                }
                prop_assert!(recv.max() >= before);
                prop_assert!(send.used() <= recv.max());
            }
            // F3: once all is released, the whole window is open again.
            recv.release(recv.held());
            send.raise(recv.announce());
            prop_assert!(send.available() >= window);
        }

        /// Whatever is released, an announcement comes in time: a sender that has nothing left never waits for ever.
        #[test]
        fn an_announcement_is_due_before_the_sender_starves(window in 512..4096u64, chunk in 1..512u64) {
            let (mut send, mut recv) = (SendCredit::new(window), RecvCredit::new(window));
            for _ in 0..1000 {
                let n = chunk.min(send.available());
                prop_assert!(n > 0);
                send.take(n);
                prop_assert_eq!(recv.receive(n), Ok(()));
                recv.release(n);
                if recv.is_due() {
                    send.raise(recv.announce());
                }
            }
        }
    }
}
