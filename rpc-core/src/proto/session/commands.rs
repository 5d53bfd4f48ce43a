//! What the application does with exchanges: opens, answers, sends, resets, lets go. Nothing is written here; what is
//! due stands in the session's queues until it is flushed.

use super::{Extras, OpenCommand, Session, millis};
use crate::code::Code;
use crate::id::{ExchangeKey, Side};
use crate::proto::batch::Batch;
use crate::proto::credit::{RecvCredit, SendCredit};
use crate::proto::error::{ExchangeFault, Origin};
use crate::proto::exchange::{AnswerKind, Body, Deadline, Exchange, OpenFields, TxState};
use crate::wire::frame::Reason;

impl<U: Default> Session<U> {
    /// Opens an exchange. Nothing is written before [`flush`](Self::flush); until its OPEN is written, dropping it
    /// leaves no trace on the wire. Calls beyond the exchanges that the peer grants wait here.
    ///
    /// # Errors
    /// If the session has failed or is closing; nothing was started.
    pub fn open(&mut self, command: OpenCommand, user: U) -> Result<ExchangeKey, ExchangeFault> {
        self.open_beside(command, Extras::default(), user)
    }

    /// The same with what few calls have. Apart, so that nothing of it is copied where a call goes out at once.
    #[inline(never)]
    pub(super) fn open_beside(&mut self, command: OpenCommand, extras: Extras, user: U) -> Result<ExchangeKey, ExchangeFault> {
        if let Some(reason) = self.refusal() {
            return Err(ExchangeFault { reason, origin: Origin::Local, sent: false });
        }
        let size = command.body.as_slice().len() as u64;
        if size > self.peer.message {
            let text = format!("the arguments take {size} bytes, and the peer accepts messages of {}", self.peer.message);
            return Err(ExchangeFault { reason: Reason::new(Code::TOO_LARGE, text), origin: Origin::Local, sent: false });
        }
        let (deadline, peer_window) = (self.deadline_of(&command), self.peer.stream);
        let OpenCommand { method, timeout, body, more, answer } = command;
        let granted = self.opened < self.opens_max && self.waiting.is_empty();
        let (timeout_ms, one_way) = (timeout.map(millis), answer == AnswerKind::None);
        let (key, exchange) = self.call(method, answer, deadline, timeout.is_some());
        exchange.user = user;
        exchange.tx.credit = SendCredit::new(peer_window);
        exchange.tx.state = if more { TxState::Open } else { TxState::Ending };
        exchange.tx.open = Some(OpenFields { method, timeout_ms, one_way, metadata: extras.metadata });
        exchange.tx.body = Some(body);
        exchange.granted = granted;
        exchange.queued = true;
        self.set_urgency(key, extras.urgency);
        if granted {
            self.opened += 1;
            self.enter_ring(key);
        } else {
            self.wait(key);
        }
        Ok(key)
    }

    /// The deadline of a call of this side, which has no time yet.
    #[inline]
    pub(super) fn deadline_of(&self, command: &OpenCommand) -> Deadline {
        match command.timeout {
            Some(timeout) => Deadline::Unstamped(millis(timeout)),
            None if command.more || command.answer == AnswerKind::Many => Deadline::None,
            None => Deadline::Unstamped(self.default_deadline_ms),
        }
    }

    /// An exchange of this side, before anything of it is written.
    #[inline]
    pub(super) fn call(
        &mut self,
        method: u32,
        answer: AnswerKind,
        deadline: Deadline,
        explicit: bool,
    ) -> (ExchangeKey, &mut Exchange<U>) {
        let (key, window) = (self.exchanges.reserve(), self.config.windows.stream);
        self.note_method(key, method);
        if deadline != Deadline::None {
            self.unstamped.push(key);
        }
        let exchange = self.exchanges.fill(key);
        exchange.opener = Side::Initiator;
        (exchange.held, exchange.explicit, exchange.deadline) = (true, explicit, deadline);
        (exchange.rx.kind, exchange.rx.done) = (answer, answer == AnswerKind::None);
        exchange.rx.credit = RecvCredit::new(window);
        (key, exchange)
    }

    /// Keeps an exchange of the peer's.
    pub(super) fn insert(&mut self, exchange: Exchange<U>, method: u32) -> ExchangeKey {
        let key = self.exchanges.reserve();
        *self.exchanges.fill(key) = exchange;
        self.note_method(key, method);
        key
    }

    /// Remembers which method an exchange calls.
    #[inline]
    pub(super) fn note_method(&mut self, key: ExchangeKey, method: u32) {
        match self.methods.get_mut(key.slot as usize) {
            Some(known) => *known = method,
            // Slots are new in order, but for those that were taken for calls which never had an exchange.
            None => self.methods.resize(key.slot as usize + 1, method),
        }
    }

    #[inline]
    pub(super) fn refusal(&self) -> Option<Reason> {
        if let Some(reason) = &self.failed {
            return Some(reason.clone());
        }
        if self.is_closing() {
            return Some(Reason::new(Code::CLOSED, "the session is closing"));
        }
        None
    }

    /// Queues the single answer of a call from the peer and ends the direction.
    pub fn answer(&mut self, key: ExchangeKey, body: Body, is_error: bool) {
        let limit = self.peer.message;
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.tx.state != TxState::Open {
            return;
        }
        let size = body.as_slice().len() as u64;
        if size > limit {
            let text = format!("the answer takes {size} bytes, and the caller accepts messages of {limit}");
            exchange.reset(Reason::new(Code::TOO_LARGE, text));
        } else {
            exchange.tx.body = Some(body);
            exchange.tx.body_is_error = is_error;
            exchange.tx.state = TxState::Ending;
            // Small ones are few bytes beside what a look at all exchanges costs.
            self.may_be_crowded |= size >= Body::SHARED as u64;
        }
        self.queue(key);
    }

    /// Tells the peer that its call is accepted and items will follow.
    pub fn accept(&mut self, key: ExchangeKey) {
        if let Some(exchange) = self.exchanges.get_mut(key)
            && exchange.tx.state == TxState::Open
        {
            exchange.tx.accept = true;
            self.queue(key);
        }
    }

    /// Whether the queue of an exchange is empty, so that the next batch may be sent. If not, the exchange shows up in
    /// [`next_drained`](Self::next_drained) once it is. `None`: nothing more can be sent.
    pub fn poll_send(&mut self, key: ExchangeKey) -> Option<bool> {
        let exchange = self.exchanges.get_mut(key)?;
        if exchange.tx.state != TxState::Open {
            return None;
        }
        let ready = exchange.tx.body.is_none() && !exchange.has_outgoing();
        exchange.tx.watched = !ready;
        Some(ready)
    }

    /// Queues the items of `batch`, which is empty afterwards, and ends the direction if they are the `last`. A batch
    /// is to be sent only after [`poll_send`](Self::poll_send) allowed it, which is what bounds the queue.
    pub fn send(&mut self, key: ExchangeKey, batch: &mut Batch, last: bool) {
        if let Some(exchange) = self.exchanges.get_mut(key)
            && exchange.tx.state == TxState::Open
        {
            debug_assert!(!exchange.has_outgoing(), "a batch is sent when the one before is gone");
            std::mem::swap(&mut exchange.streams().outgoing, batch);
            if last {
                exchange.tx.state = TxState::Ending;
            }
            self.queue(key);
        }
        batch.clear();
    }

    /// The longest message that the peer takes, in bytes.
    pub fn max_message(&self) -> u64 {
        self.peer.message
    }

    /// Ends the sending direction with a fault; what is queued is dropped.
    pub fn reset(&mut self, key: ExchangeKey, reason: Reason) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            if exchange.opener == Side::Acceptor && matches!(reason.code, Code::UNKNOWN_METHOD | Code::BAD_ARGUMENTS) {
                // Nothing was started, by the caller's fault.
                self.patience.provoked();
            }
            exchange.reset(reason);
            self.queue(key);
        }
    }

    /// Ends a stream of this side with a fault, behind the items that wait: they are part of it.
    pub fn break_stream(&mut self, key: ExchangeKey, reason: Reason) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.has_outgoing() && exchange.tx.state == TxState::Open {
            exchange.streams().broken = Some(reason);
        } else {
            exchange.reset(reason);
            self.queue(key);
        }
    }

    /// The handler of a call from the peer has ended, whatever it was: only now is its place given back. A stream that
    /// goes on answering keeps its place until it ends.
    pub fn handler_done(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.held = false;
        if let (Some(xid), None, true, true) = (exchange.xid, &exchange.streams, exchange.rx.done, exchange.tx.is_done()) {
            // The plain end of a one-way call: nothing is left to say.
            return self.remove(key, xid);
        }
        let broken = exchange.streams.as_ref().is_some_and(|streams| streams.broken.is_some());
        if exchange.tx.state == TxState::Open && !broken {
            exchange.tx.state = TxState::Ending;
        }
        if !exchange.rx.done || exchange.streams.is_some() {
            self.abandon_rx(key, Code::NO_ERROR);
        }
        self.queue(key);
        self.settle(key);
    }

    /// The caller lost interest. A call whose OPEN was not written disappears; otherwise the peer is asked to stop.
    pub fn release(&mut self, key: ExchangeKey) {
        self.withdraw(key, Code::CANCELLED);
    }

    pub(super) fn withdraw(&mut self, key: ExchangeKey, code: Code) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.held = false;
        if exchange.xid.is_none() {
            self.forget(key);
            return;
        }
        exchange.reset(Reason::new(code, ""));
        self.abandon_rx(key, code);
        self.queue(key);
        self.settle(key);
    }

    /// Removes a call that was never written. Its place in the queues goes stale and is passed over.
    pub(super) fn forget(&mut self, key: ExchangeKey) {
        let granted = self.exchanges.get(key).is_some_and(|exchange| exchange.granted);
        self.exchanges.remove(key);
        if granted {
            // The credit was not used: the next one in line has it.
            self.opened -= 1;
            self.admit_waiting();
        }
        self.settle_close();
    }
}
