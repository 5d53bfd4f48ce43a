//! What all peers together make this process hold: counted at coarse points, bounded by refusing more of them.

use std::fmt;

use crate::sync::{Arc, AtomicU64, Notify, Ordering};

/// Above so many hundredths no session is added; above the second, no connection is.
const MARKS: (u64, u64) = (85, 95);

/// The memory that a server, or several that share it, may hold for peers. Clones share everything.
///
/// Counted are the buffers of connections, what has arrived and was not taken, incomplete messages included, and what
/// waits for peers that take nothing. Not counted is what handlers hold. The driver of a connection counts anew when much
/// has arrived or nothing leaves, and not for each call.
///
/// ```
/// use rpc_transport::{Budget, BudgetLevel};
///
/// let budget = Budget::new(1000);
/// let mut share = budget.share();
/// share.set(900);
/// assert_eq!((budget.held(), budget.level()), (900, BudgetLevel::Tight));
/// drop(share);
/// assert_eq!(budget.level(), BudgetLevel::Room);
/// ```
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    most: u64,
    held: AtomicU64,
    /// Told when what is held falls below the upper mark.
    fell: Notify,
}

/// How much of a budget is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetLevel {
    /// Less than 85 %.
    Room,
    /// From 85 % on: new sessions are refused.
    Tight,
    /// From 95 % on: no connection is accepted.
    Full,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { inner: Arc::new(Inner { most: bytes, held: AtomicU64::new(0), fell: Notify::new() }) }
    }

    /// Bytes that may be held.
    pub fn most(&self) -> u64 {
        self.inner.most
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.inner.held.load(Ordering::Relaxed)
    }

    /// How much that is.
    pub fn level(&self) -> BudgetLevel {
        self.inner.level(self.held())
    }

    /// The part of one holder, of nothing at first.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), held: 0 }
    }

    /// Waits until it is less than full.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn not_full(&self) {
        loop {
            // Made before the look, it misses no fall behind it.
            let fell = self.inner.fell.notified();
            if self.level() < BudgetLevel::Full {
                return;
            }
            fell.await;
        }
    }
}

impl Inner {
    fn level(&self, held: u64) -> BudgetLevel {
        let above = |mark: u64| u128::from(held) * 100 >= u128::from(self.most) * u128::from(mark);
        match (above(MARKS.0), above(MARKS.1)) {
            (_, true) => BudgetLevel::Full,
            (true, _) => BudgetLevel::Tight,
            _ => BudgetLevel::Room,
        }
    }

    fn release(&self, bytes: u64) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        if self.level(before) == BudgetLevel::Full && self.level(before - bytes) < BudgetLevel::Full {
            self.fell.notify_waiters();
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("most", &self.inner.most).field("held", &self.held()).finish()
    }
}

/// What one holder has of a [`Budget`]; it is given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    held: u64,
}

impl Share {
    /// The budget that it is of.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes held by this holder.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// So many bytes are held, whether there is room for them or not: what is there is there.
    pub fn set(&mut self, bytes: u64) {
        let inner = &self.budget.inner;
        if bytes > self.held {
            inner.held.fetch_add(bytes - self.held, Ordering::Relaxed);
        } else if bytes < self.held {
            inner.release(self.held - bytes);
        }
        self.held = bytes;
    }

    /// Takes `bytes` more where that leaves [`BudgetLevel::Room`]: for what can be done without, as a window that would
    /// be larger. `false`: nothing was taken.
    #[must_use]
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let inner = &self.budget.inner;
        let grown = |held: u64| held.checked_add(bytes).filter(|held| inner.level(*held) == BudgetLevel::Room);
        let took = inner.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        self.held += if took { bytes } else { 0 };
        took
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_levels_begin_at_their_marks_and_not_below() {
        let budget = Budget::new(1000);
        let mut share = budget.share();
        use BudgetLevel::{Full, Room, Tight};
        for (held, level) in [(0, Room), (849, Room), (850, Tight), (949, Tight), (950, Full), (951, Full), (5000, Full)] {
            share.set(held);
            assert_eq!((budget.held(), budget.level()), (held, level));
        }
    }

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Budget::new(1000);
        let (mut one, mut other) = (budget.share(), budget.share());
        one.set(300);
        other.set(500);
        one.set(100);
        assert_eq!((budget.held(), one.held()), (600, 100));
        drop(other);
        assert_eq!(budget.held(), 100);
        drop(one);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_can_be_done_without_grows_only_where_room_is_left() {
        let budget = Budget::new(1000);
        let mut share = budget.share();
        assert!(share.try_grow(849));
        assert!(!share.try_grow(1));
        assert!(!share.try_grow(u64::MAX));
        assert_eq!((budget.held(), share.held()), (849, 849));
    }

    #[test]
    fn whoever_waits_for_room_is_told_when_the_last_byte_too_many_is_gone() {
        let budget = Budget::new(1000);
        let mut share = budget.share();
        share.set(950);
        let mut waiting = pin!(budget.not_full());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending);
        share.set(949);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(()));
    }
}
