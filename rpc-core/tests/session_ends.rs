//! How a session ends: in good order, with the word of both applications; and at once, with every call classified.
//! C1, C3 and C5 of docs/PROTOCOL.md §11, rule by rule; the simulation has them under every schedule.

mod bench;

use std::fmt::Write;

use bench::{Bench, WHOLE, code_of, key_of};
use rpc_core::code::Code;
use rpc_core::id::Side;
use rpc_core::proto::{Answer, AnswerKind, Batch, Closed, Items, Limits, ProtocolError, SessionEvent};
use rpc_core::wire::frame::{Abort, Reason, kind, session_head};

fn close(bench: &mut Bench) -> Result<Option<SessionEvent>, ProtocolError> {
    bench.receive(session_head(kind::S_CLOSE, 0, None), b"")
}

fn done(bench: &mut Bench, untaken: u8) -> Result<Option<SessionEvent>, ProtocolError> {
    bench.receive(session_head(kind::S_CLOSE_DONE, 0, None), &[untaken])
}

fn abort(bench: &mut Bench, rx_next: u64) -> Result<Option<SessionEvent>, ProtocolError> {
    let mut body = Vec::new();
    Abort { rx_next, reason: Reason::new(Code::CLOSED, "enough") }.write(&mut body);
    bench.receive(session_head(kind::S_ABORT, 0, None), &body)
}

fn close_here(bench: &mut Bench) {
    bench.session.close();
    bench.session.flush(&mut bench.out);
}

/// Whether the fault of a call promises that nothing was started.
fn not_started(answer: Answer) -> bool {
    match answer {
        Answer::Fault(fault) => {
            assert_eq!(fault.reason.code, Code::CLOSED);
            !fault.sent
        }
        other => panic!("the call ended with {other:?}"),
    }
}

#[test]
fn a_side_answers_a_close_at_once_and_says_done_when_its_handlers_are() {
    let mut bench = Bench::acceptor();
    let key = key_of(bench.open(0, WHOLE, b""));
    assert_eq!(close(&mut bench), Ok(Some(SessionEvent::PeerClosed)));
    assert_eq!(bench.written(), ["S_CLOSE", "ACK"], "a call is still running");
    bench.session.answer_now(key, vec![1].into(), false, &mut bench.out);
    assert_eq!(bench.written(), ["DATA", "DONE 0"]);
    assert!(!bench.session.is_finished(), "the peer has not said what became of the answer");
    assert_eq!(done(&mut bench, 0), Ok(Some(SessionEvent::PeerDone)));
    assert!(bench.session.is_finished());
    assert_eq!(bench.session.closed(), Some(Closed { untaken: 0 }));
    assert_eq!(code_of(bench.open(2, WHOLE, b"")), Code::PROTOCOL);
}

#[test]
fn a_session_without_calls_closes_in_one_round_trip() {
    let mut bench = Bench::initiator();
    close_here(&mut bench);
    assert_eq!(bench.written(), ["S_CLOSE", "ACK"]);
    close(&mut bench).unwrap();
    assert_eq!(bench.written(), ["ACK", "DONE 0"]);
    done(&mut bench, 0).unwrap();
    assert!(bench.session.is_finished());
}

#[test]
fn calls_that_are_queued_go_out_before_a_close_of_this_side() {
    let mut limits = Limits::default();
    limits.exchanges = 1;
    let mut bench = Bench::new(Side::Initiator, limits);
    let keys = [0, 1].map(|_| bench.call(AnswerKind::One, false));
    close_here(&mut bench);
    assert_eq!(bench.written(), ["OPEN"], "the second call waits for its place, and the close behind it");
    bench.data(0, WHOLE, b"first").unwrap();
    bench.session.take_answer(keys[0]);
    let mut head = session_head(kind::MAX_SESSION, 0, None);
    head.varint(1 << 20);
    head.varint(2);
    bench.receive(head, b"").unwrap();
    assert_eq!(bench.written(), ["OPEN", "S_CLOSE", "ACK"]);
    bench.data(2, WHOLE, b"second").unwrap();
    assert_eq!(bench.session.take_answer(keys[1]), Answer::Message(b"second".to_vec()));
}

#[test]
fn a_close_does_not_wait_for_credit() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window, limits.connection_window) = (512, 512, 512);
    let mut bench = Bench::new(Side::Acceptor, limits);
    let key = key_of(bench.open(0, WHOLE, b""));
    bench.session.answer_now(key, vec![1; 4000].into(), false, &mut bench.out);
    let started = bench.written();
    assert!(!started.is_empty() && started.iter().all(|frame| frame == "DATA"), "{started:?}");
    close_here(&mut bench);
    assert_eq!(bench.written(), ["S_CLOSE", "ACK"], "an answer that waits for credit holds nothing up");
}

#[test]
fn calls_that_were_not_written_fail_as_not_started_when_the_peer_closes() {
    let mut limits = Limits::default();
    limits.exchanges = 1;
    let mut bench = Bench::new(Side::Initiator, limits);
    let [written, waiting] = [0, 1].map(|_| bench.call(AnswerKind::One, false));
    close(&mut bench).unwrap();
    assert!(not_started(bench.session.take_answer(waiting)));
    assert_eq!(bench.session.take_answer(written), Answer::Pending, "the peer serves what it has");
    assert_eq!(bench.written(), ["OPEN", "S_CLOSE", "ACK"]);
    bench.data(0, WHOLE, b"served").unwrap();
    assert_eq!(bench.session.take_answer(written), Answer::Message(b"served".to_vec()));
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), ["DONE 0"]);
}

/// C1: what the application let go of is not taken, whether or not the peer can know.
#[test]
fn what_the_application_lets_go_of_is_counted() {
    let mut bench = Bench::acceptor();
    let taken = key_of(bench.open(0, WHOLE, b"all of it"));
    let items = key_of(bench.open(2, rpc_core::wire::frame::flag::EOM, b"with items"));
    bench.data(2, WHOLE, b"an item, and the end").unwrap();
    close(&mut bench).unwrap();
    for key in [taken, items] {
        bench.session.answer_now(key, vec![].into(), false, &mut bench.out);
    }
    assert_eq!(bench.written().last().map(String::as_str), Some("DONE 1"), "nobody took the item");
}

#[test]
fn a_stream_that_was_read_to_its_end_is_taken() {
    let mut bench = Bench::acceptor();
    let key = key_of(bench.open(0, rpc_core::wire::frame::flag::EOM, b"with items"));
    bench.data(0, WHOLE, b"an item, and the end").unwrap();
    close(&mut bench).unwrap();
    let mut batch = Batch::new();
    assert_eq!(bench.session.take_items(key, &mut batch), Items::Ready);
    assert_eq!(bench.session.take_items(key, &mut batch), Items::Ended);
    bench.session.answer_now(key, vec![].into(), false, &mut bench.out);
    assert_eq!(bench.written().last().map(String::as_str), Some("DONE 0"));
}

#[test]
fn an_answer_that_nobody_takes_is_counted() {
    for (taken, said) in [(true, "DONE 0"), (false, "DONE 1")] {
        let mut bench = Bench::initiator();
        let key = bench.call(AnswerKind::One, false);
        bench.data(0, WHOLE, b"the answer").unwrap();
        close(&mut bench).unwrap();
        if taken {
            bench.session.take_answer(key);
        } else {
            bench.session.release(key);
        }
        bench.session.flush(&mut bench.out);
        assert_eq!(bench.written().last().map(String::as_str), Some(said));
    }
}

/// C3: a call is promised not to have run only if the peer cannot have received its arguments whole.
#[test]
fn an_abort_tells_which_calls_cannot_have_run() {
    let mut bench = Bench::initiator();
    let keys = [0, 1, 2].map(|_| bench.call(AnswerKind::One, false));
    // The peer has received two of the three OPENs.
    assert_eq!(abort(&mut bench, 2), Ok(Some(SessionEvent::Aborted(Reason::new(Code::CLOSED, "enough")))));
    assert_eq!(keys.map(|key| not_started(bench.session.take_answer(key))), [false, false, true]);
    assert_eq!(bench.session.live(), 0);
}

#[test]
fn a_call_whose_arguments_are_half_written_cannot_have_run() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window) = (512, 512);
    let mut bench = Bench::new(Side::Initiator, limits);
    let command = rpc_core::proto::OpenCommand {
        method: 0,
        timeout: None,
        body: vec![1; 4000].into(),
        more: false,
        answer: AnswerKind::One,
    };
    let key = bench.session.open_now(command, (), &mut bench.out).unwrap();
    assert_eq!(bench.written(), ["OPEN"]);
    bench.session.fail(Reason::new(Code::CLOSED, "the connection is lost"));
    assert!(not_started(bench.session.take_answer(key)));
}

#[test]
fn an_abort_of_this_side_tells_what_was_received() {
    let mut bench = Bench::acceptor();
    bench.open(0, WHOLE, b"").unwrap();
    bench.open(2, WHOLE, b"").unwrap();
    assert_eq!(bench.session.abort(Reason::new(Code::CLOSED, "")).rx_next, 2);
}

/// The states of a session's end with everything that a peer can send about it: an entry that changes is a change of the
/// protocol, and has to change docs/PROTOCOL.md too.
#[test]
fn every_state_of_the_end_answers_every_frame_as_documented() {
    let mut table = String::new();
    for (state, prepare) in STATES {
        for (name, send) in FRAMES {
            let mut bench = Bench::acceptor();
            prepare(&mut bench);
            bench.written();
            let event = send(&mut bench);
            let answer = match event {
                Err(error) => format!("S_ABORT {:?}", error.reason.code),
                Ok(None) => "-".to_owned(),
                Ok(Some(SessionEvent::Opened { .. })) => "a handler starts".to_owned(),
                Ok(Some(event)) => format!("{event:?}").split('(').next().unwrap_or_default().to_owned(),
            };
            let written = bench.written().join(" ");
            let finished = if bench.session.is_finished() { ", over" } else { "" };
            writeln!(
                table,
                "{state:<24} {name:<13} {answer}{finished}{}{written}",
                if written.is_empty() { "" } else { ", writes " }
            )
            .unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ends.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(path).unwrap_or_default(), "BLESS=1 rewrites the table");
}

type Prepare = fn(&mut Bench);
type Send = fn(&mut Bench) -> Result<Option<SessionEvent>, ProtocolError>;

const STATES: &[(&str, Prepare)] = &[
    ("open", |_| {}),
    ("closing, a call runs", |bench| {
        bench.open(0, WHOLE, b"").unwrap();
        close_here(bench);
    }),
    ("closing, nothing live", close_here),
    ("peer closed, a call runs", |bench| {
        bench.open(0, WHOLE, b"").unwrap();
        close(bench).unwrap();
    }),
    ("done, peer not", |bench| {
        close(bench).unwrap();
    }),
    ("peer done, a call runs", |bench| {
        bench.open(0, WHOLE, b"").unwrap();
        close(bench).unwrap();
        bench.written();
        done(bench, 0).unwrap();
    }),
];

const FRAMES: &[(&str, Send)] = &[
    ("S_CLOSE", close),
    ("S_CLOSE_DONE", |bench| done(bench, 0)),
    ("S_ABORT", |bench| abort(bench, 0)),
    ("OPEN", |bench| {
        let next = if bench.session.counts().1 > 0 && bench.session.live() > 0 { 2 } else { 0 };
        bench.open(next, WHOLE, b"")
    }),
    ("ACK", |bench| {
        let (sent, received) = bench.session.counts();
        let mut head = session_head(kind::ACK, 0, None);
        head.varint(sent);
        head.varint(received);
        bench.receive(head, b"")
    }),
];
