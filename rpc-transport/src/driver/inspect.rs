//! What a connection is doing, for those who ask: looked up on the spot, one session after the other, each locked for a
//! moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use rpc_core::codec::Codec;
use rpc_core::id::Side;
use rpc_core::proto::{ExchangeView, Session, Time, Wait};
use rpc_core::service::ServiceInfo;
use rpc_core::wire::frame::Mode;

use super::sessions::plus;
use super::table::OWN;
use super::{Driver, Entry};
use crate::clock;
use crate::report::{Cause, ExchangeInfo, Inside, Page, SessionInfo, Stage, Stall, Waiting};
use crate::state::{Inquiry, Slot};

/// Sessions of a page.
const SESSIONS: usize = 256;

/// Exchanges of a page: it ends before the session with which there would be more, and of one session alone no more are
/// shown.
const EXCHANGES: usize = 1024;

/// When somebody asked, and since when the socket has taken nothing.
#[derive(Clone, Copy)]
struct Look {
    now: Time,
    instant: Instant,
    stalled: Option<Time>,
}

impl Driver {
    pub(super) fn inspect(&mut self, inquiry: Inquiry) {
        let (now, instant) = clock::now();
        let look = Look { now, instant, stalled: self.stalled };
        let (awake, at_rest) = self.sessions.counts();
        let mut inside = Inside {
            single_session: self.connection.negotiated().mode == Mode::Single,
            sessions: (awake + at_rest) as u64,
            at_rest: at_rest as u64,
            received: self.connection.received(),
            unsent: (self.output.len() - self.written) as u64,
            owed: (self.owed + self.connection.owed()) as u64,
            calls: self.calls,
            ..Inside::default()
        };
        for entry in self.sessions.awake() {
            let core = entry.state.lock();
            inside.held += core.proto.view().held;
            inside.calls = plus(inside.calls, entry.uncounted(&core.proto));
            for exchange in core.proto.exchanges() {
                inside.exchanges += 1;
                inside.opened_here += u64::from(exchange.opener == Side::Initiator);
                look.count(&exchange, &mut inside.waiting);
            }
        }
        inside.waiting.sort_unstable_by_key(|waiting| waiting.cause);
        let socket = look.stalled.map(|since| Stall { cause: Cause::Socket, for_ms: Some(look.ms(since)) });
        let credit = inside.waiting.iter().find(|waiting| waiting.cause == Cause::ConnectionCredit);
        let credit = credit.map(|waiting| Stall { cause: waiting.cause, for_ms: waiting.longest_ms });
        inside.stall = socket.or(credit);
        inside.page = inquiry.page.map(|from| self.page(from, look));
        // Whoever asked may have gone.
        let _ = inquiry.done.send(inside);
    }

    /// The sessions from `from` on, and their exchanges.
    fn page(&self, from: u64, look: Look) -> Page {
        // One more than are shown: with it the next page begins.
        let mut first = BinaryHeap::with_capacity(SESSIONS + 2);
        for (sid, slot) in self.sessions.sids().filter(|(sid, _)| *sid >= from) {
            first.push((sid, slot));
            if first.len() > SESSIONS + 1 {
                first.pop();
            }
        }
        let mut page = Page::default();
        for (sid, slot) in first.into_sorted_vec() {
            if page.sessions.len() == SESSIONS {
                page.next = Some(sid);
                break;
            }
            if let Some(resting) = self.sessions.resting(slot) {
                let (proto, [sid, service, codec]) = Session::<Slot>::wake::<OWN>(resting, Side::Acceptor, self.limits.session());
                let info = self.services.at(service).map(|offered| offered.info);
                let codec = u8::try_from(codec).ok().and_then(Codec::from_wire_id);
                let mut session = describe(&proto, sid, info, codec, Stage::AtRest);
                session.resting_bytes = Some(resting.len() as u64);
                page.sessions.push(session);
            } else if let Some(entry) = self.sessions.get(slot) {
                let (session, mut exchanges) = look.session(entry);
                if !page.exchanges.is_empty() && page.exchanges.len() + exchanges.len() > EXCHANGES {
                    page.next = Some(sid);
                    break;
                }
                exchanges.sort_unstable_by_key(|exchange| (Reverse(exchange.for_ms), exchange.xid));
                page.left_out += exchanges.len().saturating_sub(EXCHANGES) as u64;
                exchanges.truncate(EXCHANGES);
                page.exchanges.append(&mut exchanges);
                page.sessions.push(session);
            }
        }
        page
    }
}

impl Look {
    fn ms(self, since: Time) -> u64 {
        self.now.since(since).as_millis() as u64
    }

    /// What an exchange waits for, as far as the whole connection knows, and for how long.
    fn cause(self, exchange: &ExchangeView<'_, Slot>) -> (Cause, Option<u64>) {
        let noted = exchange.since.map(|since| self.ms(since));
        let made = || exchange.made.map(|made| self.ms(made));
        match exchange.wait {
            Wait::StreamCredit => (Cause::StreamCredit, noted),
            Wait::SessionCredit => (Cause::SessionCredit, noted),
            Wait::ConnectionCredit => (Cause::ConnectionCredit, noted),
            Wait::Places => (Cause::Places, noted),
            Wait::Turn => match self.stalled {
                Some(since) => (Cause::Socket, Some(self.ms(since))),
                None => (Cause::Turn, None),
            },
            Wait::Application => (Cause::Application, made()),
            // One that waits for the items of its caller is not who holds things up.
            Wait::Handler if exchange.user.waits_for_input() => (Cause::Peer, self.handled(exchange)),
            Wait::Handler => (Cause::Handler, self.handled(exchange)),
            Wait::Peer => (Cause::Peer, made()),
        }
    }

    fn handled(self, exchange: &ExchangeView<'_, Slot>) -> Option<u64> {
        let since = exchange.user.handled_since()?;
        Some(self.instant.saturating_duration_since(since).as_millis() as u64)
    }

    fn count(self, exchange: &ExchangeView<'_, Slot>, waiting: &mut Vec<Waiting>) {
        let (cause, for_ms) = self.cause(exchange);
        match waiting.iter_mut().find(|waiting| waiting.cause == cause) {
            Some(known) => {
                known.exchanges += 1;
                known.longest_ms = known.longest_ms.max(for_ms);
            }
            None => waiting.push(Waiting { cause, exchanges: 1, longest_ms: for_ms }),
        }
    }

    /// A session that is awake, and its exchanges.
    fn session(self, entry: &Entry) -> (SessionInfo, Vec<ExchangeInfo>) {
        let core = entry.state.lock();
        let stage = match () {
            () if entry.opening.is_some() => Stage::Opening,
            () if core.proto.is_closing() => Stage::Closing,
            () => Stage::Open,
        };
        let session = describe(&core.proto, entry.sid.0, Some(entry.info), Some(entry.decoding.codec), stage);
        let exchanges = core.proto.exchanges().map(|exchange| self.exchange(entry, &exchange)).collect();
        (session, exchanges)
    }

    fn exchange(self, entry: &Entry, exchange: &ExchangeView<'_, Slot>) -> ExchangeInfo {
        let (waits_for, for_ms) = self.cause(exchange);
        ExchangeInfo {
            sid: entry.sid.0,
            xid: exchange.xid.map(|xid| xid.0),
            opened_here: exchange.opener == Side::Initiator,
            method: entry.method(exchange.method).map(str::to_owned),
            waits_for,
            for_ms,
            ends_in_ms: exchange.deadline.map(|at| at.since(self.now).as_millis() as u64),
            send_credit: exchange.send_credit,
            queued: exchange.queued as u64,
            untaken: exchange.untaken as u64,
        }
    }
}

impl Entry {
    /// The name of a method by its number in the service of the side that answers.
    fn method(&self, number: u32) -> Option<&'static str> {
        let (methods, number) = (self.info.methods, number as usize);
        let method = match &self.theirs {
            Some(theirs) => methods.iter().find(|method| theirs.get(number) == Some(&method.hash)),
            None => methods.get(number),
        };
        Some(method?.name)
    }
}

fn describe(proto: &Session<Slot>, sid: u64, info: Option<&ServiceInfo>, codec: Option<Codec>, stage: Stage) -> SessionInfo {
    let view = proto.view();
    SessionInfo {
        sid,
        opened_here: proto.side() == Side::Initiator,
        service: info.map_or("", |info| info.name).to_owned(),
        codec: codec.map(|codec| codec.to_string()).unwrap_or_default(),
        stage,
        send_credit: view.send_credit,
        receive_credit: view.receive_credit,
        held: view.held,
        places: view.places,
        exchanges: proto.live() as u64,
        calls: view.opened + view.accepted,
        resting_bytes: None,
    }
}
