//! One end of the simulated connection: what a driver does, without socket, clock or tasks.

use std::collections::BTreeMap;

use rpc_core::code::Code;
use rpc_core::id::{ExchangeKey, Sid, Side};
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{
    Connection, ConnectionError, ConnectionEvent, Handshake, Input, Limits, Link, Outbox, Session, SessionEvent, Time,
};
use rpc_core::wire::frame::{Mode, Reason, kind};
use rpc_core::wire::hello::{SessionAccept, SessionOpen};

use crate::fairness::Fairness;

/// What an end attaches to an exchange: the number of the simulated call.
pub(crate) type User = u64;

/// What services are called where peers break rules: numbers below this.
pub(crate) const SERVED: usize = 4;

/// A session with its place on the connection that it is attached to.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) core: Session<User>,
    pub(crate) sid: Sid,
    pub(crate) live: bool,
    /// It has ended, and is on no connection any more.
    pub(crate) over: bool,
}

/// What happened in a session, for the applications of the world.
#[derive(Debug)]
pub(crate) enum Event {
    Session(usize, SessionEvent),
    Expired(usize, ExchangeKey, Side),
}

impl Attached {
    /// A session with nothing under way is written down and woken again: nobody may notice.
    fn nap(&mut self, limits: &Limits, now: Time) {
        if let Some(resting) = self.core.rest(&[], now) {
            let (mut woken, []) = Session::wake(&resting, self.core.side(), limits.session());
            woken.attach(self.core.link().expect("it is attached"));
            self.core = woken;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) connection: Connection,
    pub(crate) out: Outbox,
    pub(crate) limits: Limits,
    pub(crate) sessions: BTreeMap<usize, Attached>,
    input: Input,
    flushing: Output,
    /// A seeded fault: announcements of credit are passed over.
    pub(crate) deaf: bool,
    /// The peer may break rules: a breach of a session's ends that session, and not the run.
    pub(crate) wary: bool,
    pub(crate) events: Vec<Event>,
    pub(crate) fairness: Fairness,
}

impl Node {
    pub(crate) fn new(side: Side, mode: Mode, limits: Limits, now: Time) -> Self {
        let handshake = Handshake { side, mode, modes: vec![Mode::Single, Mode::Multi], codecs: vec![1] };
        Self {
            connection: Connection::new(handshake, limits.clone(), now),
            out: Outbox::new(limits.connection_window),
            limits,
            sessions: BTreeMap::new(),
            input: Input::new(256),
            flushing: Output::default(),
            deaf: false,
            wary: false,
            events: Vec::new(),
            fairness: Fairness::default(),
        }
    }

    /// Opens a session, or moves an existing one here.
    pub(crate) fn open(&mut self, index: usize, core: Session<User>, name: &str) {
        let open = SessionOpen {
            service: name.into(),
            fingerprint: 0,
            codecs: vec![1],
            windows: self.limits.windows(),
            weight: core.weight(),
        };
        let sid = self.connection.open(SessionSlot(index as u32), &open).expect("the mode allows it");
        self.sessions.insert(index, Attached { core, sid, live: false, over: false });
    }

    /// A session is over: its alias leads nowhere, and what it held is given back.
    pub(crate) fn forget(&mut self, index: usize) {
        let attached = self.sessions.get_mut(&index).expect("the session is here");
        if !std::mem::replace(&mut attached.over, true) {
            self.connection.forget(attached.sid);
            attached.core.detach();
        }
    }

    pub(crate) fn session(&mut self, index: usize) -> &mut Session<User> {
        &mut self.sessions.get_mut(&index).expect("the session is here").core
    }

    /// Does something with a session and brings what follows into the outbox.
    pub(crate) fn with<R>(&mut self, index: usize, act: impl FnOnce(&mut Session<User>) -> R) -> R {
        let session = &mut self.sessions.get_mut(&index).expect("the session is here").core;
        let result = act(session);
        session.flush(&mut self.out);
        result
    }

    /// Does something with a session that writes into the outbox itself.
    pub(crate) fn with_out<R>(&mut self, index: usize, act: impl FnOnce(&mut Session<User>, &mut Outbox) -> R) -> R {
        act(&mut self.sessions.get_mut(&index).expect("the session is here").core, &mut self.out)
    }

    /// How many bytes of metadata a call may have. What the peer takes is known to the outbox with the next flush.
    pub(crate) fn metadata_room(&mut self, index: usize) -> usize {
        self.connection.flush(&mut self.out);
        self.with_out(index, |session, out| session.metadata_room(out))
    }

    /// Bytes from the network.
    pub(crate) fn receive(
        &mut self,
        mut bytes: &[u8],
        now: Time,
        arriving: &mut BTreeMap<usize, Session<User>>,
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            let space = self.input.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.input.advance(n);
            bytes = &bytes[n..];
            self.connection.heard(now);
            self.out.growth().begin_turn(now);
            // As a driver: credit is told once a turn, in `transmit`.
            if self.connection.needs_flush() {
                self.connection.flush(&mut self.out);
            }
            self.handle(now, arriving).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn handle(&mut self, now: Time, arriving: &mut BTreeMap<usize, Session<User>>) -> Result<(), ConnectionError> {
        loop {
            match self.connection.next_event(now, &mut self.input)? {
                None => return Ok(()),
                Some(
                    ConnectionEvent::Ignored
                    | ConnectionEvent::SessionRefused
                    | ConnectionEvent::Connected
                    | ConnectionEvent::GoingAway,
                ) => {}
                Some(ConnectionEvent::SessionOpened { sid, open })
                    if self.wary
                        && !open.service.parse().is_ok_and(|index| index < SERVED && !self.sessions.contains_key(&index)) =>
                {
                    self.connection.reject(sid, Reason::new(Code::UNKNOWN_SERVICE, "there is no such service"));
                }
                Some(ConnectionEvent::SessionOpened { sid, open }) => {
                    let index: usize = open.service.parse().expect("the name is the session's number");
                    let mut core = arriving.remove(&index).unwrap_or_else(|| Session::new(Side::Acceptor, self.limits.session()));
                    core.granted(open.windows);
                    core.weigh_as_wished(open.weight);
                    let slot = SessionSlot(index as u32);
                    let accept = SessionAccept { codec: 1, windows: self.limits.windows(), methods: None };
                    self.connection.accept(sid, slot, &accept);
                    core.attach(Link { slot, sid: self.connection.on_wire(sid) });
                    self.sessions.insert(index, Attached { core, sid, live: true, over: false });
                }
                Some(ConnectionEvent::SessionAccepted { slot, accept }) => {
                    let index = slot.0 as usize;
                    let attached = self.sessions.get_mut(&index).expect("it was opened");
                    attached.core.granted(accept.windows);
                    attached.core.attach(Link { slot, sid: self.connection.on_wire(attached.sid) });
                    attached.live = true;
                    attached.core.flush(&mut self.out);
                }
                Some(ConnectionEvent::SessionRejected { slot, reject }) if self.wary => self.cut_off(slot, reject.reason),
                Some(ConnectionEvent::SessionRejected { reject, .. }) => {
                    return Err(ConnectionError::ClosedByPeer(reject.reason));
                }
                Some(ConnectionEvent::Frame { frame, .. })
                    if self.deaf && matches!(frame.kind, kind::MAX_STREAM | kind::MAX_SESSION) => {}
                Some(ConnectionEvent::Frame { slot, frame }) => {
                    let index = slot.0 as usize;
                    let attached = self.sessions.get_mut(&index).expect("aliases lead to sessions");
                    attached.nap(&self.limits, now);
                    match attached.core.handle_frame(&frame, now, || u64::MAX) {
                        Ok(event) => {
                            if matches!(event, Some(SessionEvent::Aborted(_))) {
                                self.connection.forget(attached.sid);
                                attached.over |= self.wary;
                            }
                            self.events.extend(event.map(|event| Event::Session(index, event)));
                        }
                        Err(error) if self.wary => {
                            let (abort, sid) = (attached.core.abort(error.reason.clone()), attached.sid);
                            self.connection.abort(sid, &abort);
                            self.cut_off(slot, error.reason);
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    }
                    attached.core.flush(&mut self.out);
                }
            }
        }
    }

    /// A session is over by the peer's doing, or for what it did.
    fn cut_off(&mut self, slot: SessionSlot, reason: Reason) {
        let attached = self.sessions.get_mut(&(slot.0 as usize)).expect("aliases lead to sessions");
        attached.core.fail(reason.clone());
        attached.core.detach();
        (attached.over, attached.live) = (true, false);
        self.out.forget(slot);
        self.events.push(Event::Session(slot.0 as usize, SessionEvent::Aborted(reason)));
    }

    /// How large the buffer for reading has grown.
    pub(crate) fn buffer(&self) -> usize {
        self.input.capacity()
    }

    /// Takes at most `n` bytes for the network, as a socket would.
    pub(crate) fn transmit(&mut self, now: Time, n: usize, written: &mut usize, into: &mut Vec<u8>) {
        self.out.growth().begin_turn(now);
        self.connection.flush(&mut self.out);
        while let Some((slot, lane)) = self.out.next_session() {
            if let Some(attached) = self.sessions.get_mut(&(slot.0 as usize)) {
                let waited = attached.core.is_waiting();
                attached.core.transmit(lane, &mut self.out);
                let sessions = &self.sessions;
                let waits = |index: usize| sessions.get(&index).is_some_and(|attached| attached.core.is_waiting());
                let sent = |index: usize| sessions[&index].core.sent();
                self.fairness.turn(slot.0 as usize, waited, waits, sent);
            }
        }
        if *written == self.flushing.len() {
            self.flushing.clear();
            *written = 0;
            self.connection.take_batch(&mut self.out, &mut self.flushing);
        }
        self.out.growth().end_turn();
        let before = into.len();
        self.flushing.slices(*written, usize::MAX, |slice| {
            let room = n - (into.len() - before);
            into.extend_from_slice(&slice[..slice.len().min(room)]);
        });
        *written += into.len() - before;
    }

    /// What a driver does with its clock.
    pub(crate) fn tick(&mut self, now: Time) {
        while let Some(slot) = self.out.next_unstamped() {
            if let Some(attached) = self.sessions.get_mut(&(slot.0 as usize)) {
                attached.core.stamp(now);
            }
        }
        for (index, attached) in &mut self.sessions {
            let events = &mut self.events;
            attached.core.handle_deadlines(now, |key, opener| events.push(Event::Expired(*index, key, opener)));
            attached.core.flush(&mut self.out);
        }
    }

    pub(crate) fn is_quiet(&self, written: usize) -> bool {
        self.out.is_quiet() && written == self.flushing.len() && !self.connection.needs_flush() && self.input.pending().is_empty()
    }

    /// Bytes that this end received and did not release, at the connection.
    pub(crate) fn held(&mut self) -> u64 {
        self.connection.flush(&mut self.out);
        self.connection.received() - self.out.grant().released()
    }
}
