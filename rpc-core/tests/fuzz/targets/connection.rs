//! A connection under any bytes, any sound frames, and any order of what its driver does.

use std::time::Duration;

use rpc_core::code::Code;
use rpc_core::id::{Sid, Side};
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{Connection, ConnectionError, ConnectionEvent, Handshake, Input, Limits, Outbox, Time};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{GoAway, Mode, Reason, kind, session_head};
use rpc_core::wire::hello::{Hello, PREFACE, SessionAccept, SessionOpen};

use super::bytes::Bytes;
use super::wire::largest_buffer;

struct End {
    connection: Connection,
    out: Outbox,
    input: Input,
    limits: Limits,
    now: Time,
    /// Of the peer, and not over.
    theirs: Vec<Sid>,
    ours: Vec<Sid>,
    slots: u32,
}

/// A frame as it travels.
pub(crate) fn frame(mut head: HeadBuf, body: &[u8]) -> Vec<u8> {
    [head.finish(body.len()), body].concat()
}

/// What a peer says first.
pub(crate) fn greeting(side: Side, mode: Mode) -> Vec<u8> {
    let hello = Hello {
        versions: (1, 1),
        mode,
        max_frame: 1 << 14,
        codecs: vec![1],
        units: 0,
        required_units: 0,
        connection_window: 5000,
        sessions: 3,
        keepalive_interval_ms: 1000,
        keepalive_timeout_ms: 500,
    };
    let mut body = Vec::new();
    hello.write(&mut body);
    let kind = if side == Side::Initiator { kind::HELLO } else { kind::HELLO_ACK };
    [&PREFACE[..], &frame(HeadBuf::new(kind, 0), &body)].concat()
}

fn session_open(limits: &Limits) -> SessionOpen {
    SessionOpen { service: "Kv".into(), fingerprint: 7, codecs: vec![1], windows: limits.windows(), weight: 16 }
}

impl End {
    /// Takes bytes as a driver reads them.
    fn receive(&mut self, mut bytes: &[u8]) -> Result<(), ConnectionError> {
        while !bytes.is_empty() {
            let n = self.input.space().len().min(bytes.len());
            self.input.space()[..n].copy_from_slice(&bytes[..n]);
            self.input.advance(n);
            bytes = &bytes[n..];
            self.connection.heard(self.now);
            self.events()?;
            let most = largest_buffer(self.limits.max_frame);
            assert!(self.input.capacity() <= most, "the buffer has grown to {}", self.input.capacity());
        }
        Ok(())
    }

    fn events(&mut self) -> Result<(), ConnectionError> {
        loop {
            // As a driver: the peer is not read while it is owed too much (§7.4).
            if self.connection.owed() as u64 > self.limits.owed {
                self.write();
            }
            match self.connection.next_event(self.now, &mut self.input)? {
                None => return Ok(()),
                Some(ConnectionEvent::SessionOpened { sid, open }) => {
                    assert!(!self.theirs.contains(&sid), "{sid} is opened twice");
                    if open.fingerprint.is_multiple_of(3) {
                        self.connection.reject(sid, Reason::new(Code::REFUSED, "not today"));
                        continue;
                    }
                    let accept = SessionAccept { codec: 1, windows: self.limits.windows(), methods: None };
                    self.slots += 1;
                    self.connection.accept(sid, SessionSlot(self.slots), &accept);
                    self.theirs.push(sid);
                    let most = if self.connection.negotiated().mode == Mode::Single { 1 } else { self.limits.sessions };
                    assert!(self.theirs.len() as u64 <= most, "more sessions are open than were allowed");
                }
                Some(ConnectionEvent::Frame { slot, .. }) => assert!(slot.0 <= self.slots, "a frame leads nowhere"),
                Some(ConnectionEvent::SessionRejected { .. } | ConnectionEvent::SessionAccepted { .. }) => {}
                Some(ConnectionEvent::SessionRefused) => {
                    assert!(self.theirs.len() as u64 >= self.limits.sessions, "there was room for a session");
                }
                Some(ConnectionEvent::Connected | ConnectionEvent::GoingAway | ConnectionEvent::Ignored) => {}
            }
            assert!(self.connection.received() <= self.out.grant().max(), "more was taken than had been announced");
        }
    }

    /// What goes out, which must be frames.
    fn write(&mut self) {
        self.connection.flush(&mut self.out);
        assert_eq!(self.connection.owed(), 0);
        let (mut output, mut bytes) = (Output::default(), Vec::new());
        self.connection.take_batch(&mut self.out, &mut output);
        output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        let mut input = Input::new(bytes.len().max(PREFACE.len()));
        input.space()[..bytes.len()].copy_from_slice(&bytes);
        input.advance(bytes.len());
        if bytes.starts_with(&PREFACE) {
            input.take(PREFACE.len());
        }
        while input.next_frame(1 << 14).expect("this side writes frames").is_some() {}
        assert!(input.pending().is_empty(), "this side writes whole frames");
    }

    fn step(&mut self, choices: &mut Bytes<'_>) -> Result<(), ConnectionError> {
        let sid = Sid(choices.one_of(0..=7));
        match choices.byte() % 16 {
            0..=2 => self.receive(choices.some(255))?,
            3..=5 => {
                let (kind, flags, body) = (choices.byte(), choices.byte(), choices.some(64));
                let mut head = HeadBuf::new(kind, flags);
                head.varint(sid.0);
                self.receive(&frame(head, body))?;
            }
            6 => {
                let mut body = Vec::new();
                SessionOpen { fingerprint: choices.byte().into(), ..session_open(&self.limits) }.write(&mut body);
                let next = Sid(if choices.flag() { sid.0 } else { 2 * (choices.0.len() as u64 % 4) });
                self.receive(&frame(session_head(kind::S_OPEN, 0, Some(next)), &body))?;
            }
            7 => {
                let mut body = Vec::new();
                SessionAccept { codec: 1, windows: self.limits.windows(), methods: None }.write(&mut body);
                self.receive(&frame(session_head(kind::S_ACCEPT, 0, Some(sid)), &body))?;
            }
            8 => {
                let kinds = [kind::MAX_CONN_DATA, kind::GOAWAY_ACK, kind::GOAWAY];
                let mut head = HeadBuf::new(kinds[usize::from(choices.byte()) % kinds.len()], 0);
                head.varint(choices.number() >> 2);
                self.receive(&frame(head, choices.some(8)))?;
            }
            9 => self.receive(&frame(HeadBuf::new(kind::PING, 0), &[choices.byte(); 8]))?,
            10 if self.connection.is_open() => {
                let mode = self.connection.negotiated().mode;
                self.slots += 1;
                if mode == Mode::Multi
                    && self.connection.local_sessions() < self.connection.negotiated().sessions
                    && let Ok(sid) = self.connection.open(SessionSlot(self.slots), &session_open(&self.limits))
                {
                    self.ours.push(sid);
                }
            }
            11 => {
                let list = if choices.flag() { &mut self.theirs } else { &mut self.ours };
                if !list.is_empty() {
                    let sid = list.swap_remove(usize::from(choices.byte()) % list.len());
                    self.connection.forget(sid);
                }
            }
            12 if self.connection.is_open() && !self.connection.is_leaving() => {
                self.connection.go_away(&GoAway { deadline_ms: 5, reason: Reason::new(Code::NO_ERROR, "") });
            }
            13 => {
                self.now = self.now.after(Duration::from_millis(choices.number() % 2000));
                self.connection.handle_timeout(self.now)?;
            }
            _ => self.write(),
        }
        Ok(())
    }
}

/// One end before its first byte.
fn end_of(side: Side, mode: Mode) -> End {
    let limits = Limits::default().max_frame(4096).connection_window(2000).sessions(3).owed(512);
    let limits = limits.keepalive_interval(Duration::from_secs(1)).keepalive_timeout(Duration::from_millis(500));
    let now = Time::from_micros(1_000_000);
    let handshake = Handshake { side, mode, modes: vec![Mode::Single, Mode::Multi], codecs: vec![1] };
    End {
        connection: Connection::new(handshake, limits.clone(), now),
        out: Outbox::new(limits.connection_window),
        input: Input::new(64),
        limits,
        now,
        theirs: Vec::new(),
        ours: Vec::new(),
        slots: 0,
    }
}

/// Whether an acceptor has nothing to object to these frames behind a greeting.
pub(crate) fn takes(frames: &[Vec<u8>]) -> bool {
    let mut end = end_of(Side::Acceptor, Mode::Multi);
    end.receive(&greeting(Side::Initiator, Mode::Multi)).and_then(|()| end.receive(&frames.concat())).is_ok()
}

/// A conversation with one end of a connection, to its end.
pub(crate) fn connection(data: &[u8]) {
    let mut choices = Bytes(data);
    let side = if choices.flag() { Side::Initiator } else { Side::Acceptor };
    let mode = if choices.byte().is_multiple_of(4) { Mode::Single } else { Mode::Multi };
    let mut end = end_of(side, mode);
    // Most inputs are not spent on the handshake, which a peer of good will can do.
    let mut result = if choices.byte().is_multiple_of(8) { Ok(()) } else { end.receive(&greeting(side.peer(), mode)) };
    while result.is_ok() && !choices.is_empty() {
        result = end.step(&mut choices);
    }
    // Silence ends it: by the handshake's limit, or by a PING and its timeout.
    for _ in 0..4 {
        if result.is_ok() {
            end.now = end.now.after(end.connection.next_timeout().since(end.now));
            result = end.connection.handle_timeout(end.now);
        }
    }
    let error = result.expect_err("nobody waits for ever");
    if let Some(reason) = end.connection.close_reason(&error) {
        assert!(end.connection.is_open(), "nothing is said before the handshake: {reason}");
    }
    end.write();
}
