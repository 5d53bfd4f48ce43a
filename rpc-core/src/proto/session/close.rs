//! How a session ends (docs/PROTOCOL.md §5.4, §5.5): in good order, with each side telling whether its application took
//! everything; or at once, with every open call told whether it can have run.
//!
//! ```text
//! Open ── close() or S_CLOSE received ──▶ Closing ── S_CLOSE written and received, nothing live ──▶ S_CLOSE_DONE written
//!                                                                  └─ and received ──▶ finished
//! ```
//! A side that learns that the other closes opens nothing further itself and says so at once, so that neither has to
//! guess what is still under way.

use super::Session;
use crate::code::Code;
use crate::id::{ExchangeKey, Side};
use crate::proto::error::{Origin, ProtocolError};
use crate::proto::exchange::TxState;
use crate::wire::frame::{Abort, Frame, Reason, read_varints};

/// How far the end of a session has come.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// This side opens no further exchanges.
    asked: bool,
    /// S_CLOSE was written.
    sent: bool,
    /// S_CLOSE was received.
    received: bool,
    /// Exchanges of which the application here let go before it had taken everything.
    pub(super) untaken: u64,
    /// S_CLOSE_DONE was written.
    done: bool,
    /// What the peer's S_CLOSE_DONE said.
    peer_untaken: Option<u64>,
}

/// What the peer's application made of everything that this side sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Exchanges of which it let go before it had taken everything.
    pub untaken: u64,
}

impl<U: Default> Session<U> {
    /// This side opens no further exchanges. What is live runs on; S_CLOSE goes out behind the calls that are queued.
    pub fn close(&mut self) {
        self.closing.asked = true;
    }

    /// Whether no further exchanges will be opened, because either side closes.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing.asked
    }

    /// What the peer said of its application at an orderly end; `None` as long as it has said nothing.
    pub fn closed(&self) -> Option<Closed> {
        self.closing.peer_untaken.map(|untaken| Closed { untaken })
    }

    /// Whether the session can be forgotten: it has failed, or both applications have done with everything.
    pub fn is_finished(&self) -> bool {
        self.failed.is_some() || (self.closing.done && self.closing.peer_untaken.is_some())
    }

    /// Whether the peer said that it opens no further exchanges.
    pub(super) fn peer_closed(&self) -> bool {
        self.closing.received
    }

    /// Whether S_CLOSE is due: behind the last call that is to be opened.
    pub(super) fn close_due(&self) -> bool {
        self.closing.asked && !self.closing.sent && self.failed.is_none() && !self.has_unopened()
    }

    fn has_unopened(&self) -> bool {
        let unopened = |key: &ExchangeKey| {
            self.exchanges.get(*key).is_some_and(|exchange| exchange.tx.open.is_some() && exchange.xid.is_none())
        };
        self.ring.iter().chain(&self.parked).chain(&self.waiting).any(unopened)
    }

    /// S_CLOSE was written.
    pub(super) fn close_written(&mut self) {
        self.closing.sent = true;
        self.settle_close();
    }

    /// Whether S_CLOSE_DONE is due: nothing is live, and nothing can become so.
    pub(super) fn done_due(&self) -> bool {
        let Closing { sent, received, done, .. } = self.closing;
        sent && received && !done && self.exchanges.len() == 0
    }

    /// Has S_CLOSE_DONE written if that is due.
    #[inline]
    pub(super) fn settle_close(&mut self) {
        if self.closing.received {
            self.control_due |= self.done_due();
        }
    }

    /// What S_CLOSE_DONE says, which is being written.
    pub(super) fn done_written(&mut self) -> u64 {
        self.closing.done = true;
        self.closing.untaken
    }

    /// S_CLOSE: the peer opens nothing further, and will serve nothing further either. Calls that are not written yet
    /// fail, so that they can be made elsewhere.
    pub(super) fn handle_close(&mut self) -> Result<(), ProtocolError> {
        if self.closing.received {
            return Err(ProtocolError::new(Code::PROTOCOL, "S_CLOSE for the second time"));
        }
        (self.closing.received, self.closing.asked) = (true, true);
        // Where S_CLOSE of this side is still to be written, an ACK follows it anyway.
        self.ack_due = self.closing.sent;
        self.control_due |= self.ack_due;
        let unopened = |exchange: &super::Exchange<U>| exchange.opener == Side::Initiator && exchange.xid.is_none();
        for (_, exchange) in self.exchanges.iter_mut().filter(|(_, exchange)| unopened(exchange)) {
            exchange.rx.fail(Reason::new(Code::CLOSED, "the peer closes the session"), Origin::Local, false);
            exchange.withdraw();
        }
        self.waiting.clear();
        Ok(())
    }

    /// S_CLOSE_DONE: the peer's application has done with everything, so nothing of either side can be live here.
    pub(super) fn handle_close_done(&mut self, frame: &Frame<'_>) -> Result<(), ProtocolError> {
        let [untaken] = read_varints(frame.body, ["the number of exchanges"])?;
        if !self.closing.received || !self.closing.sent || self.closing.peer_untaken.is_some() {
            return Err(ProtocolError::new(Code::PROTOCOL, "S_CLOSE_DONE before both sides have closed, or twice"));
        }
        self.closing.peer_untaken = Some(untaken);
        Ok(())
    }

    /// The session is lost. Calls that have their answer keep it; the others fail, each told whether it can have run. The
    /// owner then wakes everyone and stops the handlers.
    pub fn fail(&mut self, reason: Reason) {
        self.fail_at(reason, None);
    }

    /// The same where the peer said how many frames it has `received`: calls behind that cannot have run.
    pub(super) fn fail_at(&mut self, reason: Reason, received: Option<u64>) {
        if self.failed.is_some() {
            return;
        }
        let mut keys = Vec::with_capacity(self.exchanges.len());
        for (key, exchange) in self.exchanges.iter_mut() {
            // A one-way call awaits nothing, but it has failed if it was not written whole.
            let unsent = exchange.opener == Side::Initiator && !exchange.tx.is_done();
            if !exchange.rx.done || unsent {
                let may_have_started = exchange.may_have_started(received);
                exchange.rx.fail(reason.clone(), Origin::Local, may_have_started);
                exchange.rx.done = true;
            }
            exchange.tx.state = TxState::Done;
            exchange.tx.cancel = None;
            keys.push(key);
        }
        self.failed = Some(reason);
        self.ring.clear();
        self.parked.clear();
        self.waiting.clear();
        self.stops.clear();
        self.announces.clear();
        self.unstamped.clear();
        for key in keys {
            self.settle(key);
        }
    }

    /// Why the session is lost, if it is.
    pub fn failure(&self) -> Option<&Reason> {
        self.failed.as_ref()
    }

    /// Ends the session because the peer broke its rules, or on the application's behalf: the body for S_ABORT, which
    /// tells the peer how much was received, and so which of its calls cannot have run.
    pub fn abort(&mut self, reason: Reason) -> Abort {
        let abort = Abort { rx_next: self.rx_count, reason: reason.clone() };
        self.fail(reason);
        abort
    }
}
