//! Messages that take several frames: where their pieces come together, and which of those that are larger than their window may
//! come in (docs/PROTOCOL.md §7.3).

use super::receive::{Refused, one_message, overrun, too_large};
use super::{Session, SessionEvent};
use crate::code::Code;
use crate::id::ExchangeKey;
use crate::pool;
use crate::proto::exchange::{Admission, AnswerKind, Held, Partial};
use crate::proto::time::Time;
use crate::wire::frame::{Frame, MIN_CHARGE, Reason, flag};

/// What is reserved for a message that has begun: so many times what has come of it at the most. So announcing 4 MiB costs
/// nobody 4 MiB, and one or two pieces of the usual length are enough for that.
const AHEAD: usize = 16;

impl<U: Default> Session<U> {
    /// The first piece of a message that takes several frames: everything is checked before anything is kept.
    pub(super) fn begin(
        &mut self,
        key: ExchangeKey,
        total: u64,
        bytes: &[u8],
        frame: &Frame<'_>,
        is_error: bool,
    ) -> Result<(), Refused> {
        if total > self.config.windows.message {
            return Err(too_large(total, self.config.windows.message));
        }
        let remaining = total.checked_sub(bytes.len() as u64).filter(|remaining| *remaining > 0);
        let Some(remaining) = remaining else {
            return Err(Refused(Reason::new(Code::PROTOCOL, "the first piece is not shorter than its message")));
        };
        let comes_in = self.admission.is_empty() && lets_in(self.admitted, total, self.config.reassembly);
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(()) };
        let rx = &mut exchange.rx;
        let fits = rx.credit.received() + remaining + MIN_CHARGE <= rx.credit.max();
        let admission = if fits { Admission::NotNeeded } else { Admission::Waiting };
        // What a sender has left behind a message that was admitted is too little to begin another with, if it makes its
        // pieces as long as it must (§6.3). So a stream holds its window and one such message, whoever reads it or not.
        if admission == Admission::Waiting && rx.credit.held() - frame.charge() > rx.credit.window() {
            return Err(overrun());
        }
        let total = total as usize;
        let place = place(bytes, total, fits || comes_in);
        let partial = Partial { bytes: place, total, is_error, charged: frame.charge(), admission };
        rx.partial = Some(Box::new(partial));
        self.release_shared(frame.charge());
        if admission == Admission::Waiting {
            self.admission.push_back(key);
            self.admit();
        }
        Ok(())
    }

    /// A further piece.
    pub(super) fn continue_message(
        &mut self,
        key: ExchangeKey,
        frame: &Frame<'_>,
        now: Time,
    ) -> Result<Option<SessionEvent>, Refused> {
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(None) };
        let rx = &mut exchange.rx;
        let Some(partial) = &mut rx.partial else { return Ok(None) };
        let complete = partial.bytes.len() + frame.body.len() == partial.total;
        let (eom, end) = (frame.has(flag::EOM), frame.has(flag::END));
        if partial.bytes.len() + frame.body.len() > partial.total || complete != eom || (end && !eom) || frame.body.is_empty() {
            return Err(Refused(Reason::new(Code::PROTOCOL, "the pieces of a message do not add up to its length")));
        }
        let arrived = partial.bytes.len() + frame.body.len();
        if partial.bytes.capacity() < partial.total && partial.admission != Admission::Waiting && is_ample(arrived, partial.total)
        {
            // Admitted, and enough of it has arrived: the rest of its memory is worth reserving at once.
            partial.bytes.reserve_exact(partial.total - partial.bytes.len());
        }
        partial.bytes.extend_from_slice(frame.body);
        partial.charged += frame.charge();
        if !complete {
            self.release_shared(frame.charge());
            return Ok(None);
        }
        let opens = exchange.tx.open.is_some();
        let single = opens || (!partial.is_error && rx.kind != AnswerKind::Many);
        if (single || partial.is_error) && !opens && !end {
            return Err(one_message());
        }
        let Some(partial) = rx.partial.take() else { return Ok(None) };
        rx.done |= end;
        if single || partial.is_error {
            rx.message = Some(partial.bytes);
            rx.message_is_error = partial.is_error;
        } else {
            exchange.streams().incoming.push(&partial.bytes);
        }
        let held = Held { stream: partial.charged, shared: 0 };
        self.release_shared(frame.charge());
        self.completed(key, partial.admission);
        if opens {
            self.release_held(key, held);
            return Ok(self.start(key, now));
        }
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.rx.held.add(held);
        }
        Ok(Some(SessionEvent::Readable(key)))
    }

    /// Lets large messages in, in order, as the budget allows; the first in the queue always, so that none is too large
    /// to ever come in.
    fn admit(&mut self) {
        while let Some(&key) = self.admission.front() {
            let Some(exchange) = self.exchanges.get_mut(key) else {
                self.admission.pop_front();
                continue;
            };
            let rx = &mut exchange.rx;
            let Some(partial) = &mut rx.partial else {
                self.admission.pop_front();
                continue;
            };
            let total = partial.total as u64;
            if !lets_in(self.admitted, total, self.config.reassembly) {
                return;
            }
            self.admission.pop_front();
            self.admitted += total;
            partial.admission = Admission::Admitted(total);
            rx.credit.admit(total - partial.bytes.len() as u64 + MIN_CHARGE);
            if !rx.announce {
                rx.announce = true;
                self.announces.push(key);
                self.control_due = true;
            }
        }
    }

    /// A message is complete, or will never be.
    fn completed(&mut self, key: ExchangeKey, admission: Admission) {
        match admission {
            Admission::Admitted(total) => self.admitted -= total,
            // It leaves the queue, wherever it stood: so that holds those that wait and no others.
            Admission::Waiting => self.admission.retain(|waiting| *waiting != key),
            Admission::NotNeeded => return,
        }
        self.admit();
    }

    /// Drops a half message of an exchange that nobody reads any more.
    pub(super) fn drop_partial(&mut self, key: ExchangeKey) {
        if let Some(exchange) = self.exchanges.get_mut(key)
            && let Some(partial) = exchange.rx.partial.take()
        {
            self.completed(key, partial.admission);
        }
    }
}

/// Whether so much of a message has come that all of its memory is worth reserving.
fn is_ample(arrived: usize, total: usize) -> bool {
    arrived.saturating_mul(AHEAD) >= total
}

/// Where a message of `total` bytes comes together: the whole place at once where it may come in and its first piece is
/// ample, so that it is not moved later.
fn place(first: &[u8], total: usize, comes_in: bool) -> Vec<u8> {
    let mut place = if comes_in && is_ample(first.len(), total) { pool::large(total) } else { Vec::new() };
    place.extend_from_slice(first);
    place
}

/// Whether the next message in the queue may come in beside those that were `admitted`; where there is none, however long.
fn lets_in(admitted: u64, total: u64, budget: u64) -> bool {
    admitted == 0 || admitted + total <= budget
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reserved_for_what_begins_with_an_ample_piece_and_may_come_in() {
        const TOTAL: usize = 4 << 20;
        let first = vec![7; TOTAL / AHEAD];
        for (len, comes_in, reserved) in
            [(TOTAL / AHEAD, true, true), (TOTAL / AHEAD - 1, true, false), (TOTAL / AHEAD, false, false), (1, true, false)]
        {
            let place = place(&first[..len], TOTAL, comes_in);
            assert_eq!(place, first[..len]);
            assert_eq!(place.capacity() >= TOTAL, reserved, "{len}, {comes_in}");
            assert!(reserved || place.capacity() <= len.max(8), "{} bytes for {len}", place.capacity());
        }
    }
}
