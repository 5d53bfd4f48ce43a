//! The incoming half of a connection: preface, handshake, framing, keepalive, and which session a frame is for
//! (docs/PROTOCOL.md §4, §5, §8.3). It holds no session and no lock; the driver owns it together with the socket.
//!
//! ```text
//! initiator   Greeting ── HELLO_ACK ──▶ Open          acceptor   Greeting ── HELLO ──▶ Open
//!                └─ HELLO_REJECT ─▶ error                           └─ unfit ─▶ HELLO_REJECT, error
//! ```
//! What it has to say waits in it until [`Connection::flush`] brings it into the control lane, so that reading a batch
//! of frames takes no lock.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use super::bucket::Bucket;
use super::config::{Limits, SMALLEST_KEEPALIVE};
use super::error::{ConnectionError, ProtocolError};
use super::input::Input;
use super::outbox::{Outbox, Output, SessionSlot};
use super::patience::Toll;
use super::table::DenseHasher;
use super::time::Time;
use crate::code::Code;
use crate::codec::nothing_in_common;
use crate::id::{Sid, Side};
use crate::wire::frame::{Abort, Frame, GoAway, Mode, Reason, Run, charge, flag, kind, read_varints, session_head};
use crate::wire::header::Scope;
use crate::wire::hello::{Hello, MAX_HELLO, PREFACE, Reject, SessionAccept, SessionOpen, VERSION, recognise};
use crate::wire::{HeadBuf, RawFrame};

/// PINGs answered within one second; more is a provocation (§8.3).
const PINGS_PER_SECOND: u32 = 10;

/// What one side brings into the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Which end this is.
    pub side: Side,
    /// Initiator: the mode wished for. Acceptor: ignored, see `modes`.
    pub mode: Mode,
    /// Acceptor: the modes offered.
    pub modes: Vec<Mode>,
    /// Codecs by number, in order of preference.
    pub codecs: Vec<u8>,
}

/// What the handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// One session or many.
    pub mode: Mode,
    /// Codecs that both sides have, in the initiator's order.
    pub codecs: Vec<u8>,
    /// Silence after which a PING goes out.
    pub keepalive_interval: Duration,
    /// Silence behind it after which the peer counts as gone.
    pub keepalive_timeout: Duration,
    /// Sessions that this side may have open at a time.
    pub sessions: u64,
}

/// What the next frame means.
#[derive(Debug)]
pub enum ConnectionEvent<'a> {
    /// The handshake is complete; see [`Connection::negotiated`].
    Connected,
    /// The peer opens a session: answer with [`Connection::accept`] or [`Connection::reject`].
    SessionOpened {
        /// Its alias.
        sid: Sid,
        /// What it is for.
        open: Box<SessionOpen>,
    },
    /// The peer accepted a session of this side.
    SessionAccepted {
        /// Its place in the driver's table.
        slot: SessionSlot,
        /// What was granted.
        accept: Box<SessionAccept>,
    },
    /// The peer rejected a session of this side, which is forgotten.
    SessionRejected {
        /// Its place in the driver's table.
        slot: SessionSlot,
        /// Why.
        reject: Box<Reject>,
    },
    /// A frame for a session.
    Frame {
        /// The session's place in the driver's table.
        slot: SessionSlot,
        /// The frame.
        frame: Frame<'a>,
    },
    /// The peer goes away: it takes no further sessions, and closes those that there are. [`Connection::peer_goes`]
    /// tells why.
    GoingAway,
    /// The peer has as many sessions as it may, and opened another one, which was refused.
    SessionRefused,
    /// A frame that was dealt with here; there may be more.
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The peer's preface and first frame are to come.
    Greeting {
        preface: bool,
    },
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alias {
    /// S_OPEN is out, the answer is to come.
    Pending(SessionSlot),
    Live(SessionSlot),
}

/// How far this side's departure has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// GOAWAY was written; the peer may have opened sessions meanwhile.
    Said,
    /// GOAWAY_ACK has arrived: no further session is under way.
    Acknowledged,
}

/// One connection. See the module's text.
#[derive(Debug)]
pub struct Connection {
    handshake: Handshake,
    limits: Limits,
    state: State,
    negotiated: Negotiated,
    hello: Option<Hello>,

    /// The session of the last frame: most frames come in runs.
    last: Option<(Sid, SessionSlot)>,
    aliases: HashMap<u64, Alias, BuildHasherDefault<DenseHasher>>,
    next_local: u64,
    next_remote: u64,
    remote_sessions: u64,
    local_sessions: u64,

    received: u64,
    allowed: u64,

    /// This side has said that it goes away, and whether the peer has answered.
    leaving: Option<Leaving>,
    /// What the peer said when it began to go away.
    peer_goes: Option<GoAway>,

    /// Control frames until the next flush.
    pending: Vec<(HeadBuf, Vec<u8>)>,
    /// How many bytes they have.
    owed: usize,
    raise: Option<u64>,

    /// What the peer may do wrong, and what it did since that was charged.
    errors: Bucket,
    wrong: u64,

    started: Time,
    last_received: Time,
    pinged: Option<Time>,
    pings: u32,
    pings_since: Time,
    /// When the round trip that is measured began, which its PING carries, and whether nothing else was under way.
    probed: Option<(Time, bool)>,
    /// When the peer was told what it waited for with all else.
    answered: Option<Time>,
    /// How long one took, and whether nothing else was under way.
    round: Option<(Duration, bool)>,
}

impl Connection {
    /// A connection at its start. The initiator's preface and HELLO go out with the first [`flush`](Self::flush).
    pub fn new(handshake: Handshake, limits: Limits, now: Time) -> Self {
        let negotiated = Negotiated {
            mode: handshake.mode,
            codecs: Vec::new(),
            keepalive_interval: limits.keepalive_interval,
            keepalive_timeout: limits.keepalive_timeout,
            sessions: 0,
        };
        let side = handshake.side;
        let mut connection = Self {
            allowed: limits.connection_window,
            errors: Bucket::new(limits.errors),
            wrong: 0,
            handshake,
            limits,
            state: State::Greeting { preface: true },
            negotiated,
            hello: None,
            last: None,
            aliases: HashMap::default(),
            next_local: side.first_id(),
            next_remote: side.peer().first_id(),
            remote_sessions: 0,
            local_sessions: 0,
            received: 0,
            leaving: None,
            peer_goes: None,
            pending: Vec::new(),
            owed: 0,
            raise: None,
            started: now,
            last_received: now,
            pinged: None,
            pings: 0,
            pings_since: now,
            probed: None,
            answered: None,
            round: None,
        };
        if side == Side::Initiator {
            let hello = connection.own_hello(connection.handshake.mode, connection.handshake.codecs.clone());
            connection.push_hello(kind::HELLO, &hello);
        }
        connection
    }

    fn own_hello(&self, mode: Mode, codecs: Vec<u8>) -> Hello {
        Hello {
            versions: (VERSION, VERSION),
            mode,
            max_frame: self.limits.max_frame,
            codecs,
            units: 0,
            required_units: 0,
            connection_window: self.limits.connection_window,
            sessions: self.limits.sessions,
            keepalive_interval_ms: self.limits.keepalive_interval.as_millis() as u64,
            keepalive_timeout_ms: self.limits.keepalive_timeout.as_millis() as u64,
        }
    }

    fn push_hello(&mut self, kind: u8, hello: &Hello) {
        let mut body = Vec::new();
        hello.write(&mut body);
        self.say(HeadBuf::new(kind, 0), body);
    }

    /// Appends a control frame.
    fn say(&mut self, head: HeadBuf, body: Vec<u8>) {
        self.owed += head.len() + body.len();
        self.pending.push((head, body));
    }

    /// Bytes of the frames that wait for the next flush: the driver stops reading when they and those in the control lane
    /// exceed [`Limits::owed`].
    #[inline]
    pub fn owed(&self) -> usize {
        self.owed
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.handshake.side
    }

    /// Whether the handshake is complete.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// What the handshake settled; before it, this side's wishes.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Sessions that this side has opened and that are not over, those that are closing included.
    pub fn local_sessions(&self) -> u64 {
        self.local_sessions
    }

    /// Bytes received against the connection's credit, for checks.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes what is to be written, for `empty` in exchange. What that announces to the peer holds from now on.
    #[inline]
    pub fn take_batch(&mut self, out: &mut Outbox, empty: &mut Output) {
        out.swap(empty);
        self.allowed = out.grant().max();
    }

    /// Moves what waits here into the control lane, and tells what was received. The driver calls it before it writes.
    #[inline]
    pub fn flush(&mut self, out: &mut Outbox) {
        if out.growth().take_curiosity() && self.probed.is_none() {
            self.probe(out.growth().now());
        }
        if self.needs_flush() {
            self.flush_now(out);
        }
        out.note_received(self.received);
    }

    /// Sends a PING to see how long a round trip is.
    #[cold]
    fn probe(&mut self, now: Time) {
        if self.is_open() {
            self.probed = Some((now, false));
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Time) {
        self.say(HeadBuf::new(kind::PING, 0), now.as_micros().to_le_bytes().to_vec());
    }

    fn flush_now(&mut self, out: &mut Outbox) {
        match self.round.take() {
            Some((round, true)) => out.growth().note_quiet_round(round),
            Some((round, false)) => out.growth().note_round(round),
            None => {}
        }
        if let Some(max) = self.raise.take() {
            out.raise(max);
        }
        if let Some(hello) = self.hello.take() {
            out.open(hello.max_frame, hello.connection_window);
            out.grow_to(self.limits.max_connection_window);
        }
        self.owed = 0;
        for (head, body) in self.pending.drain(..) {
            // HELLO is the first frame of its side, and HELLO_ACK or HELLO_REJECT of the other.
            if matches!(head.kind(), kind::HELLO | kind::HELLO_ACK | kind::HELLO_REJECT) {
                out.preface(&PREFACE);
            }
            if matches!(head.kind(), kind::S_OPEN | kind::GOAWAY_ACK) {
                // Behind the last word of the session whose place it takes, and behind the sessions that it counts.
                out.last(head, &body);
            } else {
                out.control(head, &body);
            }
        }
    }

    /// Whether [`flush`](Self::flush) has anything to do.
    #[inline]
    pub fn needs_flush(&self) -> bool {
        !self.pending.is_empty() || self.raise.is_some() || self.hello.is_some() || self.round.is_some()
    }

    /// Bytes have arrived: the peer lives.
    #[inline]
    pub fn heard(&mut self, now: Time) {
        self.last_received = now;
        self.pinged = None;
        if let Some(answered) = self.answered.take() {
            self.round = Some((now.since(answered), true));
        }
    }

    /// Handles the next frame of `input`. `None`: more bytes are needed.
    ///
    /// # Errors
    /// The connection cannot go on; [`close_reason`](Self::close_reason) tells what to say to the peer.
    #[inline]
    pub fn next_event<'i>(&mut self, now: Time, input: &'i mut Input) -> Result<Option<ConnectionEvent<'i>>, ConnectionError> {
        if self.state != State::Open {
            return self.greet(now, input);
        }
        let (mode, max_frame, credit) = (self.negotiated.mode, self.limits.max_frame, self.allowed - self.received);
        let mut taken = 0;
        let cut = input.next_frames(max_frame, |raw, behind| {
            if raw.kind != kind::DATA || raw.flags != flag::EOM || behind.is_empty() {
                return 0;
            }
            let len;
            (len, taken) = Run::measure(raw, mode, max_frame, credit.saturating_sub(charge(raw.rest.len())), behind);
            len
        })?;
        let Some((raw, behind)) = cut else { return Ok(None) };
        self.received += taken;
        self.handle_frame(raw, behind, now)
    }

    /// The next frame, where it is one of those that most are: it ends a direction of an exchange, in the session of the frame
    /// before, and has arrived whole. Else nothing has happened, and [`next_event`](Self::next_event) handles what there is.
    #[inline]
    pub fn next_frame<'i>(&mut self, input: &'i mut Input) -> Option<(SessionSlot, Frame<'i>)> {
        let (last, slot) = self.last?;
        let (mode, left) = (self.negotiated.mode, self.allowed - self.received);
        let frame = input.next_if(self.limits.max_frame, |raw| {
            if !matches!(raw.kind, kind::OPEN | kind::DATA) || raw.flags & flag::END == 0 {
                return None;
            }
            Frame::read(raw, mode).ok().filter(|frame| frame.sid == last && frame.charge() <= left)
        })?;
        self.received += frame.charge();
        Some((slot, frame))
    }

    fn greet<'i>(&mut self, now: Time, input: &'i mut Input) -> Result<Option<ConnectionEvent<'i>>, ConnectionError> {
        if self.state == (State::Greeting { preface: true }) {
            let pending = input.pending();
            let n = pending.len().min(PREFACE.len());
            if pending[..n] != PREFACE[..n] {
                return Err(ConnectionError::NotRpc { seen: recognise(pending) });
            }
            if input.take(PREFACE.len()).is_none() {
                return Ok(None);
            }
            self.state = State::Greeting { preface: false };
        }
        match input.next_frame(MAX_HELLO)? {
            None => Ok(None),
            Some(raw) => match (self.handshake.side, raw.kind) {
                (Side::Acceptor, kind::HELLO) => {
                    let hello = Hello::read(raw.rest)?;
                    self.answered = (hello.mode == Mode::Multi).then_some(now);
                    self.handle_hello(&hello).map(Some)
                }
                (Side::Initiator, kind::HELLO_ACK) => {
                    self.round = Some((now.since(self.started), true));
                    self.handle_hello_ack(Hello::read(raw.rest)?).map(Some)
                }
                (Side::Initiator, kind::HELLO_REJECT) => {
                    let Reject { reason, codecs: theirs } = Reject::read(raw.rest)?;
                    Err(ConnectionError::Rejected { reason, ours: self.handshake.codecs.clone(), theirs })
                }
                (Side::Initiator, kind::CONN_CLOSE) => self.handle_frame(raw, &[], now),
                (_, other) => {
                    let text = format!("frame type {other:#04x} before the handshake");
                    Err(ProtocolError::new(Code::PROTOCOL, text).into())
                }
            },
        }
    }

    fn handle_hello(&mut self, hello: &Hello) -> Result<ConnectionEvent<'static>, ConnectionError> {
        let mut codecs = Vec::new();
        for codec in &hello.codecs {
            // Once each, however often the peer repeats one: sessions are looked up in this list, and it is answered.
            if self.handshake.codecs.contains(codec) && !codecs.contains(codec) {
                codecs.push(*codec);
            }
        }
        let refusal = if !(hello.versions.0..=hello.versions.1).contains(&VERSION) {
            Some(Reason::new(Code::VERSION, format!("this side speaks version {VERSION}")))
        } else if !self.handshake.modes.contains(&hello.mode) {
            Some(Reason::new(Code::MODE, format!("this side offers {:?}", self.handshake.modes)))
        } else if hello.required_units != 0 {
            Some(Reason::new(Code::UNIT, format!("units {:#x} are required, and none is offered", hello.required_units)))
        } else if codecs.is_empty() {
            Some(Reason::new(Code::NO_CODEC, nothing_in_common(&hello.codecs, &self.handshake.codecs)))
        } else {
            None
        };
        if let Some(reason) = refusal {
            let mut body = Vec::new();
            Reject { reason: reason.clone(), codecs: self.handshake.codecs.clone() }.write(&mut body);
            self.say(HeadBuf::new(kind::HELLO_REJECT, 0), body);
            return Err(ProtocolError { reason }.into());
        }
        let answer = self.own_hello(hello.mode, codecs);
        self.push_hello(kind::HELLO_ACK, &answer);
        // The keepalive is the acceptor's choice, and stands in its answer.
        Ok(self.opened(answer, hello))
    }

    fn handle_hello_ack(&mut self, hello: Hello) -> Result<ConnectionEvent<'static>, ConnectionError> {
        let known = hello.codecs.iter().all(|codec| self.handshake.codecs.contains(codec));
        let fits = hello.mode == self.handshake.mode && hello.units == 0 && hello.required_units == 0;
        if !fits || !known || hello.codecs.is_empty() || hello.versions != (VERSION, VERSION) {
            return Err(ProtocolError::new(Code::PROTOCOL, "HELLO_ACK selects what was not offered").into());
        }
        let peer = hello.clone();
        Ok(self.opened(hello, &peer))
    }

    /// `selected` is the acceptor's statement, `peer` what the other side is ready to receive.
    fn opened(&mut self, selected: Hello, peer: &Hello) -> ConnectionEvent<'static> {
        self.state = State::Open;
        self.negotiated = Negotiated {
            mode: selected.mode,
            codecs: selected.codecs,
            keepalive_interval: keepalive(selected.keepalive_interval_ms, self.limits.keepalive_interval),
            keepalive_timeout: keepalive(selected.keepalive_timeout_ms, self.limits.keepalive_timeout),
            sessions: peer.sessions,
        };
        self.hello = Some(peer.clone());
        ConnectionEvent::Connected
    }

    /// Handles a frame, and the items `behind` it, whose credit was taken.
    #[inline]
    fn handle_frame<'i>(
        &mut self,
        raw: RawFrame<'i>,
        behind: &'i [u8],
        now: Time,
    ) -> Result<Option<ConnectionEvent<'i>>, ConnectionError> {
        if raw.scope() == Scope::Connection {
            return self.handle_connection_frame(raw, now);
        }
        let frame = Frame::read(raw, self.negotiated.mode)?.with(&raw, behind);
        let charge = frame.charge();
        if charge > self.allowed - self.received {
            return Err(ProtocolError::new(Code::FLOW, "more bytes than the connection's credit allows").into());
        }
        self.received += charge;
        if let Some((sid, slot)) = self.last
            && sid == frame.sid
            && frame.kind > kind::S_REJECT
        {
            return Ok(Some(ConnectionEvent::Frame { slot, frame }));
        }
        match self.aliases.get(&frame.sid.0) {
            Some(Alias::Live(slot)) if !matches!(frame.kind, kind::S_OPEN | kind::S_ACCEPT | kind::S_REJECT) => {
                self.last = Some((frame.sid, *slot));
                Ok(Some(ConnectionEvent::Frame { slot: *slot, frame }))
            }
            alias => {
                let alias = alias.copied();
                self.handle_session_frame(frame, alias, now)
            }
        }
    }

    /// Frames that open a session, and those of sessions that are not live.
    fn handle_session_frame<'i>(
        &mut self,
        frame: Frame<'i>,
        alias: Option<Alias>,
        now: Time,
    ) -> Result<Option<ConnectionEvent<'i>>, ConnectionError> {
        let sid = frame.sid;
        match (frame.kind, alias) {
            (kind::S_OPEN, None) => {
                if sid.0 != self.next_remote {
                    let text = format!("S_OPEN of {sid}, where session {} is next", self.next_remote);
                    return Err(ProtocolError::new(Code::PROTOCOL, text).into());
                }
                if self.leaving == Some(Leaving::Acknowledged) {
                    return Err(ProtocolError::new(Code::PROTOCOL, "S_OPEN behind GOAWAY_ACK").into());
                }
                self.next_remote += 2;
                // Whoever goes on after its sessions failed has to pass here.
                self.charge(Toll::default(), now)?;
                if self.leaving.is_some() {
                    self.reject(sid, Reason::new(Code::REFUSED, "this side is going away"));
                    return Ok(Some(ConnectionEvent::Ignored));
                }
                let open = match SessionOpen::read(frame.body) {
                    Ok(open) => open,
                    Err(error) => {
                        self.reject(sid, Reason::new(Code::PROTOCOL, error.to_string()));
                        return Ok(Some(ConnectionEvent::Ignored));
                    }
                };
                if self.remote_sessions >= self.limits.sessions {
                    self.reject(
                        sid,
                        Reason::new(Code::REFUSED, format!("{} sessions at a time are the most", self.limits.sessions)),
                    );
                    return Ok(Some(ConnectionEvent::SessionRefused));
                }
                Ok(Some(ConnectionEvent::SessionOpened { sid, open: Box::new(open) }))
            }
            (kind::S_ACCEPT, Some(Alias::Pending(slot))) => {
                let accept = Box::new(SessionAccept::read(frame.body)?);
                self.aliases.insert(sid.0, Alias::Live(slot));
                Ok(Some(ConnectionEvent::SessionAccepted { slot, accept }))
            }
            (kind::S_REJECT, Some(Alias::Pending(slot))) => {
                let reject = Box::new(Reject::read(frame.body)?);
                self.forget(sid);
                Ok(Some(ConnectionEvent::SessionRejected { slot, reject }))
            }
            (kind::S_OPEN | kind::S_ACCEPT | kind::S_REJECT, _) | (_, Some(Alias::Pending(_))) => {
                let text = format!("frame type {:#04x} does not fit the state of {sid}", frame.kind);
                Err(ProtocolError::new(Code::PROTOCOL, text).into())
            }
            (_, _) => {
                let next = if self.handshake.side.owns(sid.0) { self.next_local } else { self.next_remote };
                if sid.0 >= next {
                    return Err(ProtocolError::new(Code::PROTOCOL, format!("{sid} was never opened")).into());
                }
                // The session is gone, and its last frames were on their way: nobody takes them.
                Ok(Some(ConnectionEvent::Ignored))
            }
        }
    }

    fn handle_connection_frame(
        &mut self,
        raw: RawFrame<'_>,
        now: Time,
    ) -> Result<Option<ConnectionEvent<'static>>, ConnectionError> {
        match raw.kind {
            kind::PING => {
                if now.since(self.pings_since) >= Duration::from_secs(1) {
                    (self.pings_since, self.pings) = (now, 0);
                }
                self.pings += 1;
                if self.pings > PINGS_PER_SECOND {
                    return Err(ProtocolError::new(Code::CALM, "more than 10 PINGs in a second").into());
                }
                let Ok(token) = <[u8; 8]>::try_from(raw.rest) else {
                    return Err(ProtocolError::new(Code::PROTOCOL, "PING carries 8 bytes").into());
                };
                self.say(HeadBuf::new(kind::PONG, 0), token.to_vec());
            }
            // That something arrived has been noted already. What else a PONG says is how long it took, if it is the one that
            // was asked for.
            kind::PONG => {
                if let Some((began, quiet)) = self.probed.take_if(|(began, _)| raw.rest == began.as_micros().to_le_bytes()) {
                    self.round = Some((now.since(began), quiet));
                }
            }
            kind::MAX_CONN_DATA => {
                let [max] = read_varints(raw.rest, ["the connection's maximum"])?;
                self.raise = Some(self.raise.map_or(max, |raise| raise.max(max)));
            }
            kind::GOAWAY => {
                let goaway = GoAway::read(raw.rest)?;
                if self.peer_goes.replace(goaway).is_some() {
                    return Err(ProtocolError::new(Code::PROTOCOL, "GOAWAY for the second time").into());
                }
                let mut head = HeadBuf::new(kind::GOAWAY_ACK, 0);
                head.varint(sessions_before(self.next_local));
                self.say(head, Vec::new());
                return Ok(Some(ConnectionEvent::GoingAway));
            }
            kind::GOAWAY_ACK => {
                let [sessions] = read_varints(raw.rest, ["the number of sessions"])?;
                if self.leaving != Some(Leaving::Said) || sessions != sessions_before(self.next_remote) {
                    let text =
                        format!("GOAWAY_ACK of {sessions} sessions, where {} have come", sessions_before(self.next_remote));
                    return Err(ProtocolError::new(Code::PROTOCOL, text).into());
                }
                self.leaving = Some(Leaving::Acknowledged);
            }
            kind::CONN_CLOSE => return Err(ConnectionError::ClosedByPeer(Reason::read(raw.rest)?)),
            _ if raw.is_ignorable() => {}
            other => {
                return Err(ProtocolError::new(Code::UNKNOWN_FRAME, format!("frame type {other:#04x} is not known here")).into());
            }
        }
        Ok(Some(ConnectionEvent::Ignored))
    }

    /// Opens a session of this side, kept at `slot` by the driver.
    ///
    /// # Errors
    /// In single-session mode there is one session, opened by the initiator. And a connection that one side is leaving
    /// takes no further ones.
    pub fn open(&mut self, slot: SessionSlot, open: &SessionOpen) -> Result<Sid, Reason> {
        let sid = Sid(self.next_local);
        if let Some(GoAway { reason, .. }) = &self.peer_goes {
            return Err(Reason::new(Code::REFUSED, format!("the peer is going away: {reason}")));
        }
        if self.leaving.is_some() {
            return Err(Reason::new(Code::REFUSED, "this side is going away"));
        }
        if self.negotiated.mode == Mode::Single && sid != Sid(0) {
            return Err(Reason::new(Code::MODE, "in single-session mode a connection has one session, opened by its initiator"));
        }
        self.next_local += 2;
        self.local_sessions += 1;
        self.aliases.insert(sid.0, Alias::Pending(slot));
        let mut body = Vec::new();
        open.write(&mut body);
        self.say(session_head(kind::S_OPEN, 0, self.on_wire(sid)), body);
        Ok(sid)
    }

    /// Accepts a session of the peer, kept at `slot` by the driver.
    pub fn accept(&mut self, sid: Sid, slot: SessionSlot, accept: &SessionAccept) {
        self.aliases.insert(sid.0, Alias::Live(slot));
        self.remote_sessions += 1;
        let mut body = Vec::new();
        accept.write(&mut body);
        self.say(session_head(kind::S_ACCEPT, 0, self.on_wire(sid)), body);
    }

    /// One of the peer's sessions came to its end by its fault. It is charged when the peer opens the next one.
    pub fn failed(&mut self) {
        self.wrong += 1;
    }

    /// Charges what the peer provoked in one of its sessions.
    ///
    /// # Errors
    /// It was too much for one connection, whatever sessions it is spread over.
    pub fn charge(&mut self, toll: Toll, now: Time) -> Result<(), ConnectionError> {
        let wrong = std::mem::take(&mut self.wrong) + toll.cancels + toll.resets;
        if self.errors.take(wrong, toll.completed, now) {
            return Ok(());
        }
        Err(ProtocolError::new(Code::CALM, "too many errors and cancelled calls").into())
    }

    /// Rejects a session of the peer. It is told the codecs that sessions of this connection can have.
    pub fn reject(&mut self, sid: Sid, reason: Reason) {
        self.wrong += 1;
        let mut body = Vec::new();
        Reject { reason, codecs: self.negotiated.codecs.clone() }.write(&mut body);
        self.say(session_head(kind::S_REJECT, 0, self.on_wire(sid)), body);
    }

    /// Ends a session at once.
    pub fn abort(&mut self, sid: Sid, abort: &Abort) {
        let mut body = Vec::new();
        abort.write(&mut body);
        self.say(session_head(kind::S_ABORT, 0, self.on_wire(sid)), body);
        self.forget(sid);
    }

    /// The same behind everything that waits in `out`, where the connection ends too.
    pub fn abort_last(&self, sid: Sid, abort: &Abort, out: &mut Outbox) {
        let mut body = Vec::new();
        abort.write(&mut body);
        out.last(session_head(kind::S_ABORT, 0, self.on_wire(sid)), &body);
    }

    /// This side goes away: it takes and opens no further sessions. What there is runs on until its owner closes it.
    /// Without effect where it was said before.
    pub fn go_away(&mut self, goaway: &GoAway) {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving::Said);
            let mut body = Vec::new();
            goaway.write(&mut body);
            self.say(HeadBuf::new(kind::GOAWAY, 0), body);
        }
    }

    /// Whether this side has gone away in good order: no session is left, and none can come any more.
    pub fn is_drained(&self) -> bool {
        self.leaving == Some(Leaving::Acknowledged) && self.aliases.is_empty()
    }

    /// Whether either side goes away, so that no further session can be opened.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some() || self.peer_goes.is_some()
    }

    /// What the peer said when it began to go away.
    pub fn peer_goes(&self) -> Option<&GoAway> {
        self.peer_goes.as_ref()
    }

    /// A session is over: its alias leads nowhere any more.
    pub fn forget(&mut self, sid: Sid) {
        self.last = None;
        if self.aliases.remove(&sid.0).is_none() {
            return;
        }
        if self.handshake.side.owns(sid.0) {
            self.local_sessions -= 1;
        } else {
            self.remote_sessions -= 1;
        }
    }

    /// The alias as frames carry it.
    pub fn on_wire(&self, sid: Sid) -> Option<Sid> {
        match self.negotiated.mode {
            Mode::Single => None,
            Mode::Multi => Some(sid),
        }
    }

    /// What to tell the peer about the end, if it can be told: the body of CONN_CLOSE.
    pub fn close_reason(&self, error: &ConnectionError) -> Option<Reason> {
        match error {
            ConnectionError::Protocol(error) if self.is_open() => Some(error.reason.clone()),
            ConnectionError::Closed if self.is_open() => Some(Reason::new(Code::NO_ERROR, "")),
            _ => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called at the latest.
    pub fn next_timeout(&self) -> Time {
        match (self.state, self.pinged) {
            (State::Greeting { .. }, _) => self.started.after(self.limits.handshake),
            (State::Open, Some(pinged)) => pinged.after(self.negotiated.keepalive_timeout),
            (State::Open, None) => self.last_received.after(self.negotiated.keepalive_interval),
        }
    }

    /// The time has come: sends a PING, or gives up.
    ///
    /// # Errors
    /// The handshake took too long, or the peer went silent.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), ConnectionError> {
        if now < self.next_timeout() {
            return Ok(());
        }
        match (self.state, self.pinged) {
            (State::Greeting { .. }, _) => Err(ConnectionError::Handshake),
            (State::Open, Some(_)) => Err(ConnectionError::Silent),
            (State::Open, None) => {
                self.pinged = Some(now);
                self.probed = Some((now, true));
                self.ping(now);
                Ok(())
            }
        }
    }
}

/// How many sessions a side has opened, by the id of its next one.
fn sessions_before(next: u64) -> u64 {
    next / 2
}

/// The acceptor's choice; where it makes none, this side's own, and never so short that it would be a provocation.
fn keepalive(chosen_ms: u64, own: Duration) -> Duration {
    if chosen_ms == 0 { own } else { Duration::from_millis(chosen_ms).max(SMALLEST_KEEPALIVE) }
}
