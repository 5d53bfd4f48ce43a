//! What a session makes of every frame, rule by rule: a hand-made peer against the pure value.

mod bench;

use std::sync::Arc;
use std::time::Duration;

use bench::{Bench, WHOLE, code_of, key_of};
use rpc_core::code::Code;
use rpc_core::id::{Side, Xid};
use rpc_core::metadata::Metadata;
use rpc_core::proto::{Answer, AnswerKind, Batch, Items, Limits, OpenCommand, SessionEvent, Time};
use rpc_core::wire::frame::{Open, Reason, Reset, exchange_head, flag, kind, session_head};
use rpc_core::wire::varint;

#[test]
fn unknown_frames_that_may_be_ignored_change_nothing_but_the_count() {
    let mut bench = Bench::acceptor();
    let before = bench.session.counts();
    // I bit alone; I and S bits: the latter is counted, whatever it means.
    assert_eq!(bench.receive(session_head(0x5E, 0, None), b"whatever"), Ok(None));
    assert_eq!(bench.session.counts(), before);
    assert_eq!(bench.receive(exchange_head(0xFE, 0, None, Xid(99)), b"whatever"), Ok(None));
    assert_eq!(bench.session.counts(), (before.0, before.1 + 1));
    assert_eq!(code_of(bench.receive(exchange_head(0xBE, 0, None, Xid(0)), b"")), Code::UNKNOWN_FRAME);
    assert!(bench.open(0, WHOLE, b"args").is_ok());
}

#[test]
fn exchanges_at_the_limit_pass_and_one_more_ends_the_session() {
    let mut limits = Limits::default();
    limits.exchanges = 3;
    let mut bench = Bench::new(Side::Acceptor, limits);
    for xid in [0, 2, 4] {
        key_of(bench.open(xid, WHOLE, b""));
    }
    assert_eq!(code_of(bench.open(6, WHOLE, b"")), Code::FLOW);
}

#[test]
fn a_place_is_given_back_when_the_handler_has_ended_and_not_when_the_peer_cancels() {
    let mut limits = Limits::default();
    limits.exchanges = 1;
    let mut bench = Bench::new(Side::Acceptor, limits);
    let key = key_of(bench.open(0, WHOLE, b""));
    let mut cancel = exchange_head(kind::CANCEL, 0, None, Xid(0));
    cancel.varint(Code::CANCELLED.0.into());
    assert_eq!(bench.receive(cancel, b""), Ok(Some(SessionEvent::Cancelled(key))));
    assert_eq!(bench.written(), ["RESET CANCELLED"], "no place is granted yet");
    bench.session.handler_done(key);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), ["MAX_SESSION"]);
    assert_eq!(bench.session.live(), 0);
    key_of(bench.open(2, WHOLE, b""));
}

#[test]
fn a_place_is_given_back_with_the_refusal_of_its_call() {
    let mut bench = Bench::new(Side::Acceptor, Limits::default().exchanges(1));
    let key = key_of(bench.open(0, WHOLE, b""));
    // As the dispatcher refuses a call, in one step.
    bench.session.reset(key, Reason::new(Code::UNKNOWN_METHOD, ""));
    bench.session.handler_done(key);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), ["RESET UNKNOWN_METHOD", "MAX_SESSION"]);
    key_of(bench.open(2, WHOLE, b""));
}

#[test]
fn ids_are_dense_and_of_the_openers_parity() {
    for wrong in [2, 1, 7] {
        assert_eq!(code_of(Bench::acceptor().open(wrong, WHOLE, b"")), Code::PROTOCOL, "{wrong}");
    }
    let mut bench = Bench::acceptor();
    key_of(bench.open(0, WHOLE, b""));
    assert_eq!(code_of(bench.open(0, WHOLE, b"")), Code::PROTOCOL, "an id is used once");
}

#[test]
fn bytes_at_a_streams_credit_pass_and_one_more_resets_the_exchange_alone() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window) = (1000, 100_000);
    let mut bench = Bench::new(Side::Acceptor, limits);
    let (first, second) = (key_of(bench.open(0, flag::EOM, b"")), key_of(bench.open(2, flag::EOM, b"")));
    // The OPENs were taken at once, and with them their 16 bytes of credit; the window is announced by halves only.
    assert_eq!(bench.data(0, flag::EOM, &[0; 984]), Ok(Some(SessionEvent::Readable(first))));
    bench.written();
    assert_eq!(bench.data(0, flag::EOM, &[0; 16]), Ok(Some(SessionEvent::Cancelled(first))), "its handler is stopped");
    assert_eq!(bench.written(), ["CANCEL", "RESET FLOW"]);
    assert_eq!(bench.data(2, flag::EOM, &[0; 16]), Ok(Some(SessionEvent::Readable(second))));
}

#[test]
fn bytes_beyond_a_sessions_credit_end_the_session() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window) = (100_000, 1000);
    let mut bench = Bench::new(Side::Acceptor, limits);
    key_of(bench.open(0, flag::EOM, b""));
    assert!(bench.data(0, flag::EOM, &[0; 984]).is_ok());
    assert_eq!(code_of(bench.data(0, flag::EOM, &[0; 17])), Code::FLOW);
}

/// What was given back and was not worth its frame is announced when little is left to the peer, also where nobody takes
/// anything more.
#[test]
fn a_sessions_credit_is_announced_on_receipt_when_less_than_a_quarter_is_left() {
    for (len, announced) in [(733, false), (734, false), (735, true)] {
        let mut bench = Bench::new(Side::Acceptor, Limits::default().stream_window(100_000).session_window(1000));
        // Its 16 bytes are given back at once.
        key_of(bench.open(0, flag::EOM, b""));
        assert_eq!(bench.written(), [""; 0]);
        bench.data(0, flag::EOM, &vec![0; len]).unwrap();
        assert_eq!(bench.written() == ["MAX_SESSION"], announced, "{len}");
    }
}

#[test]
fn messages_at_the_limit_pass_and_one_byte_more_resets_the_exchange_alone() {
    let mut limits = Limits::default();
    limits.max_message = 100;
    for (len, ok) in [(99, true), (100, true), (101, false)] {
        let mut bench = Bench::new(Side::Acceptor, limits.clone());
        let event = bench.open(0, WHOLE, &vec![0; len]).unwrap();
        assert_eq!(event.is_some(), ok, "{len} whole");
        assert_eq!(bench.written() == ["RESET TOO_LARGE"], !ok, "{len} whole");
        // The same by the length that the first piece states, before any of it is kept.
        let mut head = exchange_head(kind::OPEN, 0, None, Xid(2));
        Open { method: 0, timeout_ms: None, total: Some(len as u64) }.write(&mut head);
        assert_eq!(bench.receive(head, &[0; 20]), Ok(None));
        assert_eq!(bench.written() == ["CANCEL", "RESET TOO_LARGE"], !ok, "{len} in pieces");
    }
}

#[test]
fn pieces_that_do_not_add_up_reset_the_exchange_alone() {
    // (length stated, first piece, second piece, flags of the second)
    let cases: [(u64, usize, usize, u8); 6] = [
        (40, 20, 21, WHOLE),     // too long
        (40, 20, 19, WHOLE),     // too short
        (40, 20, 20, 0),         // complete without EOM
        (40, 20, 10, flag::END), // END in the middle
        (40, 20, 0, 0),          // nothing
        (20, 20, 0, WHOLE),      // the first piece is the whole
    ];
    for (total, first, second, flags) in cases {
        let mut bench = Bench::acceptor();
        let mut head = exchange_head(kind::OPEN, 0, None, Xid(0));
        Open { method: 0, timeout_ms: None, total: Some(total) }.write(&mut head);
        assert_eq!(bench.receive(head, &vec![0; first]), Ok(None));
        let event = bench.data(0, flags, &vec![0; second]).unwrap();
        assert!(!matches!(event, Some(SessionEvent::Opened { .. })), "{total} {first} {second} {flags}");
        assert!(bench.written().contains(&"RESET PROTOCOL".to_owned()), "{total} {first} {second} {flags}");
        assert!(bench.open(2, WHOLE, b"").is_ok(), "the session goes on");
    }
}

#[test]
fn an_empty_frame_without_an_end_resets_the_exchange() {
    let mut bench = Bench::acceptor();
    key_of(bench.open(0, flag::EOM, b""));
    bench.data(0, 0, b"").unwrap();
    assert_eq!(bench.written(), ["CANCEL", "RESET PROTOCOL"]);
}

#[test]
fn a_field_that_was_not_agreed_upon_resets_the_exchange_alone() {
    let mut bench = Bench::acceptor();
    let mut head = exchange_head(kind::OPEN, WHOLE | flag::EXT, None, Xid(0));
    head.varint(0);
    head.varint(0b1000);
    assert_eq!(bench.receive(head, b"x"), Ok(None));
    assert_eq!(bench.written(), ["RESET PROTOCOL"]);
    assert_eq!(bench.session.live(), 0, "nothing of it is left");
    key_of(bench.open(2, WHOLE, b""));
}

#[test]
fn frames_behind_the_end_of_their_direction_end_the_session() {
    for late in [kind::DATA, kind::RESET] {
        let mut bench = Bench::acceptor();
        key_of(bench.open(0, WHOLE, b""));
        assert_eq!(code_of(bench.receive(exchange_head(late, 0, None, Xid(0)), b"\0\0")), Code::PROTOCOL);
    }
}

#[test]
fn late_cancels_and_credit_are_no_fault_and_those_of_an_exchange_that_never_was_are() {
    let mut bench = Bench::acceptor();
    let key = key_of(bench.open(0, WHOLE, b""));
    bench.session.answer_now(key, vec![1].into(), false, &mut bench.out);
    for late in [kind::CANCEL, kind::MAX_STREAM] {
        assert_eq!(bench.receive(exchange_head(late, 0, None, Xid(0)), b"\x07"), Ok(None));
        assert_eq!(code_of(bench.receive(exchange_head(late, 0, None, Xid(2)), b"\x07")), Code::PROTOCOL);
    }
}

#[test]
fn counts_that_differ_end_the_session_at_once() {
    let mut bench = Bench::acceptor();
    key_of(bench.open(0, WHOLE, b""));
    let ack = |received, sent| {
        let mut head = session_head(kind::ACK, 0, None);
        head.varint(received);
        head.varint(sent);
        head
    };
    assert_eq!(bench.receive(ack(0, 1), b""), Ok(None));
    assert_eq!(code_of(bench.receive(ack(0, 2), b"")), Code::SEQ_DIVERGED);
    assert_eq!(code_of(bench.receive(ack(1, 1), b"")), Code::SEQ_DIVERGED);
}

#[test]
fn a_reset_that_states_another_offset_than_was_received_ends_the_session() {
    let mut bench = Bench::acceptor();
    key_of(bench.open(0, flag::EOM, b"0123456789abcdef"));
    let mut body = Vec::new();
    Reset { final_offset: 17, reason: Reason::new(Code::CANCELLED, "") }.write(&mut body);
    assert!(bench.receive(exchange_head(kind::RESET, 0, None, Xid(0)), &body).is_ok(), "16 bytes and the method");
    key_of(bench.open(2, flag::EOM, b""));
    assert_eq!(code_of(bench.receive(exchange_head(kind::RESET, 0, None, Xid(2)), &body)), Code::SEQ_DIVERGED);
}

#[test]
fn a_call_withdrawn_before_it_was_written_leaves_no_trace() {
    let mut limits = Limits::default();
    limits.exchanges = 1;
    let mut bench = Bench::new(Side::Initiator, limits);
    let first = bench.call(AnswerKind::One, false);
    let second = bench.call(AnswerKind::One, false);
    assert_eq!(bench.written(), ["OPEN"], "the second waits for a place");
    bench.session.release(second);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), Vec::<String>::new());
    bench.session.release(first);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), ["CANCEL"]);
    assert_eq!(bench.session.live(), 1, "until the peer confirms");
    bench.data(0, WHOLE, b"too late").unwrap();
    assert_eq!((bench.session.live(), bench.session.held()), (0, 0));
}

#[test]
fn a_deadline_is_told_to_the_caller_at_once_and_the_exchange_waits_for_its_end() {
    let mut bench = Bench::initiator();
    let command = OpenCommand {
        method: 0,
        timeout: Some(Duration::from_millis(5)),
        body: Vec::new().into(),
        more: false,
        answer: AnswerKind::One,
    };
    let key = bench.session.open_now(command, (), &mut bench.out).unwrap();
    bench.session.stamp(Time::from_micros(1000));
    assert_eq!(bench.session.next_deadline(), Some(Time::from_micros(6000)));
    let mut expired = Vec::new();
    bench.session.handle_deadlines(Time::from_micros(5999), |key, _| expired.push(key));
    assert!(expired.is_empty());
    bench.session.handle_deadlines(Time::from_micros(6000), |key, _| expired.push(key));
    assert_eq!(expired, [key]);
    match bench.session.take_answer(key) {
        Answer::Fault(fault) => assert_eq!((fault.reason.code, fault.sent), (Code::DEADLINE, true)),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.session.live(), 1);
    bench.data(0, WHOLE, b"late").unwrap();
    assert_eq!((bench.session.live(), bench.session.held()), (0, 0));
}

#[test]
fn a_lost_session_tells_each_call_whether_it_was_written() {
    let mut limits = Limits::default();
    limits.exchanges = 2;
    let mut bench = Bench::new(Side::Initiator, limits);
    let keys = [0, 1, 2].map(|_| bench.call(AnswerKind::One, false));
    bench.data(0, WHOLE, b"in time").unwrap();
    bench.session.fail(Reason::new(Code::CLOSED, "cut"));
    assert_eq!(bench.session.take_answer(keys[0]), Answer::Message(b"in time".to_vec()));
    for (key, sent) in [(keys[1], true), (keys[2], false)] {
        match bench.session.take_answer(key) {
            Answer::Fault(fault) => assert_eq!((fault.reason.code, fault.sent), (Code::CLOSED, sent)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.session.live(), 0);
    let command = OpenCommand { method: 0, timeout: None, body: Vec::new().into(), more: false, answer: AnswerKind::One };
    assert!(!bench.session.open(command, ()).unwrap_err().sent);
}

#[test]
fn credit_of_a_stream_returns_when_the_application_is_done_with_a_batch() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window) = (1000, 1000);
    let mut bench = Bench::new(Side::Initiator, limits);
    let key = bench.call(AnswerKind::Many, false);
    bench.written();
    for _ in 0..6 {
        bench.data(0, flag::EOM, &[7; 100]).unwrap();
    }
    let mut batch = Batch::new();
    assert_eq!(bench.session.take_answer(key), Answer::Stream);
    assert_eq!(bench.session.take_items(key, &mut batch), Items::Ready);
    assert_eq!(batch.len(), 6);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), Vec::<String>::new(), "taken is not yet used");
    assert_eq!(bench.session.take_items(key, &mut batch), Items::Pending);
    bench.session.flush(&mut bench.out);
    assert_eq!(bench.written(), ["MAX_SESSION", "MAX_STREAM"]);
}

#[test]
fn a_stream_that_breaks_keeps_the_items_before_its_fault() {
    let mut limits = Limits::default();
    limits.stream_window = 1000;
    let mut bench = Bench::new(Side::Acceptor, limits);
    let key = key_of(bench.open(0, WHOLE, b""));
    bench.session.accept(key);
    let mut batch = Batch::new();
    (0..10).for_each(|_| batch.push(&[7; 150]));
    bench.session.send(key, &mut batch, false);
    bench.session.break_stream(key, Reason::new(Code::INTERNAL, "disk"));
    bench.session.handler_done(key);
    bench.session.flush(&mut bench.out);
    let mut written = bench.written();
    assert!(written.iter().all(|frame| frame == "ACCEPT" || frame == "DATA"), "{written:?}");
    let mut more = exchange_head(kind::MAX_STREAM, 0, None, Xid(0));
    more.varint(10_000);
    bench.receive(more, b"").unwrap();
    written.extend(bench.written());
    // Ten items, one of them in two pieces where the first window ended, and only then the fault.
    assert_eq!(written.iter().filter(|frame| *frame == "DATA").count(), 11);
    assert_eq!(written.last().map(String::as_str), Some("RESET INTERNAL"));
    assert_eq!(bench.session.live(), 0);
}

#[test]
fn places_are_granted_anew_while_long_lived_exchanges_hold_most_of_them() {
    let mut limits = Limits::default();
    limits.exchanges = 8;
    let mut bench = Bench::new(Side::Acceptor, limits);
    for n in 0..5 {
        key_of(bench.open(n * 2, flag::EOM, b"a stream that stays"));
    }
    for n in 5..100 {
        let key = key_of(bench.open(n * 2, WHOLE, b"a call that comes and goes"));
        bench.session.answer_now(key, vec![1].into(), false, &mut bench.out);
    }
}

#[test]
fn credit_is_granted_anew_while_an_idle_reader_holds_most_of_it() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window) = (1000, 1000);
    let mut bench = Bench::new(Side::Acceptor, limits);
    key_of(bench.open(0, flag::EOM, b""));
    bench.data(0, flag::EOM, &[0; 600]).unwrap();
    for n in 1..100 {
        let key = key_of(bench.open(n * 2, WHOLE, &[0; 100]));
        bench.session.answer_now(key, vec![1].into(), false, &mut bench.out);
        bench.written();
    }
}

#[test]
fn a_call_that_expired_before_it_was_written_never_is() {
    for answer in [AnswerKind::One, AnswerKind::Many, AnswerKind::None] {
        let mut limits = Limits::default();
        limits.exchanges = 1;
        let mut bench = Bench::new(Side::Initiator, limits);
        bench.call(AnswerKind::One, false);
        let timeout = Some(Duration::from_millis(5));
        let command = OpenCommand { method: 0, timeout, body: vec![1].into(), more: false, answer };
        let key = bench.session.open_now(command, (), &mut bench.out).unwrap();
        bench.session.stamp(Time::default());
        bench.session.handle_deadlines(Time::from_micros(5000), |_, _| {});
        bench.written();
        // Credit comes before the caller looks.
        let mut places = session_head(kind::MAX_SESSION, 0, None);
        places.varint(1 << 20);
        places.varint(10);
        bench.receive(places, b"").unwrap();
        assert_eq!(bench.written(), Vec::<String>::new(), "{answer:?}");
        let fault = match answer {
            AnswerKind::None => bench.session.release_sent(key).unwrap_err(),
            _ => match bench.session.take_answer(key) {
                Answer::Fault(fault) => fault,
                other => panic!("{other:?}"),
            },
        };
        assert_eq!((fault.reason.code, fault.sent), (Code::DEADLINE, false), "{answer:?}");
        bench.call(AnswerKind::One, false);
        assert_eq!(bench.written(), ["OPEN"], "its place serves the next call");
    }
}

#[test]
fn a_one_way_call_that_was_not_written_fails_with_its_session() {
    let mut limits = Limits::default();
    limits.exchanges = 1;
    let mut bench = Bench::new(Side::Initiator, limits);
    let (sent, waits) = (bench.call(AnswerKind::None, false), bench.call(AnswerKind::None, false));
    bench.session.fail(Reason::new(Code::CLOSED, "cut"));
    assert_eq!(bench.session.release_sent(sent), Ok(true));
    let fault = bench.session.release_sent(waits).unwrap_err();
    assert_eq!((fault.reason.code, fault.sent), (Code::CLOSED, false));
    assert_eq!(bench.session.live(), 0);
}

/// The whole table of an exchange's states and the frames that can come: what each leads to. docs/PROTOCOL.md §6 says
/// the same in words; a change here is a change of the protocol.
#[test]
fn the_table_of_states_and_frames_is_as_documented() {
    let mut table = String::new();
    for (state, prepare) in STATES {
        for (name, code, flags, body) in FRAMES {
            let mut bench = if state.starts_with("caller") { Bench::initiator() } else { Bench::acceptor() };
            prepare(&mut bench);
            bench.written();
            let event = bench.receive(exchange_head(*code, *flags, None, Xid(0)), body);
            let mut outcome = match event {
                Ok(None) => "-".to_owned(),
                Ok(Some(SessionEvent::Opened { .. })) => "starts".to_owned(),
                Ok(Some(SessionEvent::Readable(_))) => "readable".to_owned(),
                Ok(Some(SessionEvent::Cancelled(_))) => "cancelled".to_owned(),
                Ok(Some(other)) => format!("{other:?}"),
                Err(error) => format!("session ends: {:?}", error.reason.code),
            };
            for frame in bench.written() {
                outcome += &format!(", {frame}");
            }
            table += &format!("{state:<24} {name:<12} {outcome}\n");
        }
    }
    let documented = include_str!("states.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/states.txt"), &table).unwrap();
    } else {
        assert_eq!(table, documented, "BLESS=1 rewrites the table");
    }
}

type Prepare = fn(&mut Bench);

const STATES: &[(&str, Prepare)] = &[
    ("caller, one answer", |bench| {
        bench.call(AnswerKind::One, false);
    }),
    ("caller, items", |bench| {
        bench.call(AnswerKind::Many, false);
    }),
    ("caller, let go", |bench| {
        let key = bench.call(AnswerKind::One, false);
        bench.session.release(key);
        bench.session.flush(&mut bench.out);
    }),
    ("caller, answered", |bench| {
        let key = bench.call(AnswerKind::One, false);
        bench.data(0, WHOLE, b"x").unwrap();
        bench.session.take_answer(key);
    }),
    ("handler, no more input", |bench| drop(bench.open(0, WHOLE, b"x"))),
    ("handler, takes items", |bench| drop(bench.open(0, flag::EOM, b"x"))),
    ("handler, one-way", |bench| drop(bench.open(0, WHOLE | flag::ONEWAY, b"x"))),
    ("handler, half a message", |bench| {
        let mut head = exchange_head(kind::OPEN, 0, None, Xid(0));
        Open { method: 0, timeout_ms: None, total: Some(40) }.write(&mut head);
        bench.receive(head, &[0; 20]).unwrap();
    }),
    ("handler, refused", |bench| {
        let mut head = exchange_head(kind::OPEN, 0, None, Xid(0));
        Open { method: 0, timeout_ms: None, total: Some(varint::MAX) }.write(&mut head);
        bench.receive(head, &[0; 20]).unwrap();
    }),
];

const FRAMES: &[(&str, u8, u8, &[u8])] = &[
    ("OPEN", kind::OPEN, WHOLE, b"\0"),
    ("DATA", kind::DATA, flag::EOM, b"item"),
    ("DATA END", kind::DATA, WHOLE, b"item"),
    ("END", kind::DATA, flag::END, b""),
    ("DATA ERR END", kind::DATA, WHOLE | flag::ERR, b"error"),
    ("DATA ERR", kind::DATA, flag::EOM | flag::ERR, b"error"),
    ("RESET", kind::RESET, 0, b"\x10\x07"),
    ("CANCEL", kind::CANCEL, 0, b"\x07"),
    ("ACCEPT", kind::ACCEPT, 0, b""),
    ("MAX_STREAM", kind::MAX_STREAM, 0, b"\x07"),
];

/// An OPEN whose metadata are these bytes, behind a length that may be a lie.
fn open_with_metadata(bench: &mut Bench, xid: u64, length: usize, metadata: &[u8]) -> Option<SessionEvent> {
    let mut head = exchange_head(kind::OPEN, WHOLE | flag::EXT, None, Xid(xid));
    for field in [0, 8, length as u64] {
        head.varint(field);
    }
    bench.receive(head, &[metadata, b"\x01\x02\x03"].concat()).expect("the session goes on")
}

fn metadata_of(entries: usize, size: usize) -> Metadata {
    let mut metadata = Metadata::new();
    for n in 0..entries {
        metadata.insert(&format!("k{n:03}"), "").unwrap();
    }
    let filler = size - metadata.encoded().len();
    // The last value takes up what is missing, behind a length of two bytes.
    metadata.insert(&format!("k{:03}", entries - 1), vec![7; filler - 1]).unwrap();
    assert_eq!((metadata.len(), metadata.encoded().len()), (entries, size));
    metadata
}

#[test]
fn metadata_at_the_limit_arrive_and_beyond_it_end_their_call_alone() {
    let limits = Limits::default();
    let (bytes, entries) = (limits.metadata_bytes as usize, limits.metadata_entries as usize);
    let cases = [
        (bytes - 1, 2, true),
        (bytes, 2, true),
        (bytes + 1, 2, false),
        (5000, entries - 1, true),
        (5000, entries, true),
        (5000, entries + 1, false),
    ];
    let mut bench = Bench::acceptor();
    for (n, (size, entries, ok)) in cases.into_iter().enumerate() {
        let metadata = metadata_of(entries, size);
        match open_with_metadata(&mut bench, 2 * n as u64, size, metadata.encoded()) {
            Some(SessionEvent::Opened { key, metadata: found, body, .. }) => {
                assert!(ok, "{size} bytes, {entries} entries");
                assert_eq!((found.as_deref(), &body[..]), (Some(&metadata), &[1, 2, 3][..]));
                bench.session.answer(key, Vec::new().into(), false);
                bench.session.handler_done(key);
                bench.session.flush(&mut bench.out);
                assert_eq!(bench.written(), ["DATA"]);
            }
            None => {
                assert!(!ok, "{size} bytes, {entries} entries");
                assert_eq!(bench.written(), ["RESET TOO_LARGE"]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((bench.session.live(), bench.session.held()), (0, 0));
}

#[test]
fn metadata_that_make_no_sense_end_their_call_alone() {
    let mut bench = Bench::acceptor();
    let cases: [(usize, &[u8], &str); 6] = [
        (4, b"\x01a\x05x", "RESET BAD_ARGUMENTS"),
        (3, b"\x01A\x00", "RESET BAD_ARGUMENTS"),
        (6, b"\x01a\x00\x01a\x00", "RESET BAD_ARGUMENTS"),
        (2, b"\x00\x00", "RESET BAD_ARGUMENTS"),
        (1000, b"\x01a\x00", "RESET PROTOCOL"),
        (1 << 40, b"\x01a\x00", "RESET PROTOCOL"),
    ];
    for (n, (length, metadata, reset)) in cases.into_iter().enumerate() {
        assert_eq!(open_with_metadata(&mut bench, 2 * n as u64, length, metadata), None);
        assert_eq!(bench.written(), [reset], "{metadata:?}");
    }
    // No pairs at all are as good as none.
    match open_with_metadata(&mut bench, 12, 0, b"") {
        Some(SessionEvent::Opened { metadata: None, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn metadata_that_cannot_be_sent_are_a_fault_of_the_call_and_nothing_is_written() {
    let command = || OpenCommand { method: 0, timeout: None, body: vec![1].into(), more: false, answer: AnswerKind::One };
    let mut bench = Bench::initiator();
    let most = Limits::default().metadata_bytes as usize;
    for (size, ok) in [(most - 1, true), (most, true), (most + 1, false)] {
        let result = bench.session.open_with(command(), Arc::new(metadata_of(2, size)).into(), (), &mut bench.out);
        match result {
            Ok(_) => assert_eq!((ok, bench.written()), (true, vec!["OPEN".to_owned()]), "{size}"),
            Err(fault) => {
                assert_eq!((ok, fault.reason.code, fault.sent), (false, Code::TOO_LARGE, false), "{size}");
                assert!(fault.reason.text.contains("`k001`") && fault.reason.text.contains("Limits::metadata_bytes"));
                assert_eq!(bench.written(), [""; 0]);
            }
        }
    }
    // What the limits allow and a peer's windows do not.
    let mut limits = Limits::default();
    limits.session_window = 4000;
    let mut bench = Bench::new(Side::Initiator, limits);
    let room = bench.session.metadata_room(&bench.out);
    assert_eq!(room, 2000 - 48);
    for (size, ok) in [(room - 1, true), (room, true), (room + 1, false)] {
        let result = bench.session.open_with(command(), Arc::new(metadata_of(2, size)).into(), (), &mut bench.out);
        assert_eq!(
            result.map_err(|fault| (fault.reason.code, fault.sent)).map(drop),
            if ok { Ok(()) } else { Err((Code::TOO_LARGE, false)) }
        );
    }
    assert_eq!(bench.written(), ["OPEN", "OPEN"]);
}

#[test]
fn arguments_that_take_the_whole_window_leave_room_for_the_items_behind_them() {
    let mut limits = Limits::default();
    (limits.stream_window, limits.session_window) = (600, 4000);
    for (size, more, announced) in [(595, true, true), (298, true, false), (299, true, true), (595, false, false)] {
        let mut bench = Bench::new(Side::Acceptor, limits.clone());
        // The method takes a byte of what is charged.
        key_of(bench.open(0, if more { flag::EOM } else { WHOLE }, &vec![7; size]));
        let written = bench.written();
        assert_eq!(written.contains(&"MAX_STREAM".to_owned()), announced, "{size} bytes: {written:?}");
    }
}

/// However many are written at a time: each level's credit is kept to the byte, the session's last quarter is left to calls, and
/// the batch takes no frame once it is full.
#[test]
fn items_go_out_as_far_as_every_credit_and_the_batch_reach() {
    let wide = || Limits::default().stream_window(1 << 20).session_window(1 << 20).connection_window(1 << 20);
    let cases = [
        (wide().stream_window(1000), 10, "the stream's credit"),
        (wide().stream_window(999), 10, "a piece of the tenth"),
        (wide().session_window(2000), 15, "three quarters of the session's"),
        (wide().connection_window(1000), 10, "the connection's"),
        (wide(), (64 * 1024usize).div_ceil(106), "the batch"),
    ];
    for (limits, first, what) in cases {
        let mut bench = Bench::new(Side::Acceptor, limits);
        let key = key_of(bench.open(0, WHOLE, b""));
        let mut batch = Batch::new();
        (0..1000).for_each(|n| batch.push(&[n as u8; 100]));
        assert_eq!(bench.session.poll_send(key), Some(true));
        bench.session.send(key, &mut batch, true);
        bench.session.flush(&mut bench.out);
        let written = bench.written();
        assert_eq!(written, vec!["DATA"; first], "{what}");
        assert_eq!(bench.session.poll_send(key), None, "the last were given");
        if what == "the batch" {
            assert_eq!(bench.written().len(), 1000 - first, "the rest has the next one");
        }
    }
}

/// Items that come at once are looked at at once. Nobody can tell: what is kept, counted, credited, refused and written is
/// the same as if each had come alone, whatever the exchange is in the middle of and whichever of them breaks a rule.
mod runs {
    use proptest::prelude::*;
    use rpc_core::id::ExchangeKey;
    use rpc_core::proto::{Input, ProtocolError};
    use rpc_core::wire::RawFrame;
    use rpc_core::wire::frame::{Frame, Mode, Run};

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Before {
        /// A handler reads.
        Reading,
        /// Nobody reads any more.
        Stopped,
        /// The arguments' last piece comes with the items.
        Arguments,
        /// An item of several pieces is half there.
        Half,
        /// A call that asked for items.
        Called,
        /// A call that asked for one message.
        CalledForOne,
        /// The direction has ended.
        Ended,
    }

    fn data(flags: u8, body: &[u8], bytes: &mut Vec<u8>) {
        exchange_head(kind::DATA, flags, None, Xid(0)).append(body.len(), bytes);
        bytes.extend_from_slice(body);
    }

    fn begin(before: Before) -> (Bench, Option<ExchangeKey>, Vec<u8>) {
        let limits = Limits::default().stream_window(1000).session_window(1500).max_message(300);
        let side = if matches!(before, Before::Called | Before::CalledForOne) { Side::Initiator } else { Side::Acceptor };
        let (mut bench, mut bytes) = (Bench::new(side, limits), Vec::new());
        let key = match before {
            Before::Reading => Some(key_of(bench.open(0, flag::EOM, b"args"))),
            Before::Ended => Some(key_of(bench.open(0, WHOLE, b"args"))),
            Before::Called => Some(bench.call(AnswerKind::Many, false)),
            Before::CalledForOne => Some(bench.call(AnswerKind::One, false)),
            Before::Stopped => {
                let key = key_of(bench.open(0, flag::EOM, b"args"));
                bench.session.stop(key);
                Some(key)
            }
            Before::Arguments => {
                let mut head = exchange_head(kind::OPEN, 0, None, Xid(0));
                Open { method: 0, timeout_ms: None, total: Some(40) }.write(&mut head);
                assert_eq!(bench.receive(head, &[1; 20]), Ok(None));
                data(flag::EOM, &[2; 20], &mut bytes);
                None
            }
            Before::Half => {
                let key = key_of(bench.open(0, flag::EOM, b"args"));
                let mut piece = vec![40];
                piece.extend([1; 20]);
                assert_eq!(bench.data(0, 0, &piece), Ok(None));
                data(flag::EOM, &[2; 20], &mut bytes);
                Some(key)
            }
        };
        bench.session.flush(&mut bench.out);
        bench.written();
        (bench, key, bytes)
    }

    /// What comes of frames that arrive at once, handled in runs or one by one; up to the one that ends the session.
    fn receive(bench: &mut Bench, bytes: &[u8], in_runs: bool) -> Vec<Result<Option<SessionEvent>, ProtocolError>> {
        let mut input = Input::new(bytes.len());
        input.space()[..bytes.len()].copy_from_slice(bytes);
        input.advance(bytes.len());
        let (max_frame, mut events) = (bench.limits.max_frame, Vec::new());
        let behind = |raw: &RawFrame<'_>, behind: &[u8]| {
            let is_item = in_runs && (raw.kind, raw.flags) == (kind::DATA, flag::EOM);
            if is_item { Run::measure(raw, Mode::Single, max_frame, u64::MAX, behind).0 } else { 0 }
        };
        while let Some((raw, behind)) = input.next_frames(max_frame, behind).unwrap() {
            let frame = Frame::read(raw, Mode::Single).unwrap().with(&raw, behind);
            events.push(bench.session.handle_frame(&frame, bench.now, || ()));
            if events.last().is_some_and(Result::is_err) {
                break;
            }
        }
        events
    }

    /// What came of it: the items that are there, how they end, the counts and the credit, and what is written then.
    fn outcome(mut bench: Bench, key: Option<ExchangeKey>, events: &[SessionEvent]) -> impl PartialEq + std::fmt::Debug {
        let mut started = key;
        for event in events {
            match event {
                SessionEvent::Opened { key, .. } => started = Some(*key),
                SessionEvent::Cancelled(key) => bench.session.handler_done(*key),
                _ => {}
            }
        }
        let counts = bench.session.counts();
        let mut taken = Vec::new();
        for _ in 0..2 {
            let mut batch = Batch::new();
            let end = started.map(|key| bench.session.take_items(key, &mut batch));
            taken.push((batch.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), end));
        }
        bench.session.flush(&mut bench.out);
        (counts, taken, bench.session.held(), bench.session.live(), bench.written())
    }

    proptest! {
        #[test]
        fn items_in_a_run_are_to_a_session_what_single_ones_are(
            before in prop_oneof![
                4 => Just(Before::Reading), 1 => Just(Before::Stopped), 1 => Just(Before::Arguments), 1 => Just(Before::Half),
                4 => Just(Before::Called), 1 => Just(Before::CalledForOne), 1 => Just(Before::Ended),
            ],
            sizes in proptest::collection::vec(prop_oneof![8 => 0usize..40, 1 => 298usize..303], 1..60),
            last in prop_oneof![Just(None), Just(Some(flag::END)), Just(Some(WHOLE)), Just(Some(0))],
        ) {
            let frames = |bytes: &mut Vec<u8>| {
                sizes.iter().enumerate().for_each(|(n, size)| data(flag::EOM, &vec![n as u8; *size], bytes));
                last.iter().for_each(|flags| data(*flags, b"", bytes));
            };
            let (mut alone, key, mut bytes) = begin(before);
            frames(&mut bytes);
            let singles = receive(&mut alone, &bytes, false);
            let (mut together, same, _) = begin(before);
            prop_assert_eq!(key, same);
            let runs = receive(&mut together, &bytes, true);
            let fault = |all: &[Result<_, _>]| all.iter().find_map(|event| event.as_ref().err().cloned());
            prop_assert_eq!(fault(&singles), fault(&runs));
            prop_assert!(fault(&runs).is_some() || sizes.len() < 4 || runs.len() < singles.len(), "they came in runs");
            let events = |all: Vec<Result<Option<SessionEvent>, _>>| all.into_iter().filter_map(|event| event.ok()?).collect::<Vec<_>>();
            let broken = runs.iter().any(Result::is_err);
            let (singles, runs) = (events(singles), events(runs));
            if broken {
                // Everybody hears of the session's end, and nothing is taken or written behind it.
                prop_assert_eq!(alone.session.counts(), together.session.counts());
                return Ok(());
            }
            // Somebody is told of each kind, and a handler is started or stopped as before, unless both come at once.
            let has = |events: &[SessionEvent], is: fn(&SessionEvent) -> bool| events.iter().any(is);
            let opened = |event: &SessionEvent| matches!(event, SessionEvent::Opened { .. });
            let cancelled = |event: &SessionEvent| matches!(event, SessionEvent::Cancelled(_));
            let (starts, stops) = (has(&singles, opened), has(&singles, cancelled));
            if starts && stops && !has(&runs, opened) {
                prop_assert!(!has(&runs, cancelled), "a handler that was not started is not stopped");
            } else {
                prop_assert_eq!((starts, stops), (has(&runs, opened), has(&runs, cancelled)));
                prop_assert_eq!(singles.is_empty(), runs.is_empty());
            }
            let key = singles.iter().find_map(|event| if let SessionEvent::Opened { key, .. } = event { Some(*key) } else { key });
            prop_assert_eq!(outcome(alone, key, &singles), outcome(together, key, &runs));
        }
    }
}
