//! The frames of one exchange's turn: pieces of its messages, or as many small items as there is room for.

use bytes::Bytes;

use crate::id::{Sid, Xid};
use crate::proto::batch::Batch;
use crate::proto::credit::SendCredit;
use crate::proto::exchange::{Body, Exchange, NOT_ASKED, OpenFields, Tx, TxState};
use crate::proto::outbox::Outbox;
use crate::wire::HeadBuf;
use crate::wire::frame::{Beside, MIN_CHARGE, Open, charge, exchange_head, flag, kind};
use crate::wire::varint;

/// Room that a frame's ids and fields take at most, so that message bytes are cut to fit under `max_frame`.
pub(super) const HEAD_ROOM: usize = 64;

/// How an exchange's turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is left to write.
    Drained,
    /// There is more; it goes to the end of the ring.
    Again,
    /// It waits for MAX_STREAM, out of the ring.
    Stream,
    /// It waits for MAX_SESSION, out of the ring.
    Session,
    /// The whole session waits for MAX_CONN_DATA.
    Connection,
}

/// Writes the frames of one exchange's turn.
pub(super) struct Writer<'a> {
    pub(super) sid: Option<Sid>,
    pub(super) urgency: u8,
    /// The longest body of a frame in this turn.
    pub(super) limit: usize,
    pub(super) session: &'a mut SendCredit,
    /// Session credit that items leave to calls and answers: streams that nobody reads must not hold those up.
    pub(super) reserve: u64,
    pub(super) count: &'a mut u64,
    pub(super) out: &'a mut Outbox,
}

/// The next piece of a message.
struct Piece {
    len: usize,
    /// The whole length is to be stated: the first of several pieces.
    first_of_many: bool,
    end_of_message: bool,
}

impl Writer<'_> {
    /// Writes the OPEN with the first piece of the arguments.
    pub(super) fn open<U>(&mut self, exchange: &mut Exchange<U>, xid: Xid) -> Result<(), Turn> {
        let tx = &mut exchange.tx;
        let (Some(fields), Some(body)) = (&tx.open, &tx.body) else {
            return Err(Turn::Drained);
        };
        let OpenFields { method, timeout_ms, one_way, metadata } = fields;
        let message = body.as_slice();
        let timeout_ms = timeout_ms.map(u64::from);
        let method = u64::from(*method);
        let metadata = metadata.as_ref().map_or(&[][..], |metadata| metadata.encoded());
        let beside = Beside { urgency: self.urgency, metadata };
        let extended = timeout_ms.is_some() || !beside.is_nothing();
        let fields = varint::len(method) + usize::from(extended) + timeout_ms.map_or(0, varint::len) + beside.size();
        // Metadata stand whole before the first piece, which is as long as it would be without them.
        let limit = (self.limit + beside.size()).min(self.out.max_frame() as usize - HEAD_ROOM);
        let piece = self.piece(limit, fields, message.len(), 0, tx.credit.available(), 0)?;
        let ends = piece.end_of_message && tx.state == TxState::Ending;
        let mut flags = if piece.end_of_message { flag::EOM } else { 0 };
        flags |= if ends { flag::END } else { 0 };
        flags |= if *one_way { flag::ONEWAY } else { 0 };
        flags |= if extended { flag::EXT } else { 0 };
        let mut head = exchange_head(kind::OPEN, flags, self.sid, xid);
        let ids = head.len();
        let total = piece.first_of_many.then_some(message.len() as u64);
        let open = Open { method, timeout_ms, total };
        if beside.is_nothing() {
            open.write(&mut head);
            let taken = charge(head.len() - ids + piece.len);
            tx.credit.take(taken);
            self.write(head, body, piece.len, 0, taken);
        } else {
            let mut behind = Vec::with_capacity(beside.size() + piece.len);
            open.write_with(beside, &mut head, &mut behind);
            behind.extend_from_slice(&message[..piece.len]);
            let taken = charge(head.len() - ids + behind.len());
            tx.credit.take(taken);
            *self.count += 1;
            self.session.take(taken);
            self.out.frame(&mut head, &behind, taken);
        }
        tx.open = None;
        if piece.end_of_message {
            exchange.asked_at = *self.count - 1;
        }
        self.advance(exchange, &piece);
        Ok(())
    }

    /// Writes what the turn allows of everything behind the OPEN. It began where the direction had taken `start`.
    pub(super) fn rest<U>(&mut self, exchange: &mut Exchange<U>, start: u64) -> Turn {
        let Some(xid) = exchange.xid else { return Turn::Drained };
        if matches!(exchange.tx.state, TxState::Resetting(_) | TxState::Done) {
            // What stops an exchange goes through the control lane.
            return Turn::Drained;
        }
        // Its place is the control lane; where that had no room yet, it must still stand before the first item.
        if std::mem::take(&mut exchange.tx.accept) {
            self.frame(exchange_head(kind::ACCEPT, 0, self.sid, xid), &[]);
        }
        loop {
            let Exchange { tx, streams, .. } = exchange;
            if let Some(streams) = streams
                && tx.written == 0
                && (tx.body.is_none() || tx.body_is_error)
            {
                self.items(tx, &mut streams.outgoing, xid, start);
            }
            let (front, waiting) =
                streams.as_ref().map_or((None, 0), |streams| (streams.outgoing.front(), streams.outgoing.len()));
            // Arguments that are half written come before items; an answer's error comes behind them.
            let from_items = tx.body.is_none() || (tx.body_is_error && waiting > 0);
            let message = if from_items { front } else { tx.body.as_ref().map(Body::as_slice) };
            let Some(message) = message else {
                if tx.state == TxState::Ending {
                    return self.end(exchange, xid);
                }
                return Turn::Drained;
            };
            let (total, written) = (message.len(), tx.written);
            // What does not go whole into the rest of the turn has one of its own, so that no turn is two.
            let spent = tx.credit.used() - start;
            if self.out.is_full() || (spent > 0 && spent + charge((total - written).min(self.limit)) > self.limit as u64) {
                return Turn::Again;
            }
            let reserve = if from_items { self.reserve } else { 0 };
            let piece = match self.piece(self.limit, 0, total - written, written, tx.credit.available(), reserve) {
                Ok(piece) => piece,
                Err(turn) => return turn,
            };
            let is_last = piece.end_of_message
                && tx.state == TxState::Ending
                && if from_items { waiting == 1 && tx.body.is_none() } else { waiting == 0 };
            let mut flags = if piece.end_of_message { flag::EOM } else { 0 };
            flags |= if is_last { flag::END } else { 0 };
            flags |= if !from_items && tx.body_is_error { flag::ERR } else { 0 };
            let mut head = exchange_head(kind::DATA, flags, self.sid, xid);
            let ids = head.len();
            if piece.first_of_many {
                head.varint(total as u64);
            }
            let taken = charge(head.len() - ids + piece.len);
            tx.credit.take(taken);
            match &tx.body {
                Some(body) if !from_items => self.write(head, body, piece.len, written, taken),
                _ => {
                    *self.count += 1;
                    self.session.take(taken);
                    self.out.frame(&mut head, &message[written..written + piece.len], taken);
                }
            }
            if from_items {
                tx.written += piece.len;
                if piece.end_of_message {
                    tx.written = 0;
                    if let Some(streams) = streams {
                        streams.outgoing.pop();
                    }
                }
                if is_last {
                    tx.state = TxState::Done;
                }
            } else {
                if piece.end_of_message && exchange.asked_at == NOT_ASKED {
                    exchange.asked_at = *self.count - 1;
                }
                self.advance(exchange, &piece);
            }
            if exchange.tx.state == TxState::Done {
                return Turn::Drained;
            }
        }
    }

    /// Writes whole items, as many as the turn and every credit have room for: what [`rest`](Self::rest) would do one by one,
    /// for a fraction of it. The one that the turn ends with, for whatever reason, is left to that.
    fn items(&mut self, tx: &mut Tx, outgoing: &mut Batch, xid: Xid, start: u64) {
        // END may go with the last.
        let most = outgoing.len() - usize::from(tx.state == TxState::Ending && !outgoing.is_empty());
        if most == 0 {
            return;
        }
        let session = self.session.available().saturating_sub(self.reserve);
        let credit = tx.credit.available().min(session).min(self.out.credit());
        let room = credit.min((self.limit as u64).saturating_sub(tx.credit.used() - start));
        let head = exchange_head(kind::DATA, flag::EOM, self.sid, xid);
        let (count, taken) = self.out.run(head, outgoing.iter().take(most), room);
        outgoing.pop_many(count);
        tx.credit.take(taken);
        self.session.take(taken);
        *self.count += count as u64;
    }

    /// END by itself: the last item was written before it was known to be the last.
    fn end<U>(&mut self, exchange: &mut Exchange<U>, xid: Xid) -> Turn {
        if let Some(turn) = self.lacks(MIN_CHARGE, exchange.tx.credit.available(), self.session.available()) {
            return turn;
        }
        exchange.tx.credit.take(MIN_CHARGE);
        *self.count += 1;
        self.session.take(MIN_CHARGE);
        self.out.frame(&mut exchange_head(kind::DATA, flag::END, self.sid, xid), &[], MIN_CHARGE);
        exchange.tx.state = TxState::Done;
        Turn::Drained
    }

    /// How much of a message can go into a frame of `limit` bytes with `fields` bytes of other fields, where `reserve` of
    /// the session's credit is left alone.
    fn piece(
        &self,
        limit: usize,
        fields: usize,
        remaining: usize,
        written: usize,
        stream: u64,
        reserve: u64,
    ) -> Result<Piece, Turn> {
        let session = self.session.available().saturating_sub(reserve);
        let credit = stream.min(session).min(self.out.credit());
        let whole = charge(fields + remaining);
        if whole <= credit && fields + remaining <= limit {
            return Ok(Piece { len: remaining, first_of_many: false, end_of_message: true });
        }
        // A message in pieces states its length in front of the first.
        let first_of_many = written == 0;
        let fields = fields + if first_of_many { varint::len(remaining as u64) } else { 0 };
        // Every piece but the last has at least 16 bytes, so that what a message is charged stays close to its length.
        let least = (fields + remaining.min(MIN_CHARGE as usize)) as u64;
        if let Some(turn) = self.lacks(least.max(MIN_CHARGE), stream, session) {
            return Err(turn);
        }
        if least > limit as u64 {
            // Metadata that no frame of this connection holds: the session has come here since the call was made, which
            // waits for its deadline.
            return Err(Turn::Stream);
        }
        let room = limit.min(usize::try_from(credit).unwrap_or(usize::MAX)) - fields;
        let mut len = room.min(remaining);
        if first_of_many && len == remaining {
            // It would fit but for the length in front: the last byte makes the second piece.
            len -= 1;
        }
        Ok(Piece { len, first_of_many, end_of_message: len == remaining })
    }

    /// Which credit has less than `need`, innermost first.
    fn lacks(&self, need: u64, stream: u64, session: u64) -> Option<Turn> {
        if stream < need {
            Some(Turn::Stream)
        } else if session < need {
            Some(Turn::Session)
        } else if self.out.credit() < need {
            Some(Turn::Connection)
        } else {
            None
        }
    }

    fn advance<U>(&self, exchange: &mut Exchange<U>, piece: &Piece) {
        let more = exchange.has_outgoing();
        let tx = &mut exchange.tx;
        tx.written += piece.len;
        if piece.end_of_message {
            tx.written = 0;
            if let Some(body) = tx.body.take() {
                body.recycle();
            }
            if tx.state == TxState::Ending && !more {
                tx.state = TxState::Done;
            }
        }
    }

    #[inline]
    fn write(&mut self, mut head: HeadBuf, body: &Body, len: usize, from: usize, taken: u64) {
        *self.count += 1;
        self.session.take(taken);
        match body {
            Body::Inline(bytes) => self.out.frame(&mut head, &bytes[from..from + len], taken),
            Body::Shared(bytes) => self.out.frame_shared(head, slice(bytes, from, len), taken),
        }
    }

    /// A sequenced frame that needs no credit.
    fn frame(&mut self, mut head: HeadBuf, body: &[u8]) {
        *self.count += 1;
        self.out.frame(&mut head, body, 0);
    }
}

fn slice(bytes: &Bytes, from: usize, len: usize) -> Bytes {
    bytes.slice(from..from + len)
}
