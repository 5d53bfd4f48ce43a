//! Deadlines: set without a clock, given their time by the driver, and swept coarsely, so that a call registers no timer.

use std::time::Duration;

use super::Session;
use crate::code::Code;
use crate::id::{ExchangeKey, Side};
use crate::proto::error::Origin;
use crate::proto::exchange::Deadline;
use crate::proto::time::Time;
use crate::wire::frame::Reason;

impl<U: Default> Session<U> {
    /// Puts times to the deadlines that were set since the last call.
    pub fn stamp(&mut self, now: Time) {
        self.stamp_wanted = false;
        if self.stalls.has_pending() {
            self.stalls.stamp(now);
        }
        while let Some(key) = self.unstamped.pop() {
            let Some(exchange) = self.exchanges.get_mut(key) else { continue };
            let Deadline::Unstamped(ms) = exchange.deadline else { continue };
            let at = now.after(Duration::from_millis(u64::from(ms)));
            exchange.deadline = Deadline::At(at);
            self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
        }
    }

    /// A time at or before the next deadline of the session.
    pub fn next_deadline(&self) -> Option<Time> {
        self.next_deadline
    }

    /// Ends the exchanges whose deadline has passed: callers of this side find `DEADLINE` and the peer is asked to stop;
    /// calls of the peer are reset. `expired` names each with its opener, so that callers are woken and handlers stopped.
    pub fn handle_deadlines(&mut self, now: Time, mut expired: impl FnMut(ExchangeKey, Side)) {
        if self.next_deadline.is_none_or(|next| next > now) {
            return;
        }
        let (mut next, mut due) = (None::<Time>, Vec::new());
        for (key, exchange) in self.exchanges.iter_mut() {
            match exchange.deadline {
                Deadline::At(at) if at <= now => {
                    exchange.deadline = Deadline::None;
                    due.push((key, exchange.opener));
                }
                Deadline::At(at) => next = Some(next.map_or(at, |next| next.min(at))),
                Deadline::None | Deadline::Unstamped(_) => {}
            }
        }
        self.next_deadline = next;
        for (key, opener) in due {
            self.expire(key, opener);
            expired(key, opener);
        }
    }

    fn expire(&mut self, key: ExchangeKey, opener: Side) {
        let reason = Reason::new(Code::DEADLINE, "");
        if opener == Side::Acceptor {
            if let Some(exchange) = self.exchanges.get_mut(key) {
                // A CANCEL that crosses this comes for the same reason.
                exchange.arrived = None;
            }
            return self.reset(key, reason);
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.xid.is_none() {
            // The caller is promised that nothing was started, so nothing may be written any more.
            exchange.rx.fail(reason, Origin::Local, false);
            return exchange.withdraw();
        }
        if (exchange.rx.done && exchange.tx.is_done()) || exchange.rx.message.is_some() {
            return;
        }
        let may_have_started = exchange.may_have_started(None);
        exchange.rx.fail(reason.clone(), Origin::Local, may_have_started);
        exchange.reset(reason);
        self.abandon_rx(key, Code::DEADLINE);
        self.queue(key);
    }
}
