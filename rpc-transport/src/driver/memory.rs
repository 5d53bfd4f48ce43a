//! What a connection holds for its peer: counted when much has arrived or nothing leaves, and again until it is gone.

use std::time::Duration;

use rpc_core::proto::Time;

use super::Driver;
use crate::budget::{BudgetLevel, Share};
use crate::state::Link;

/// What a connection counts for from its start, in bytes: its task and first buffers, and what arrives between two looks.
const BASE: u64 = 32 * 1024;

/// What each session counts for, in bytes, whatever happens in it (benches/sessions.rs); the first few are in the base.
const RESTING: u64 = 128;
const FIRST: usize = 16;

/// Bytes that arrive before it is worth a look.
const WORTH: usize = 16 * 1024;

/// The shortest time between two looks: a look costs a few nanoseconds for each exchange that is live.
const PAUSE: Duration = Duration::from_millis(10);

/// How long until what is held is looked at again: what the application takes tells nobody.
const AGAIN: Duration = Duration::from_millis(500);

/// What a session may have waiting to be sent where memory is short, in bytes: a first window.
const SHORT: u64 = 2 * 1024 * 1024;

/// The account of a connection.
pub(super) struct Memory {
    /// `None`: this side chose its peer, and does not count.
    share: Option<Share>,
    /// Bytes read since the last look.
    arrived: usize,
    /// When to look.
    at: Option<Time>,
}

impl Memory {
    pub(super) fn new(mut share: Option<Share>, link: &Link) -> Self {
        match &mut share {
            Some(share) => share.set(BASE),
            // Only the limits of each window hold.
            None => link.lock().out.growth().allow(u64::MAX),
        }
        Self { share, arrived: 0, at: None }
    }

    /// `n` bytes have arrived.
    #[inline]
    pub(super) fn heard(&mut self, n: usize, now: Time) {
        self.arrived += n;
        if self.arrived >= WORTH {
            self.look(now);
        }
    }

    /// It is worth a look, soon.
    #[cold]
    pub(super) fn look(&mut self, now: Time) {
        self.arrived = 0;
        if self.share.is_some() {
            let soon = now.after(PAUSE);
            self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// When to look at the latest.
    pub(super) fn next(&self) -> Option<Time> {
        self.at
    }

    /// Whether there is too little left for a further session.
    pub(super) fn is_tight(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.budget().level() >= BudgetLevel::Tight)
    }
}

impl Driver {
    /// Counts what is held, where it is time.
    pub(super) fn count_memory(&mut self, now: Time) {
        if self.memory.at.is_none_or(|at| now < at) {
            return;
        }
        // Where memory is short, whoever takes nothing gets no more than he would have room for himself.
        let most = if self.memory.is_tight() { self.limits.unsent.min(SHORT) } else { self.limits.unsent };
        let mut sessions = 0;
        for entry in self.sessions.awake() {
            let mut core = entry.state.lock();
            core.proto.bound_unsent(most);
            sessions += core.proto.footprint();
        }
        let resting = RESTING * self.sessions.len().saturating_sub(FIRST) as u64;
        let (waiting, wanted) = {
            let mut link = self.link.lock();
            (link.out.waiting() + self.output.len(), link.out.growth().take_wanted())
        };
        // The first buffer is in the base.
        let input = self.input.capacity().saturating_sub(super::FIRST_BUFFER);
        let passing = sessions + waiting as u64;
        let mut room = 0;
        if let Some(share) = &mut self.memory.share {
            share.set(BASE + resting + passing + input as u64);
            // What windows have grown by is in what the sessions hold. What they may still grow by is taken from the budget
            // ahead, and goes back where nobody asks for it any more.
            if wanted > 0 && share.try_grow(wanted) {
                room = wanted;
            }
            self.link.lock().out.growth().allow(room);
        }
        // The buffer changes only where something arrives.
        self.memory.at = (passing + room > 0).then(|| now.after(AGAIN));
    }
}
