//! What the application takes: answers, items, and the word that a one-way call is on its way. Taking is what gives
//! credit back.

use super::{Answer, Items, Session};
use crate::code::Code;
use crate::id::ExchangeKey;
use crate::proto::batch::Batch;
use crate::proto::error::{ExchangeFault, Origin};
use crate::proto::exchange::{AnswerKind, Exchange, Held};
use crate::wire::frame::Reason;

impl<U: Default> Session<U> {
    /// A handler takes no more of its input: the peer is asked to stop sending it.
    pub fn stop(&mut self, key: ExchangeKey) {
        self.abandon_rx(key, Code::NO_ERROR);
        self.queue(key);
    }

    /// Takes the answer of a call that this side opened, if it has arrived. After anything but `Pending` and `Stream`
    /// the exchange is released.
    pub fn take_answer(&mut self, key: ExchangeKey) -> Answer {
        let Some(exchange) = self.exchanges.get_mut(key) else { return Answer::Fault(self.gone()) };
        if let (Some(xid), Some(message)) = (exchange.xid, &mut exchange.rx.message)
            && exchange.rx.done
            && exchange.streams.is_none()
            && !exchange.rx.message_is_error
            && exchange.tx.is_done()
        {
            // The plain case: one message was asked for, and nothing else is open.
            let message = std::mem::take(message);
            let shared = exchange.rx.held.shared;
            self.release_shared(shared);
            self.remove(key, xid);
            return Answer::Message(message);
        }
        let streams = exchange.has_incoming() || exchange.rx.accepted;
        let rx = &mut exchange.rx;
        let answer = if streams {
            return Answer::Stream;
        } else if let Some(message) = rx.message.take() {
            if rx.message_is_error { Answer::AppError(message) } else { Answer::Message(message) }
        } else if let Some(fault) = &rx.fault {
            Answer::Fault((**fault).clone())
        } else if !rx.done {
            return Answer::Pending;
        } else if rx.kind == AnswerKind::Many {
            return Answer::Stream;
        } else {
            let reason = Reason::new(Code::PROTOCOL, "the peer ended the exchange without an answer");
            Answer::Fault(ExchangeFault { reason, origin: Origin::Local, sent: true })
        };
        self.close_call(key);
        answer
    }

    /// A one-way call is over for its caller once its OPEN, and with it the last byte of its arguments, was written.
    /// Tells whether it is, and releases it then. If not, the exchange shows up in
    /// [`next_drained`](Self::next_drained) once it is.
    ///
    /// # Errors
    /// It was not written in time, or its session was lost before.
    pub fn release_sent(&mut self, key: ExchangeKey) -> Result<bool, ExchangeFault> {
        let Some(exchange) = self.exchanges.get_mut(key) else { return Err(self.gone()) };
        if let Some(fault) = &exchange.rx.fault {
            let fault = (**fault).clone();
            self.close_call(key);
            return Err(fault);
        }
        if !exchange.tx.is_done() {
            exchange.tx.watched = true;
            return Ok(false);
        }
        exchange.held = false;
        match exchange.xid {
            Some(xid) if exchange.rx.done => self.remove(key, xid),
            _ => self.settle(key),
        }
        Ok(true)
    }

    /// What a call finds that cannot be opened because the session is on no connection.
    pub fn lost(&self) -> ExchangeFault {
        let reason = self.refusal().unwrap_or_else(|| Reason::new(Code::CLOSED, "the session is on no connection"));
        ExchangeFault { reason, origin: Origin::Local, sent: false }
    }

    /// What is found where an exchange is no more.
    pub(super) fn gone(&self) -> ExchangeFault {
        let reason = self.refusal().unwrap_or_else(|| Reason::new(Code::INTERNAL, "the exchange is gone"));
        ExchangeFault { reason, origin: Origin::Local, sent: true }
    }

    /// The caller has its answer: the exchange is over for this side, and what it still sends is of no use.
    pub(super) fn close_call(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.held = false;
        if exchange.xid.is_none() {
            return self.forget(key);
        }
        let freed = std::mem::take(&mut exchange.rx.held);
        self.release_shared(freed.shared);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if !(exchange.tx.is_done() && exchange.rx.done) {
            exchange.reset(Reason::new(Code::CANCELLED, ""));
            self.abandon_rx(key, Code::CANCELLED);
            self.queue(key);
        }
        self.settle(key);
    }

    /// Takes the complete items of a stream. Taking a batch tells that the one before is done with, which is what gives
    /// its credit back.
    pub fn take_items(&mut self, key: ExchangeKey, batch: &mut Batch) -> Items {
        batch.clear();
        let Some(exchange) = self.exchanges.get_mut(key) else { return Items::Fault(self.gone()) };
        let Exchange { rx, streams, .. } = exchange;
        let mut done = Held::default();
        let mut ready = false;
        if let Some(streams) = streams {
            done = std::mem::take(&mut streams.lent);
            if !streams.incoming.is_empty() {
                std::mem::swap(&mut streams.incoming, batch);
                streams.lent = std::mem::take(&mut rx.held);
                ready = true;
            }
        }
        let items = if ready {
            Items::Ready
        } else if let Some(error) = rx.message.take() {
            Items::AppError(error)
        } else if let Some(fault) = &rx.fault {
            Items::Fault((**fault).clone())
        } else if rx.done {
            Items::Ended
        } else {
            Items::Pending
        };
        self.release_held(key, done);
        items
    }
}
