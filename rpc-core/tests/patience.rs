//! What a peer may provoke (docs/PROTOCOL.md §8.5): at each limit, and one beyond.

#[expect(dead_code, reason = "other tests use more of it")]
mod bench;
mod greeting;

use std::time::Duration;

use bench::{Bench, WHOLE, key_of};
use greeting::{frame, greeting, hello};
use rpc_core::code::Code;
use rpc_core::id::{Sid, Side, Xid};
use rpc_core::proto::outbox::Output;
use rpc_core::proto::{
    Allowance, Connection, ConnectionError, ConnectionEvent, Handshake, Input, Limits, Outbox, ProtocolError, Time, Toll,
};
use rpc_core::wire::frame::{Mode, Open, Reason, Reset, exchange_head, flag, kind, session_head};
use rpc_core::wire::hello::SessionOpen;

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

/// A call that its opener cancels, from its arrival to the end of its handler. Tells what the account makes of it.
fn cancelled(bench: &mut Bench, xid: u64, flags: u8) -> Result<Option<Toll>, ProtocolError> {
    let key = key_of(bench.open(xid, flags, b""));
    cancel(bench, xid);
    bench.session.handler_done(key);
    charged(bench)
}

fn cancel(bench: &mut Bench, xid: u64) {
    let mut cancel = exchange_head(kind::CANCEL, 0, None, Xid(xid));
    cancel.varint(Code::CANCELLED.0.into());
    bench.receive(cancel, b"").unwrap();
}

/// As the driver does behind each frame.
fn charged(bench: &mut Bench) -> Result<Option<Toll>, ProtocolError> {
    bench.written();
    bench.session.is_provoked().then(|| bench.session.charge_toll(at(0))).transpose()
}

fn patient(cancels: u32, resets: u32) -> Bench {
    let limits = Limits::default().cancels(Allowance::new(cancels, 0)).resets(Allowance::new(resets, 0));
    Bench::new(Side::Acceptor, limits)
}

fn is_calm<T: std::fmt::Debug>(result: Result<T, ProtocolError>) -> bool {
    result.is_err_and(|error| error.reason.code == Code::CALM)
}

#[test]
fn cancels_at_the_limit_pass_and_one_more_ends_the_session() {
    for flags in [WHOLE, WHOLE | flag::ONEWAY, flag::EOM] {
        let mut bench = patient(3, 1);
        for n in 0..3 {
            let toll = cancelled(&mut bench, 2 * n, flags).unwrap().expect("it is charged");
            assert_eq!((toll.cancels, toll.resets), (1, 0), "{flags}");
        }
        assert!(is_calm(cancelled(&mut bench, 6, flags)), "{flags}");
    }
}

#[test]
fn each_call_that_completes_makes_up_for_one() {
    let mut bench = patient(1, 1);
    for n in 0..20 {
        let key = key_of(bench.open(4 * n, WHOLE, b""));
        bench.session.answer_now(key, b"yes".to_vec().into(), false, &mut bench.out);
        assert_eq!(charged(&mut bench), Ok(None), "a call that completes charges nothing");
        assert!(cancelled(&mut bench, 4 * n + 2, WHOLE).is_ok(), "{n}");
    }
    assert!(is_calm(cancelled(&mut bench, 80, WHOLE)), "and no more than there is room for");
}

#[test]
fn what_was_answered_in_part_or_is_over_is_no_cancel_and_a_second_word_none_either() {
    let mut bench = patient(1, 1);
    let key = key_of(bench.open(0, WHOLE, b""));
    cancel(&mut bench, 0);
    cancel(&mut bench, 0);
    assert_eq!(charged(&mut bench).unwrap().unwrap().cancels, 1, "however often it is asked for");
    bench.session.handler_done(key);
    bench.written();
    cancel(&mut bench, 0);
    assert_eq!(charged(&mut bench), Ok(None), "it was on its way");
    // A stream of which items were written.
    let key = key_of(bench.open(2, WHOLE, b""));
    bench.session.accept(key);
    let mut items = rpc_core::proto::Batch::new();
    items.push(b"an item");
    bench.session.send(key, &mut items, false);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), ["ACCEPT", "DATA"]);
    cancel(&mut bench, 2);
    assert_eq!(charged(&mut bench), Ok(None), "it was served");
}

#[test]
fn arguments_that_are_withdrawn_count_as_a_cancel() {
    let mut bench = patient(1, 1);
    for xid in [0, 2] {
        let mut head = exchange_head(kind::OPEN, 0, None, Xid(xid));
        Open { method: 0, timeout_ms: None, total: Some(100) }.write(&mut head);
        bench.receive(head, &[0; 50]).unwrap();
        let mut body = Vec::new();
        // The OPEN's 50 bytes, the method, and the length in two.
        Reset { final_offset: 53, reason: Reason::new(Code::CANCELLED, "") }.write(&mut body);
        assert_eq!(bench.receive(exchange_head(kind::RESET, 0, None, Xid(xid)), &body), Ok(None));
        assert_eq!(is_calm(charged(&mut bench)), xid == 2);
    }
}

#[test]
fn refusals_at_the_limit_pass_and_one_more_ends_the_session() {
    // By the session, and by the dispatcher.
    for by_session in [true, false] {
        let mut bench = patient(1, 3);
        for n in 0..4 {
            if by_session {
                bench.open(2 * n, flag::END, b"").unwrap();
            } else {
                let key = key_of(bench.open(2 * n, WHOLE, b""));
                bench.session.reset(key, Reason::new(Code::UNKNOWN_METHOD, ""));
                bench.session.handler_done(key);
            }
            assert_eq!(is_calm(charged(&mut bench)), n == 3, "{n}, {by_session}");
        }
    }
}

#[test]
fn a_server_that_is_busy_or_late_charges_nobody() {
    let mut bench = patient(1, 1);
    for (n, code) in [Code::REFUSED, Code::DEADLINE, Code::INTERNAL, Code::AUTH].into_iter().enumerate() {
        let key = key_of(bench.open(2 * n as u64, WHOLE, b""));
        bench.session.reset(key, Reason::new(code, ""));
        bench.session.handler_done(key);
        assert_eq!(charged(&mut bench), Ok(None), "{code:?}");
    }
}

#[test]
fn what_comes_behind_a_refusal_is_free_within_the_streams_credit_and_not_beyond() {
    let mut limits = Limits::default().resets(Allowance::new(2, 0));
    limits.stream_window = 1000;
    let mut bench = Bench::new(Side::Acceptor, limits);
    key_of(bench.open(0, flag::EOM, b""));
    bench.data(0, 0, b"").unwrap();
    assert_eq!(charged(&mut bench).unwrap().unwrap().resets, 1, "an empty piece is refused");
    for n in 0..62 {
        // With the OPEN's and the first one's 16 bytes, 61 more frames are within 1000.
        bench.data(0, 0, b"").unwrap();
        assert_eq!(charged(&mut bench).unwrap().is_some(), n >= 60, "{n}");
        if n >= 60 {
            break;
        }
    }
    bench.data(0, 0, b"").unwrap();
    assert!(is_calm(charged(&mut bench)));
}

/// A connection's acceptor behind its handshake.
struct Acceptor {
    connection: Connection,
    out: Outbox,
    input: Input,
    next: u64,
}

impl Acceptor {
    fn new(errors: Allowance) -> Self {
        let limits = Limits::default().errors(errors).sessions(1);
        let handshake = Handshake { side: Side::Acceptor, mode: Mode::Multi, modes: vec![Mode::Multi], codecs: vec![1] };
        let out = Outbox::new(limits.connection_window);
        let mut acceptor = Self { connection: Connection::new(handshake, limits, at(0)), out, input: Input::new(4096), next: 0 };
        acceptor.feed(&greeting(&hello(Mode::Multi)), at(0)).unwrap();
        acceptor
    }

    fn feed(&mut self, bytes: &[u8], now: Time) -> Result<Vec<Sid>, ConnectionError> {
        self.input.space()[..bytes.len()].copy_from_slice(bytes);
        self.input.advance(bytes.len());
        let mut opened = Vec::new();
        while let Some(event) = self.connection.next_event(now, &mut self.input)? {
            if let ConnectionEvent::SessionOpened { sid, .. } = event {
                opened.push(sid);
            }
        }
        self.connection.flush(&mut self.out);
        self.out.swap(&mut Output::default());
        Ok(opened)
    }

    /// The peer opens its next session.
    fn open(&mut self, now: Time) -> Result<Vec<Sid>, ConnectionError> {
        let open = SessionOpen {
            service: "Kv".into(),
            fingerprint: 0,
            codecs: vec![1],
            windows: Limits::default().windows(),
            weight: 16,
        };
        let mut body = Vec::new();
        open.write(&mut body);
        self.next += 2;
        self.feed(&frame(session_head(kind::S_OPEN, 0, Some(Sid(self.next - 2))), &body), now)
    }
}

#[test]
fn errors_at_the_limit_pass_and_one_more_ends_the_connection() {
    let calm = |result: Result<(), ConnectionError>| result.is_err_and(|error| error.code() == Code::CALM);
    // Rejected sessions: each is charged when the next is opened.
    let mut acceptor = Acceptor::new(Allowance::new(3, 1));
    for _ in 0..4 {
        let opened = acceptor.open(at(0)).unwrap();
        opened.into_iter().for_each(|sid| acceptor.connection.reject(sid, Reason::new(Code::UNKNOWN_SERVICE, "")));
    }
    assert!(calm(acceptor.open(at(0)).map(drop)));
    // Sessions that fail, and what was provoked in them.
    let mut acceptor = Acceptor::new(Allowance::new(3, 1));
    acceptor.connection.failed();
    assert_eq!(acceptor.connection.charge(Toll { cancels: 1, resets: 1, completed: 0 }, at(0)), Ok(()));
    assert!(calm(acceptor.connection.charge(Toll { cancels: 1, ..Toll::default() }, at(0))));
    // A second gives one back, and so does a call that completes.
    assert_eq!(acceptor.connection.charge(Toll { cancels: 1, resets: 1, completed: 1 }, at(1000)), Ok(()));
}

#[test]
fn a_call_that_has_run_for_a_while_may_be_cancelled_for_nothing() {
    let mut bench = patient(1, 1);
    for n in 0..10 {
        let key = key_of(bench.open(2 * n, WHOLE, b""));
        bench.now = bench.now.after(Duration::from_millis(100));
        cancel(&mut bench, 2 * n);
        bench.session.handler_done(key);
        assert_eq!(charged(&mut bench), Ok(None));
    }
    let key = key_of(bench.open(20, WHOLE, b""));
    bench.now = bench.now.after(Duration::from_micros(99_999));
    cancel(&mut bench, 20);
    bench.session.handler_done(key);
    assert!(charged(&mut bench).unwrap().is_some());
}
