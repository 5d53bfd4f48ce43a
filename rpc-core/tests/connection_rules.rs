//! What a connection makes of a peer's bytes: handshake, garbage, limits; and that no bytes at all make the pure half
//! panic or keep more than it announced.

mod greeting;

use std::time::Duration;

use greeting::{frame, greeting, hello};
use proptest::prelude::*;
use rpc_core::code::Code;
use rpc_core::id::{Sid, Side, Xid};
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{
    AnswerKind, Batch, Connection, ConnectionError, ConnectionEvent, Handshake, Input, Limits, Link, OpenCommand, Outbox,
    Session, SessionEvent, Time,
};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Frame, GoAway, Mode, Reason, Run, exchange_head, kind, session_head};
use rpc_core::wire::hello::{Hello, MAX_HELLO, PREFACE, Reject, SessionAccept, SessionOpen};

fn handshake(side: Side, mode: Mode, modes: &[Mode], codecs: &[u8]) -> Handshake {
    Handshake { side, mode, modes: modes.to_vec(), codecs: codecs.to_vec() }
}

struct Acceptor {
    connection: Connection,
    out: Outbox,
    input: Input,
    now: Time,
}

impl Acceptor {
    fn new(limits: Limits) -> Self {
        Self::with(handshake(Side::Acceptor, Mode::Multi, &[Mode::Multi], &[1]), limits)
    }

    fn with(handshake: Handshake, limits: Limits) -> Self {
        let now = Time::from_micros(1_000_000);
        let out = Outbox::new(limits.connection_window);
        Self { connection: Connection::new(handshake, limits, now), out, input: Input::new(64), now }
    }

    /// An acceptor behind its handshake.
    fn open(limits: Limits) -> Self {
        let mut acceptor = Self::new(limits);
        acceptor.feed(&greeting(&hello(Mode::Multi))).unwrap();
        acceptor.written();
        acceptor
    }

    /// Takes bytes, and yields what happened in words, up to the first error.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<String>, ConnectionError> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let n = self.input.space().len().min(bytes.len());
            self.input.space()[..n].copy_from_slice(&bytes[..n]);
            self.input.advance(n);
            bytes = &bytes[n..];
            self.connection.heard(self.now);
            loop {
                match self.connection.next_event(self.now, &mut self.input)? {
                    None => break,
                    Some(ConnectionEvent::Ignored | ConnectionEvent::SessionRefused) => {}
                    Some(ConnectionEvent::SessionOpened { sid, open }) => {
                        let accept = SessionAccept { codec: 1, windows: open.windows, methods: None };
                        self.connection.accept(sid, SessionSlot(sid.0 as u32), &accept);
                        events.push(format!("opened {}", sid.0));
                    }
                    Some(ConnectionEvent::Frame { slot, frame }) => events.push(format!("{:#04x} for {}", frame.kind, slot.0)),
                    Some(other) => events.push(format!("{other:?}")),
                }
            }
        }
        self.connection.flush(&mut self.out);
        Ok(events)
    }

    fn written(&mut self) -> Vec<u8> {
        self.connection.flush(&mut self.out);
        let mut output = Output::default();
        self.connection.take_batch(&mut self.out, &mut output);
        let mut bytes = Vec::new();
        output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        bytes
    }
}

fn open_session(sid: u64) -> Vec<u8> {
    let open =
        SessionOpen { service: "Kv".into(), fingerprint: 0, codecs: vec![1], windows: Limits::default().windows(), weight: 16 };
    let mut body = Vec::new();
    open.write(&mut body);
    frame(session_head(kind::S_OPEN, 0, Some(Sid(sid))), &body)
}

fn code_of<T: std::fmt::Debug>(result: Result<T, ConnectionError>) -> Code {
    result.expect_err("the connection ends").code()
}

#[test]
fn strangers_are_told_apart_by_their_first_bytes() {
    for (bytes, seen) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "an HTTP request or answer"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00][..], "a TLS hello"),
        (&b"\x00\x01\x02\x03"[..], "an unknown protocol"),
        (&[0xF5, b'R', b'P', b'C', 0x0D, 0x0A, 0x1A, 9][..], "another major version of this protocol"),
    ] {
        let mut acceptor = Acceptor::new(Limits::default());
        assert_eq!(acceptor.feed(bytes), Err(ConnectionError::NotRpc { seen }));
        assert!(acceptor.written().is_empty(), "a stranger is told nothing");
    }
}

#[test]
fn a_handshake_that_does_not_fit_is_refused_with_its_reason() {
    let cases = [
        (Hello { versions: (2, 9), ..hello(Mode::Multi) }, Code::VERSION),
        (Hello { mode: Mode::Single, ..hello(Mode::Multi) }, Code::MODE),
        (Hello { codecs: vec![7, 8], ..hello(Mode::Multi) }, Code::NO_CODEC),
        (Hello { required_units: 4, ..hello(Mode::Multi) }, Code::UNIT),
    ];
    for (hello, code) in cases {
        let mut acceptor = Acceptor::new(Limits::default());
        assert_eq!(code_of(acceptor.feed(&greeting(&hello))), code);
        // The initiator reads the same reason, and the codecs that would have been accepted.
        let bytes = acceptor.written();
        let mut initiator = Acceptor::with(handshake(Side::Initiator, hello.mode, &[], &[7]), Limits::default());
        match initiator.feed(&bytes) {
            Err(ConnectionError::Rejected { reason, ours, theirs }) => {
                assert_eq!((reason.code, ours, theirs), (code, vec![7], vec![1]));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn common_codecs_keep_the_initiators_order_and_stand_there_once() {
    let codecs = [9, 2].into_iter().chain(std::iter::repeat_n(1, 2000)).chain([2]).collect();
    let mut acceptor = Acceptor::with(handshake(Side::Acceptor, Mode::Multi, &[Mode::Multi], &[1, 2]), Limits::default());
    acceptor.feed(&greeting(&Hello { codecs, ..hello(Mode::Multi) })).unwrap();
    assert_eq!(acceptor.connection.negotiated().codecs, [2, 1]);
}

#[test]
fn the_acceptor_chooses_the_keepalive_for_both() {
    let mut limits = Limits::default();
    (limits.keepalive_interval, limits.keepalive_timeout) = (Duration::from_secs(3), Duration::from_secs(2));
    let mut acceptor = Acceptor::new(limits);
    assert_eq!(acceptor.feed(&greeting(&hello(Mode::Multi))).unwrap(), ["Connected"]);
    let mut initiator = Acceptor::with(handshake(Side::Initiator, Mode::Multi, &[], &[1]), Limits::default());
    assert_eq!(initiator.feed(&acceptor.written()).unwrap(), ["Connected"]);
    let negotiated = initiator.connection.negotiated();
    assert_eq!((negotiated.keepalive_interval, negotiated.keepalive_timeout), (Duration::from_secs(3), Duration::from_secs(2)));
}

/// L5: a PING after the interval, the end after the timeout behind it, and any byte counts as life.
#[test]
fn a_silent_peer_is_found_within_interval_and_timeout() {
    let limits = Limits::default();
    let mut acceptor = Acceptor::open(limits.clone());
    let ping = acceptor.now.after(limits.keepalive_interval);
    assert_eq!(acceptor.connection.next_timeout(), ping);
    acceptor.connection.handle_timeout(ping).unwrap();
    assert_eq!(acceptor.written()[0], kind::PING);
    let dead = ping.after(limits.keepalive_timeout);
    assert_eq!(acceptor.connection.next_timeout(), dead);
    assert_eq!(acceptor.connection.handle_timeout(dead), Err(ConnectionError::Silent));
    acceptor.connection.heard(dead);
    assert_eq!(acceptor.connection.handle_timeout(dead), Ok(()));
    assert_eq!(acceptor.connection.next_timeout(), dead.after(limits.keepalive_interval));
}

#[test]
fn a_handshake_has_a_deadline() {
    let mut acceptor = Acceptor::new(Limits::default());
    let late = acceptor.now.after(Limits::default().handshake);
    acceptor.feed(&PREFACE).unwrap();
    assert_eq!(acceptor.connection.handle_timeout(Time::from_micros(late.as_micros() - 1)), Ok(()));
    assert_eq!(acceptor.connection.handle_timeout(late), Err(ConnectionError::Handshake));
}

#[test]
fn a_hello_at_the_limit_is_read_and_a_longer_one_refused_by_its_head_alone() {
    for (len, code) in [(MAX_HELLO - 1, None), (MAX_HELLO, None), (MAX_HELLO + 1, Some(Code::TOO_LARGE))] {
        let mut acceptor = Acceptor::new(Limits::default());
        let head = [&[kind::HELLO][..], &len.to_le_bytes()[..3]].concat();
        let result = acceptor.feed(&[&PREFACE[..], &head].concat());
        assert_eq!(result.err().map(|error| error.code()), code, "{len}");
    }
}

/// X2: whatever a stranger sends, it takes no more memory than one HELLO of any length.
#[test]
fn a_peer_that_has_not_shaken_hands_grows_no_buffer() {
    let unknown = [&[0x03, 0x44, 0x00][..], &[0; 1024]].concat();
    for len in [MAX_HELLO - 1, MAX_HELLO] {
        let mut acceptor = Acceptor::new(Limits::default());
        let head = [&[kind::HELLO][..], &len.to_le_bytes()[..3], &[0]].concat();
        let body: Vec<u8> = unknown.iter().copied().cycle().take(len as usize - 2).collect();
        acceptor.feed(&[&PREFACE[..], &head, &body].concat()).unwrap();
        assert!(acceptor.input.capacity() <= 4 + MAX_HELLO as usize, "{} bytes", acceptor.input.capacity());
        assert!(acceptor.written().is_empty() && acceptor.connection.owed() == 0);
    }
    let mut acceptor = Acceptor::new(Limits::default());
    assert_eq!(code_of(acceptor.feed(&[&PREFACE[..], &[kind::S_OPEN, 20, 0, 0], &[0; 20]].concat())), Code::PROTOCOL);
    assert!(acceptor.input.capacity() <= 64, "{} bytes", acceptor.input.capacity());
}

#[test]
fn replies_are_counted_until_they_are_passed_on() {
    let mut acceptor = Acceptor::open(Limits::default());
    acceptor.connection.reject(Sid(0), Reason::new(Code::REFUSED, "no"));
    let owed = acceptor.connection.owed();
    let written = acceptor.written();
    assert_eq!((written[0], owed, acceptor.connection.owed()), (kind::S_REJECT, written.len(), 0));
}

#[test]
fn a_second_hello_is_a_breach() {
    let mut acceptor = Acceptor::open(Limits::default());
    let greeting = greeting(&hello(Mode::Multi));
    assert_eq!(code_of(acceptor.feed(&greeting[PREFACE.len()..])), Code::UNKNOWN_FRAME);
}

#[test]
fn ten_pings_a_second_are_answered_and_one_more_is_too_many() {
    let mut acceptor = Acceptor::open(Limits::default());
    for n in 0..10u8 {
        acceptor.feed(&frame(HeadBuf::new(kind::PING, 0), &[n; 8])).unwrap();
        assert_eq!(acceptor.written(), frame(HeadBuf::new(kind::PONG, 0), &[n; 8]));
    }
    acceptor.now = acceptor.now.after(Duration::from_secs(1));
    for _ in 0..10 {
        acceptor.feed(&frame(HeadBuf::new(kind::PING, 0), &[0; 8])).unwrap();
    }
    assert_eq!(code_of(acceptor.feed(&frame(HeadBuf::new(kind::PING, 0), &[0; 8]))), Code::CALM);
}

#[test]
fn sessions_at_the_limit_pass_and_one_more_is_rejected_without_harm() {
    let mut limits = Limits::default();
    limits.sessions = 3;
    let mut acceptor = Acceptor::open(limits);
    for sid in [0, 2, 4] {
        assert_eq!(acceptor.feed(&open_session(sid)).unwrap(), [format!("opened {sid}")]);
    }
    acceptor.written();
    assert_eq!(acceptor.feed(&open_session(6)).unwrap(), Vec::<String>::new());
    let answer = acceptor.written();
    assert_eq!(answer[0], kind::S_REJECT);
    assert_eq!(Reject::read(&answer[6..]).unwrap().reason.code, Code::REFUSED);
    acceptor.connection.forget(Sid(2));
    assert_eq!(acceptor.feed(&open_session(8)).unwrap(), ["opened 8"]);
}

#[test]
fn frames_for_a_session_that_is_gone_are_passed_over_and_credited() {
    let mut acceptor = Acceptor::open(Limits::default());
    acceptor.feed(&open_session(0)).unwrap();
    acceptor.connection.forget(Sid(0));
    let late = frame(exchange_head(kind::DATA, 0, Some(Sid(0)), Xid(0)), &[0; 100]);
    assert_eq!(acceptor.feed(&late).unwrap(), Vec::<String>::new());
    assert_eq!((acceptor.connection.received(), acceptor.out.grant().released()), (100, 100));
    let never = frame(exchange_head(kind::DATA, 0, Some(Sid(2)), Xid(0)), &[0; 100]);
    assert_eq!(code_of(acceptor.feed(&never)), Code::PROTOCOL);
}

#[test]
fn bytes_at_the_connections_credit_pass_and_one_more_ends_it() {
    let mut limits = Limits::default();
    limits.connection_window = 1000;
    let mut acceptor = Acceptor::open(limits);
    acceptor.feed(&open_session(0)).unwrap();
    let data = |len| frame(exchange_head(kind::DATA, 0, Some(Sid(0)), Xid(0)), &vec![0; len]);
    assert_eq!(acceptor.feed(&data(984)).unwrap(), ["0xa1 for 0"]);
    assert_eq!(acceptor.feed(&data(16)).unwrap(), ["0xa1 for 0"]);
    assert_eq!(code_of(acceptor.feed(&data(1))), Code::FLOW);
}

/// What a batch announces holds from then on, whether or not anything was written since.
#[test]
fn bytes_within_what_was_announced_pass_at_once() {
    let mut limits = Limits::default();
    limits.connection_window = 1000;
    let mut acceptor = Acceptor::open(limits);
    acceptor.feed(&open_session(0)).unwrap();
    acceptor.written();
    let data = |len| frame(exchange_head(kind::DATA, 0, Some(Sid(0)), Xid(0)), &vec![0; len]);
    acceptor.feed(&data(600)).unwrap();
    assert_eq!(acceptor.written()[0], kind::MAX_CONN_DATA);
    assert_eq!(acceptor.feed(&data(1000)).unwrap(), ["0xa1 for 0"]);
    assert_eq!(code_of(acceptor.feed(&data(1))), Code::FLOW);
}

#[test]
fn unknown_frames_of_the_connection_are_passed_over_only_where_they_say_so() {
    let mut acceptor = Acceptor::open(Limits::default());
    assert_eq!(acceptor.feed(&frame(HeadBuf::new(0x4F, 0), b"whatever")).unwrap(), Vec::<String>::new());
    assert_eq!(code_of(acceptor.feed(&frame(HeadBuf::new(0x0F, 0), b"whatever"))), Code::UNKNOWN_FRAME);
}

fn go_away(acceptor: &mut Acceptor) {
    acceptor.written();
    acceptor.connection.go_away(&GoAway { deadline_ms: 5, reason: Reason::new(Code::NO_ERROR, "") });
    assert_eq!(acceptor.written()[0], kind::GOAWAY);
}

fn acknowledge(sessions: u64) -> Vec<u8> {
    let mut head = HeadBuf::new(kind::GOAWAY_ACK, 0);
    head.varint(sessions);
    frame(head, b"")
}

#[test]
fn a_session_that_crosses_the_departure_is_refused_and_one_behind_its_acknowledgement_is_a_breach() {
    let mut acceptor = Acceptor::open(Limits::default());
    acceptor.feed(&open_session(0)).unwrap();
    go_away(&mut acceptor);
    assert_eq!(acceptor.feed(&open_session(2)).unwrap(), Vec::<String>::new());
    let answer = acceptor.written();
    assert_eq!((answer[0], Reject::read(&answer[6..]).unwrap().reason.code), (kind::S_REJECT, Code::REFUSED));
    assert!(!acceptor.connection.is_drained());
    assert_eq!(acceptor.feed(&acknowledge(2)).unwrap(), Vec::<String>::new());
    assert!(!acceptor.connection.is_drained(), "a session is left");
    acceptor.connection.forget(Sid(0));
    assert!(acceptor.connection.is_drained());
    assert_eq!(code_of(acceptor.feed(&open_session(4))), Code::PROTOCOL);
}

#[test]
fn an_acknowledgement_that_counts_otherwise_or_comes_unasked_is_a_breach() {
    for (asked, sessions) in [(false, 1), (true, 0), (true, 2)] {
        let mut acceptor = Acceptor::open(Limits::default());
        acceptor.feed(&open_session(0)).unwrap();
        if asked {
            go_away(&mut acceptor);
        }
        assert_eq!(code_of(acceptor.feed(&acknowledge(sessions))), Code::PROTOCOL, "{asked} {sessions}");
    }
}

#[test]
fn a_departure_is_acknowledged_once_and_no_session_is_opened_behind_it() {
    let mut acceptor = Acceptor::open(Limits::default());
    let open =
        SessionOpen { service: "Kv".into(), fingerprint: 0, codecs: vec![1], windows: Limits::default().windows(), weight: 16 };
    acceptor.connection.open(SessionSlot(0), &open).unwrap();
    acceptor.written();
    let mut body = Vec::new();
    GoAway { deadline_ms: 1000, reason: Reason::new(Code::NO_ERROR, "deploy") }.write(&mut body);
    let goaway = frame(HeadBuf::new(kind::GOAWAY, 0), &body);
    assert_eq!(acceptor.feed(&goaway).unwrap(), ["GoingAway"]);
    assert_eq!(acceptor.written(), acknowledge(1));
    let refused = acceptor.connection.open(SessionSlot(1), &open).unwrap_err();
    assert_eq!((refused.code, refused.text.contains("deploy")), (Code::REFUSED, true));
    assert_eq!(code_of(acceptor.feed(&goaway)), Code::PROTOCOL);
}

#[test]
fn the_peers_last_word_is_passed_on() {
    let mut acceptor = Acceptor::open(Limits::default());
    let mut body = Vec::new();
    Reason::new(Code::CALM, "enough").write(&mut body);
    let closed = acceptor.feed(&frame(HeadBuf::new(kind::CONN_CLOSE, 0), &body));
    assert_eq!(closed, Err(ConnectionError::ClosedByPeer(Reason::new(Code::CALM, "enough"))));
}

proptest! {
    /// Whatever comes behind a handshake, the connection yields events or ends; it never panics.
    #[test]
    fn no_bytes_make_a_connection_panic(bytes: Vec<u8>, behind_handshake: bool) {
        let mut acceptor = if behind_handshake { Acceptor::open(Limits::default()) } else { Acceptor::new(Limits::default()) };
        let _ = acceptor.feed(&bytes);
        let _ = acceptor.written();
    }

    /// Whatever frames come for a session, in whatever state its exchanges are: events, or the session's end; and in the
    /// end nothing is held that was not announced.
    #[test]
    fn no_frames_make_a_session_panic(
        side: bool,
        steps in proptest::collection::vec((any::<u8>(), 0u8..32, 0u64..8, proptest::collection::vec(any::<u8>(), 0..40), any::<u8>()), 1..60),
    ) {
        let mut limits = Limits::default();
        (limits.stream_window, limits.session_window, limits.max_message, limits.exchanges) = (600, 1200, 2000, 4);
        let mut out = Outbox::new(limits.connection_window);
        out.open(limits.max_frame, limits.connection_window);
        let mut session: Session<()> = Session::new(if side { Side::Initiator } else { Side::Acceptor }, limits.session());
        session.granted(limits.windows());
        session.attach(Link { slot: SessionSlot(0), sid: None });
        let (mut keys, mut batch) = (Vec::new(), Batch::new());
        for (kind, flags, xid, body, act) in steps {
            // Most frames are of the known kinds; the rest is anything.
            let kinds = [kind::OPEN, kind::DATA, kind::DATA, kind::RESET, kind::CANCEL, kind::ACCEPT, kind::MAX_STREAM, kind::MAX_SESSION];
            let kind = if kind < 200 { kinds[kind as usize % kinds.len()] } else { kind };
            let frame = Frame { kind, flags, sid: Sid(0), xid: Xid(xid), body: &body, behind: Run::default() };
            match session.handle_frame(&frame, Time::default(), || ()) {
                Ok(Some(SessionEvent::Opened { key, .. } | SessionEvent::Readable(key) | SessionEvent::Cancelled(key))) => keys.push(key),
                Ok(_) => {}
                Err(error) => {
                    session.abort(error.reason);
                    break;
                }
            }
            // The application does something meanwhile.
            if act % 4 == 0 && side {
                let answer = [AnswerKind::One, AnswerKind::Many, AnswerKind::None][act as usize / 4 % 3];
                let command = OpenCommand { method: 0, timeout: None, body: body.clone().into(), more: act % 8 == 0 && answer != AnswerKind::None, answer };
                keys.extend(session.open_now(command, (), &mut out));
            }
            if let Some(key) = keys.get(act as usize % keys.len().max(1)).copied() {
                match act % 7 {
                    0 => session.release(key),
                    1 => drop(session.take_answer(key)),
                    2 => drop(session.take_items(key, &mut batch)),
                    3 => session.answer_now(key, body.clone().into(), act % 2 == 0, &mut out),
                    4 => session.handler_done(key),
                    5 => session.reset(key, Reason::new(Code::INTERNAL, "")),
                    _ => session.stop(key),
                }
            }
            session.flush(&mut out);
        }
        prop_assert!(session.held() <= limits.session_window);
    }
}
