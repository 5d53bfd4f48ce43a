//! The sessions of a connection: how they come, where they stand, how they go.

use std::sync::Arc;

use rpc_core::code::Code;
use rpc_core::codec::{Codec, DecodeLimits, nothing_in_common};
use rpc_core::id::{Sid, Side};
use rpc_core::proto::config::LONGEST;
use rpc_core::proto::outbox::SessionSlot;
use rpc_core::proto::{Connection, Limits, Link as Place, ProtocolError, Session, Time};
use rpc_core::streaming::Decoding;
use rpc_core::wire::frame::{GoAway, Reason};
use rpc_core::wire::hello::{Reject, SessionAccept, SessionOpen};

use super::table::{OWN, Sessions};
use super::{Driver, Entry, min};
use crate::clock;
use crate::dispatch::{Offered, Services};
use crate::error::OpenError;
use crate::state::{Link, Opening, SessionState, Slot, fire};
use crate::tally::Event;

/// Room that S_ACCEPT takes beside its list of methods, in bytes.
const LIST_ROOM: usize = 256;

impl Driver {
    pub(super) fn link_of(&self, slot: SessionSlot, sid: Sid) -> Place {
        Place { slot, sid: self.connection.on_wire(sid) }
    }

    /// Opens a session of this side, or lets it wait for one that is closing: the peer counts a session until both sides
    /// have closed it, so this side counts the same.
    pub(super) fn open_or_wait(&mut self, opening: Opening) {
        let limit = self.connection.negotiated().sessions;
        if !self.connection.is_open() || self.connection.is_leaving() || self.connection.local_sessions() < limit {
            return self.open_session(opening);
        }
        let closing = |entry: &Entry| entry.offered.is_none() && entry.state.lock().proto.is_closing();
        if self.sessions.awake().any(closing) {
            return self.waiting.push_back(opening);
        }
        let text = format!("the peer allows {limit} sessions at a time on a connection, and as many are open");
        let _ = opening.done.send(Err(OpenError::rejected(Reason::new(Code::REFUSED, text))));
    }

    pub(super) fn open_session(&mut self, opening: Opening) {
        let Opening { session: state, open, info, done } = opening;
        match self.connection.open(self.sessions.next_slot(), &open) {
            Ok(sid) => {
                // What the acceptor grants is known with its answer; until then nothing is decoded.
                let decoding = Decoding { codec: Codec::Postcard, limits: None };
                self.idle = None;
                let (offered, theirs, opening, seen, counted) = (None, None, Some(done), (0, 0), (0, 0));
                self.sessions.insert(Entry { state, sid, offered, info, theirs, decoding, opening, seen, counted });
                self.flush_connection();
            }
            Err(reason) => {
                let _ = done.send(Err(OpenError::rejected(reason)));
            }
        }
    }

    pub(super) fn session_accepted(&mut self, slot: SessionSlot, accept: SessionAccept) {
        let Some(sid) = self.sessions.get(slot).map(|entry| entry.sid) else { return };
        let place = self.link_of(slot, sid);
        let Some(entry) = self.sessions.get_mut(slot) else { return };
        // For those who ask what goes on here: what is decoded, its client decodes.
        entry.decoding.codec = Codec::from_wire_id(accept.codec).unwrap_or(entry.decoding.codec);
        entry.theirs = accept.methods.as_deref().map(Box::from);
        let wake = {
            let mut core = entry.state.lock();
            core.proto.granted(accept.windows);
            core.proto.attach(place);
            core.flush()
        };
        fire(wake);
        if let Some(done) = entry.opening.take() {
            let _ = done.send(Ok(accept));
        }
    }

    pub(super) fn session_rejected(&mut self, slot: SessionSlot, reject: Reject) {
        let error = OpenError::Rejected { reason: reject.reason.clone(), ours: Vec::new(), theirs: reject.codecs };
        self.end_session(slot, reject.reason, Some(error), false);
    }

    /// The peer opens a session.
    pub(super) fn accept(&mut self, sid: Sid, open: &SessionOpen, now: Time) {
        let Some(offered) = self.services.get(&open.service) else {
            Event::Service.happened();
            let text = format!("no service is named `{}` here; there is: {}", open.service, self.services.names());
            return self.connection.reject(sid, Reason::new(Code::UNKNOWN_SERVICE, text));
        };
        let negotiated = &self.connection.negotiated().codecs;
        let mut common = open.codecs.iter().filter(|id| negotiated.contains(id));
        let Some(codec) = common.find_map(|id| Codec::from_wire_id(*id)) else {
            Event::Codec.happened();
            let text = nothing_in_common(&open.codecs, negotiated);
            return self.connection.reject(sid, Reason::new(Code::NO_CODEC, text));
        };
        let info = offered.service.info();
        let methods = (open.fingerprint != info.fingerprint).then(|| info.methods.iter().map(|method| method.hash).collect());
        let listed = if open.fingerprint == info.fingerprint { 0 } else { info.methods.len() * size_of::<u64>() };
        if listed + LIST_ROOM > self.link.lock().out.max_frame() as usize {
            Event::Methods.happened();
            let text = format!("the sides' methods differ, and the {} here do not fit a frame of the peer's", info.methods.len());
            return self.connection.reject(sid, Reason::new(Code::TOO_LARGE, text));
        }
        if self.memory.is_tight() {
            Event::Memory.happened();
            return self.connection.reject(sid, Reason::new(Code::REFUSED, "too much memory is in use here; try again later"));
        }
        self.idle = None;
        let slot = self.sessions.next_slot();
        let mut proto = Session::new(Side::Acceptor, self.limits.session());
        proto.granted(open.windows);
        proto.weigh_as_wished(open.weight);
        // It wakes with its first frame, which may never come.
        match proto.rest(&[sid.0, offered.index, u64::from(codec.wire_id())], now) {
            Some(resting) => self.sessions.insert_resting(resting),
            None => {
                proto.attach(self.link_of(slot, sid));
                self.sessions.insert(accepted(proto, sid, offered, codec, &self.link));
            }
        }
        let accept = SessionAccept { codec: codec.wire_id(), windows: self.limits.windows(), methods };
        self.connection.accept(sid, slot, &accept);
    }

    /// Lays sessions to rest in which nothing has happened since the last look, and of which nobody has a handle. Their
    /// peers opened them, so that only a frame of theirs can wake them.
    pub(super) fn lay_to_rest(&mut self, now: Time) {
        let calls = &mut self.calls;
        self.sessions.lay_to_rest(|entry| {
            let offered = entry.offered.as_ref()?;
            if Arc::strong_count(&entry.state) > 1 || Arc::weak_count(&entry.state) > 0 {
                return None;
            }
            let core = entry.state.lock();
            let counts = core.proto.counts();
            if std::mem::replace(&mut entry.seen, counts) != counts {
                return None;
            }
            let resting = core.proto.rest(&[entry.sid.0, offered.index, u64::from(entry.decoding.codec.wire_id())], now)?;
            *calls = plus(*calls, entry.uncounted(&core.proto));
            Some(resting)
        });
    }

    /// A session has closed in good order.
    pub(super) fn forget(&mut self, slot: SessionSlot) {
        // The place may have gone to another session since this was asked for.
        if let Some(entry) = self.sessions.get(slot)
            && entry.state.lock().proto.is_finished()
        {
            self.connection.forget(entry.sid);
            self.end_session(slot, Reason::new(Code::CLOSED, "the session is closed"), None, true);
        }
    }

    /// This side goes away: what there is comes to its end, and nothing is added.
    pub(super) fn drain(&mut self, until: Time) {
        if !self.connection.is_open() {
            self.closing = true;
            return;
        }
        self.draining = min(self.draining, Some(until));
        let (now, _) = clock::now();
        // 0 would say that there is no deadline.
        let deadline_ms = (until.since(now).as_millis() as u64).max(1);
        self.connection.go_away(&GoAway { deadline_ms, reason: Reason::new(Code::NO_ERROR, "") });
        self.flush_connection();
        for slot in self.sessions.slots() {
            self.sessions.wake(slot, &self.connection, &self.limits, &self.services, &self.link);
        }
        self.sessions.awake().for_each(|entry| entry.state.act(|session| session.close()));
        self.reject_waiting();
    }

    /// Goes away where no session was open for as long as the limit allows. Returns when that would be.
    pub(super) fn leave_where_idle(&mut self, now: Time) -> Option<Time> {
        let empty = self.sessions.is_empty() && self.connection.is_open();
        if self.connection.side() == Side::Initiator || !empty || self.limits.idle == LONGEST || self.draining.is_some() {
            return None;
        }
        let until = self.idle.get_or_insert(now).after(self.limits.idle);
        if now < until {
            return Some(until);
        }
        // In good order: a session that is on its way is told that it was not opened.
        self.drain(now.after(self.limits.keepalive_timeout));
        self.draining
    }

    /// Nobody opens sessions on this connection any more.
    pub(super) fn reject_waiting(&mut self) {
        for opening in std::mem::take(&mut self.waiting) {
            self.open_session(opening);
        }
    }

    /// Ends a session on behalf of the application here.
    pub(super) fn abort_session(&mut self, session: &Arc<SessionState>, reason: Reason) {
        if let Some(slot) = self.sessions.find(session) {
            self.abort(slot, &ProtocolError { reason });
        }
    }

    /// The connection ends while the peer waits for answers: it is told how far its calls have come, so that it knows
    /// which of them cannot have run.
    pub(super) fn abort_callers(&mut self) {
        let text =
            if self.draining.is_some() { "the peer went away, and its time is up" } else { "the peer closed the connection" };
        for entry in self.sessions.awake().filter(|entry| entry.offered.is_some()) {
            let mut core = entry.state.lock();
            if core.proto.live() > 0 {
                let abort = core.proto.abort(Reason::new(Code::CLOSED, text));
                self.connection.abort_last(entry.sid, &abort, &mut self.link.lock().out);
            }
        }
    }

    pub(super) fn end_session(&mut self, slot: SessionSlot, reason: Reason, error: Option<OpenError>, orderly: bool) {
        let Some(entry) = self.sessions.remove(slot) else { return };
        // Detached, it asks for no turn any more; and where it stood, the next session in its slot must not be found.
        let mut core = entry.state.lock();
        core.proto.detach();
        self.calls = plus(self.calls, entry.uncounted(&core.proto));
        drop(core);
        self.link.lock().out.forget(slot);
        if let Some(opening) = entry.opening {
            let rejected = || OpenError::rejected(reason.clone());
            let _ = opening.send(Err(error.unwrap_or_else(rejected)));
        }
        entry.state.ended(reason, orderly);
        while let Some(opening) = self.waiting.pop_front() {
            if !opening.done.is_closed() {
                return self.open_or_wait(opening);
            }
        }
    }
}

impl Sessions {
    /// Wakes a session, if it is at rest.
    #[cold]
    pub(super) fn wake(
        &mut self,
        slot: SessionSlot,
        connection: &Connection,
        limits: &Limits,
        services: &Services,
        link: &Arc<Link>,
    ) {
        let Some(resting) = self.resting(slot) else { return };
        let (mut proto, [sid, service, codec]) = Session::wake::<OWN>(resting, Side::Acceptor, limits.session());
        let sid = Sid(sid);
        let (Some(offered), Some(codec)) = (services.at(service), u8::try_from(codec).ok().and_then(Codec::from_wire_id)) else {
            unreachable!("it was accepted for a service and in a codec of this side");
        };
        proto.attach(Place { slot, sid: connection.on_wire(sid) });
        let entry = accepted(proto, sid, offered, codec, link);
        self.woken(slot, entry);
    }
}

/// The entry of a session that the peer opened.
fn accepted(proto: Session<Slot>, sid: Sid, offered: &Arc<Offered>, codec: Codec, link: &Arc<Link>) -> Entry {
    let limits = (!offered.trusted).then_some(DecodeLimits::DEFAULT);
    let counted = calls(&proto);
    let (state, seen) = (SessionState::new(proto, link.clone()), (0, 0));
    let (info, theirs, opening, decoding) = (offered.info, None, None, Decoding { codec, limits });
    Entry { state, sid, offered: Some(offered.clone()), info, theirs, decoding, opening, seen, counted }
}

impl Entry {
    /// Calls in it that the connection has not counted yet.
    pub(super) fn uncounted(&self, proto: &Session<Slot>) -> (u64, u64) {
        let now = calls(proto);
        (now.0 - self.counted.0, now.1 - self.counted.1)
    }
}

pub(super) fn plus(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

/// How many calls there were in a session, of this side and of the peer.
fn calls(proto: &Session<Slot>) -> (u64, u64) {
    let view = proto.view();
    (view.opened, view.accepted)
}
