//! What a peer provokes in a session, and when it has been too much (docs/PROTOCOL.md §8.5).

use std::time::Duration;

use super::bucket::{Allowance, Bucket};
use super::error::ProtocolError;
use super::time::Time;
use crate::code::Code;

/// A call that has run for so long was not opened to be cancelled: that its caller has lost patience or interest is no
/// provocation. The work of such calls is bounded by their places, ten times a second.
const PREMATURE: Duration = Duration::from_millis(100);

/// What was provoked since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Toll {
    /// Calls that the peer cancelled before they were answered, and soon.
    pub cancels: u64,
    /// Faults of the peer that were answered with a reset.
    pub resets: u64,
    /// Calls of the peer that have come to their end otherwise.
    pub completed: u64,
}

/// The account of one session.
#[derive(Debug)]
pub(super) struct Patience {
    cancels: Bucket,
    resets: Bucket,
    /// Not charged yet.
    due: Toll,
    /// Calls ever charged, and completed calls ever credited: what is new is a difference of counters that there are.
    cancelled: u64,
    credited: u64,
}

impl Patience {
    pub(super) fn new(cancels: Allowance, resets: Allowance) -> Self {
        let (cancels, resets) = (Bucket::new(cancels), Bucket::new(resets));
        Self { cancels, resets, due: Toll::default(), cancelled: 0, credited: 0 }
    }

    /// Nothing was charged, of a session in which `finished` calls of the peer have ended.
    pub(super) fn resume(&mut self, finished: u64) {
        self.credited = finished;
    }

    /// Whether nothing is missing of it.
    pub(super) fn is_full(&self, now: Time) -> bool {
        !self.is_due() && self.cancels.is_full(now) && self.resets.is_full(now)
    }

    /// The peer cancelled a call that arrived at `arrived`: once, however often it says so.
    pub(super) fn cancelled(&mut self, arrived: &mut Option<Time>, now: Time) {
        if arrived.take().is_some_and(|arrived| now.since(arrived) < PREMATURE) {
            self.due.cancels += 1;
        }
    }

    /// This side has to reset an exchange because of what the peer did.
    pub(super) fn provoked(&mut self) {
        self.due.resets += 1;
    }

    /// Whether there is anything to charge.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.due.cancels | self.due.resets != 0
    }

    /// Charges what is due. `finished` is how many calls of the peer have ended so far, however they did.
    ///
    /// # Errors
    /// It was too much.
    pub(super) fn charge(&mut self, finished: u64, now: Time) -> Result<Toll, ProtocolError> {
        let mut toll = std::mem::take(&mut self.due);
        self.cancelled += toll.cancels + toll.resets;
        toll.completed = finished.saturating_sub(self.cancelled).saturating_sub(self.credited);
        self.credited += toll.completed;
        if !self.cancels.take(toll.cancels, toll.completed, now) {
            return Err(ProtocolError::new(Code::CALM, "too many calls were cancelled as soon as they were made"));
        }
        if !self.resets.take(toll.resets, 0, now) {
            return Err(ProtocolError::new(Code::CALM, "too many calls broke the rules"));
        }
        Ok(toll)
    }
}
