//! The way of nearly every call: arguments in one frame, an answer in one frame, and nothing in between that anybody could
//! want to know of. Such a frame needs less than [`Session::handle_frame`] does for all frames, and such a call, where its
//! handler completes at once, no exchange at all: only a place that is kept free for one.
//!
//! ```text
//! OPEN ── receive_call ──▶ Fresh ── answer_fresh ──▶ answered
//!                            └───── keep ──────────▶ an exchange as any other
//! ```
//! Whatever is not plain is left as it came, to be handled with all the rest. Which of the two ways a frame took cannot be
//! told afterwards.

use std::time::Duration;

use super::Session;
use crate::id::{ExchangeKey, Side, Xid};
use crate::proto::exchange::{AnswerKind, Body, Exchange, Held};
use crate::proto::outbox::Outbox;
use crate::proto::time::Time;
use crate::wire::frame::{Frame, Open, flag, kind};

/// A call of the peer's that has a place and no exchange yet: it is to be answered or kept before the next frame is handled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its place is taken until it is answered or kept"]
pub struct Fresh {
    key: ExchangeKey,
    xid: Xid,
    /// The method's rank.
    pub method: u32,
    /// The time it has from its arrival on, where the peer named one.
    pub timeout: Option<Duration>,
    arrived: Time,
}

impl Fresh {
    /// Where it will stand among the exchanges.
    #[inline]
    pub fn key(&self) -> ExchangeKey {
        self.key
    }
}

impl<U: Default> Session<U> {
    /// Takes `frame`, read at `now`, if it is an OPEN with all there is to a call and nothing that few calls have. Yields the
    /// call and its encoded arguments. Otherwise nothing has happened, and the frame is for
    /// [`handle_frame`](Self::handle_frame).
    #[inline]
    pub fn receive_call<'f>(&mut self, frame: &Frame<'f>, now: Time) -> Option<(Fresh, &'f [u8])> {
        let taken = frame.charge();
        if frame.kind != kind::OPEN
            || frame.flags & !flag::EXT != flag::EOM | flag::END
            || frame.xid.0 != self.next_remote
            || self.accepted >= self.opens_granted
            || self.peer_closed()
            || taken > self.config.windows.stream.min(self.recv.left())
        {
            return None;
        }
        let (open, beside, args) = Open::read(frame).ok()?;
        let method = u32::try_from(open.method).ok()?;
        if !beside.is_nothing() || args.len() as u64 > self.config.windows.message {
            return None;
        }
        self.pass_on(taken);
        self.rx_count += 1;
        self.next_remote += 2;
        self.accepted += 1;
        if self.accepted == self.opens_granted {
            self.control_due |= self.grants_due();
        }
        let (key, timeout) = (self.exchanges.reserve(), self.grant_timeout(&open));
        Some((Fresh { key, xid: frame.xid, method, timeout, arrived: now }, args))
    }

    /// Counts bytes that come and are done with.
    #[inline]
    fn pass_on(&mut self, n: u64) {
        // There is room for them, as was seen.
        let _ = self.recv.receive(n);
        self.release_shared(n);
    }

    /// Whether a key is that of a call that has no exchange yet.
    pub fn is_fresh(&self, key: ExchangeKey) -> bool {
        self.exchanges.is_reserved(key)
    }

    /// The time that a call has which names none, where its method is no stream.
    #[inline]
    pub fn default_timeout(&self) -> Duration {
        self.config.default_deadline
    }

    /// Answers a call whose handler has completed: [`keep`](Self::keep) and [`answer_now`](Self::answer_now) in one, without
    /// an exchange where the answer can be written at once and whole. Else it has `timeout` for that, from its arrival on, and
    /// what is yielded is the session's next deadline.
    #[inline]
    pub fn answer_fresh(
        &mut self,
        fresh: Fresh,
        timeout: Option<Duration>,
        body: Body,
        is_error: bool,
        out: &mut Outbox,
    ) -> Option<Time> {
        let bytes = body.as_slice();
        if let Some(link) = self.link
            && bytes.len() as u64 <= self.peer.message
            && self.fits(self.peer.stream, 0, bytes.len(), out)
        {
            self.write_answer(link, fresh.xid, bytes, is_error, out);
            body.recycle();
            self.exchanges.vacate(fresh.key);
            self.give_place_back();
            self.flush(out);
            return None;
        }
        let key = fresh.key;
        self.keep(fresh, timeout);
        self.answer_now(key, body, is_error, out);
        self.next_deadline
    }

    /// Makes an exchange of a call that is not answered yet. It has `timeout` from its arrival on. It must be followed by
    /// [`handler_done`](Self::handler_done).
    pub fn keep(&mut self, fresh: Fresh, timeout: Option<Duration>) {
        let Fresh { key, xid, method, arrived, .. } = fresh;
        let (send, receive) = (self.peer.stream, self.config.windows.stream);
        let mut exchange = Exchange::new(Side::Acceptor, Some(xid), AnswerKind::Many, send, receive, U::default());
        // Nothing more comes, so that what has come is of no account.
        exchange.rx.done = true;
        (exchange.held, exchange.arrived) = (true, Some(arrived));
        exchange.deadline = self.deadline_at(arrived, timeout);
        *self.exchanges.fill(key) = exchange;
        self.note_method(key, method);
        self.ids.insert(xid, key);
    }

    /// Takes `frame` if it is the one answer of a call that somebody waits for, and yields what is attached to that.
    /// Otherwise nothing has happened, and the frame is for [`handle_frame`](Self::handle_frame).
    #[inline]
    pub fn receive_answer(&mut self, frame: &Frame<'_>) -> Option<&mut U> {
        if frame.kind != kind::DATA || frame.flags != flag::EOM | flag::END {
            return None;
        }
        let taken = frame.charge();
        let exchange = self.exchanges.get_mut(self.ids.get(frame.xid)?)?;
        let rx = &mut exchange.rx;
        if rx.kind != AnswerKind::One
            || rx.done
            || rx.discard
            || rx.partial.is_some()
            || taken > rx.credit.left().min(self.recv.left())
            || frame.body.len() as u64 > self.config.windows.message
        {
            return None;
        }
        // There is room for it, as was seen.
        let _ = (rx.credit.receive(taken), self.recv.receive(taken));
        if self.recv.is_low() {
            self.control_due |= self.recv.is_due();
        }
        self.rx_count += 1;
        let mut message = std::mem::take(&mut exchange.tx.spare);
        message.clear();
        message.extend_from_slice(frame.body);
        rx.message = Some(message);
        rx.held.add(Held { stream: taken, shared: taken });
        rx.done = true;
        Some(&mut exchange.user)
    }
}
