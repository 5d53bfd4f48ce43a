//! What no peer can make grow: the queues of a session under floods, and what it keeps of messages. And that the table
//! of limits in docs/PROTOCOL.md §10 is the one in the code.

mod bench;

use std::collections::BTreeMap;
use std::time::Duration;

use bench::{Bench, WHOLE, code_of, key_of};
use rpc_core::code::Code;
use rpc_core::id::{Side, Xid};
use rpc_core::proto::{AnswerKind, Limits, Outbox, SessionEvent, Time};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Open, Reason, Reset, exchange_head, flag, kind};
use rpc_core::wire::varint;

/// Often enough that a queue which grows each time is told from one that does not.
const FLOOD: u64 = 5000;

/// What a session may have queued: three places for each exchange, and what is swept out only by and by.
#[track_caller]
fn is_bounded(bench: &Bench) {
    let (queued, live) = (bench.session.queued(), bench.session.live());
    assert!(queued <= 3 * live + 100, "{queued} places are taken for {live} exchanges");
}

fn cancel(xid: u64) -> HeadBuf {
    let mut head = exchange_head(kind::CANCEL, 0, None, Xid(xid));
    head.varint(Code::CANCELLED.0.into());
    head
}

/// The first piece of the arguments of a call.
fn begin(bench: &mut Bench, xid: u64, total: u64, piece: usize) {
    let mut head = exchange_head(kind::OPEN, 0, None, Xid(xid));
    Open { method: 0, timeout_ms: None, total: Some(total) }.write(&mut head);
    assert_eq!(bench.receive(head, &vec![0; piece]), Ok(None));
}

#[test]
fn a_reset_that_cannot_be_written_yet_is_queued_once_however_often_it_is_asked_for() {
    let mut bench = Bench::acceptor();
    let (large, small) = (key_of(bench.open(0, WHOLE, b"")), key_of(bench.open(2, WHOLE, b"")));
    // Nobody takes this batch, and it is full.
    bench.session.answer_now(large, vec![0; 200_000].into(), false, &mut bench.out);
    assert!(bench.out.is_full());
    for n in 0..FLOOD {
        bench.receive(cancel(2), b"").unwrap();
        let mut more = exchange_head(kind::MAX_STREAM, 0, None, Xid(2));
        more.varint((1 << 20) + n);
        bench.receive(more, b"").unwrap();
        is_bounded(&bench);
    }
    bench.session.handler_done(small);
    assert_eq!(bench.written(), ["DATA"]);
    assert_eq!(bench.written(), ["RESET CANCELLED"]);
}

/// Opens a call, has it answered, and cancels it, over and over, while its answer has no credit to go out with.
fn open_and_cancel(bench: &mut Bench, first: u64) {
    for n in 0..FLOOD {
        let xid = first + 2 * n;
        let key = key_of(bench.open(xid, WHOLE, b""));
        bench.session.answer_now(key, vec![1; 100].into(), false, &mut bench.out);
        bench.receive(cancel(xid), b"").unwrap();
        bench.written();
        is_bounded(bench);
    }
}

#[test]
fn calls_that_are_cancelled_while_their_answers_lack_the_sessions_credit_leave_no_trail() {
    let mut bench = Bench::new(Side::Acceptor, Limits::default().session_window(512));
    let key = key_of(bench.open(0, WHOLE, b""));
    bench.session.answer_now(key, vec![1; 512].into(), false, &mut bench.out);
    assert_eq!(bench.session.credit(), 0);
    open_and_cancel(&mut bench, 2);
    assert_eq!(bench.session.live(), 0);
}

#[test]
fn calls_that_are_cancelled_while_their_answers_lack_the_connections_credit_leave_no_trail() {
    let mut bench = Bench::acceptor();
    bench.out = Outbox::new(bench.limits.connection_window);
    bench.out.open(bench.limits.max_frame, 0);
    open_and_cancel(&mut bench, 0);
    assert_eq!(bench.session.live(), 0);
}

/// Of this side's own doing: callers that give up while the peer grants no place.
#[test]
fn calls_that_are_dropped_while_they_wait_for_a_place_leave_no_trail() {
    let mut bench = Bench::initiator();
    let places = bench.limits.exchanges;
    for _ in 0..places {
        bench.call(AnswerKind::One, false);
    }
    bench.written();
    bench.session.stamp(Time::default());
    for _ in 0..FLOOD {
        let key = bench.call(AnswerKind::One, false);
        bench.session.release(key);
        bench.session.stamp(Time::default());
        assert_eq!(bench.session.live() as u64, places);
        is_bounded(&bench);
    }
}

#[test]
fn a_sessions_window_is_kept_to_the_byte() {
    for (last, ok) in [(283, true), (284, true), (285, false)] {
        let mut bench = Bench::new(Side::Acceptor, Limits::default().stream_window(2000).session_window(1000));
        key_of(bench.open(0, flag::EOM, b""));
        // The OPEN's 16 bytes were given back, and are not worth an announcement yet.
        bench.data(0, flag::EOM, &[0; 700]).unwrap();
        let result = bench.data(0, flag::EOM, &vec![0; last]);
        if ok { assert!(result.is_ok(), "{last}") } else { assert_eq!(code_of(result), Code::FLOW) }
    }
}

#[test]
fn messages_that_are_withdrawn_while_they_wait_for_admission_leave_no_trail() {
    let limits = Limits::default().stream_window(512).max_message(4000).reassembly(4000);
    let mut bench = Bench::new(Side::Acceptor, limits);
    // The first is admitted and never completed, the second stands in front of all others.
    begin(&mut bench, 0, 4000, 20);
    begin(&mut bench, 2, 4000, 20);
    for n in 2..FLOOD {
        begin(&mut bench, 2 * n, 4000, 20);
        let mut body = Vec::new();
        Reset { final_offset: 23, reason: Reason::new(Code::CANCELLED, "") }.write(&mut body);
        bench.receive(exchange_head(kind::RESET, 0, None, Xid(2 * n)), &body).unwrap();
        bench.written();
        is_bounded(&bench);
    }
    assert_eq!(bench.session.live(), 2);
}

#[test]
fn messages_within_the_reassembly_budget_are_admitted_and_one_byte_more_waits() {
    for (second, admitted) in [(2999, true), (3000, true), (3001, false)] {
        let limits = Limits::default().stream_window(512).max_message(4000).reassembly(5000);
        let mut bench = Bench::new(Side::Acceptor, limits);
        begin(&mut bench, 0, 2000, 20);
        assert_eq!(bench.written(), ["MAX_STREAM"], "the first is always admitted");
        begin(&mut bench, 2, second, 20);
        assert_eq!(bench.written() == ["MAX_STREAM"], admitted, "{second}");
    }
}

/// A piece of an item with the length of the whole in front.
fn first_piece(total: u64, piece: usize) -> Vec<u8> {
    let mut body = Vec::new();
    varint::push(total, &mut body);
    body.resize(body.len() + piece, 0);
    body
}

#[test]
fn a_stream_that_nobody_reads_holds_its_window_and_one_large_message() {
    let mut bench = Bench::new(Side::Acceptor, Limits::default().stream_window(512).max_message(4000));
    let key = key_of(bench.open(0, flag::EOM, b""));
    let other = key_of(bench.open(2, flag::EOM, b""));
    // Up to the window in small items, and a large one whose first piece takes the last bytes of it.
    assert_eq!(bench.data(0, flag::EOM, &[0; 464]), Ok(Some(SessionEvent::Readable(key))));
    assert_eq!(bench.data(0, 0, &first_piece(4000, 30)), Ok(None));
    assert_eq!(bench.data(0, 0, &[0; 3000]), Ok(None));
    assert_eq!(bench.data(0, flag::EOM, &[0; 970]), Ok(Some(SessionEvent::Readable(key))));
    bench.written();
    // 16 bytes are left, for a last piece that is shorter: enough for a first piece that is too short to be allowed.
    assert_eq!(bench.data(0, 0, &first_piece(4000, 14)), Ok(Some(SessionEvent::Cancelled(key))));
    assert_eq!(bench.written(), ["CANCEL", "RESET FLOW"]);
    assert_eq!(bench.data(2, flag::EOM, b"x"), Ok(Some(SessionEvent::Readable(other))), "the session goes on");
}

#[test]
fn the_longest_deadline_is_granted_and_a_longer_one_cut() {
    for (asked, granted) in [(999, 999), (1000, 1000), (1001, 1000)] {
        let mut bench = Bench::new(Side::Acceptor, Limits::default().max_deadline(Duration::from_secs(1)));
        let mut head = exchange_head(kind::OPEN, WHOLE | flag::EXT, None, Xid(0));
        Open { method: 0, timeout_ms: Some(asked), total: None }.write(&mut head);
        match bench.receive(head, b"") {
            Ok(Some(SessionEvent::Opened { timeout, .. })) => assert_eq!(timeout, Some(Duration::from_millis(granted))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_weight_is_granted_as_far_as_the_limit_goes() {
    for (wish, granted) in [(1, 1), (63, 63), (64, 64), (65, 64), (256, 64)] {
        let mut bench = Bench::new(Side::Acceptor, Limits::default());
        bench.session.weigh_as_wished(wish);
        assert_eq!(bench.session.weight(), granted);
    }
}

/// A default as the document writes it ("4 MiB", "10 s", "1024 of the peer …") as the code shows it.
fn shown(default: &str) -> String {
    let mut words = default.split([' ', ',']);
    let number = words.next().unwrap_or_default().replace('\u{202f}', "");
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("`{default}` begins with no number"));
    match words.next() {
        Some("KiB") => (number << 10).to_string(),
        Some("MiB") => (number << 20).to_string(),
        Some("s") => format!("{:?}", Duration::from_secs(number)),
        Some("and") => format!("{number} and {}", words.next().unwrap_or_default()),
        Some("h") => format!("{:?}", Duration::from_secs(3600 * number)),
        _ => number.to_string(),
    }
}

#[test]
fn answers_that_wait_up_to_the_limit_are_borne_and_one_byte_more_is_noticed() {
    for (size, crowded) in [(99_999, false), (100_000, false), (100_001, true)] {
        // A peer that gives no more than its windows, which are full with the first piece.
        let mut bench = Bench::new(Side::Acceptor, Limits::default().stream_window(512).session_window(512).unsent(100_000));
        let first = key_of(bench.open(0, WHOLE, &[0; 16]));
        bench.session.answer_now(first, vec![1; 512].into(), false, &mut bench.out);
        bench.written();
        assert!(!bench.session.is_crowded(), "what is written does not wait");
        let keys = [(2, 40_000), (4, size - 40_000)].map(|(xid, part)| {
            let key = key_of(bench.open(xid, WHOLE, &[0; 16]));
            bench.session.answer_now(key, vec![1; part].into(), false, &mut bench.out);
            key
        });
        assert_eq!(bench.session.is_crowded(), crowded, "{size}");
        // Where less may wait, so it is at once; and when it does not any more, that is seen.
        bench.session.bound_unsent(50_000);
        assert!(bench.session.is_crowded());
        bench.session.reset(keys[0], Reason::new(Code::INTERNAL, ""));
        assert!(bench.session.is_crowded());
        bench.session.reset(keys[1], Reason::new(Code::INTERNAL, ""));
        assert!(!bench.session.is_crowded());
    }
}

#[test]
fn the_documents_table_has_every_limit_with_its_default() {
    let section = include_str!("../../docs/PROTOCOL.md").split("\n## ").find(|section| section.starts_with("10 Limits"));
    let rows = section.expect("§10 is there").lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let default = shown(cells.next()?);
        assert!(cells.clone().count() >= 3, "`{name}`: reason, what happens beyond it, and where it is tested");
        Some((name, default))
    });
    let documented: BTreeMap<String, String> = rows.collect();
    let debug = format!("{:#?}", Limits::default());
    let field = |line: &str| line.trim().trim_end_matches(',').split_once(": ").map(|(name, value)| (name.into(), value.into()));
    let coded: BTreeMap<String, String> = debug.lines().filter_map(field).collect();
    assert_eq!(documented, coded);
}
