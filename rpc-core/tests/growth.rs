//! Windows that grow (docs/PROTOCOL.md §7.5): a reader that keeps pace, at the end of a long path, and the sender on it.

#[expect(dead_code, reason = "other tests use more of it")]
mod bench;
mod greeting;

use std::collections::VecDeque;
use std::time::Duration;

use bench::{Bench, key_of};
use greeting::{greeting, hello};
use proptest::prelude::*;
use rpc_core::id::{ExchangeKey, Side, Xid};
use rpc_core::proto::outbox::Output;
use rpc_core::proto::{AnswerKind, Connection, Handshake, Input, Items, Limits, Outbox, Time};
use rpc_core::wire::frame::{Frame, Mode, exchange_head, flag, kind};
use rpc_core::wire::{HeadBuf, varint};

const ITEM: usize = 100;
const WAY: Duration = Duration::from_millis(25);

/// A session that receives one stream over a path of `2 * WAY`, from a sender that uses up all that it may.
struct Path {
    bench: Bench,
    stream: ExchangeKey,
    /// What the sender knows it may send, on the stream and in the session.
    known: [u64; 2],
    sent: u64,
    /// What is on its way, and when it arrives: items to here, maxima to the sender.
    items: VecDeque<Time>,
    /// The time, in milliseconds.
    clock: u64,
    maxima: VecDeque<(Time, usize, u64)>,
}

impl Path {
    fn new(limits: Limits, room: u64, round: Option<Duration>) -> Self {
        let known = [limits.stream_window, limits.session_window];
        let mut bench = Bench::new(Side::Acceptor, limits);
        bench.out.growth().allow(room);
        if let Some(round) = round {
            bench.out.growth().note_round(round);
        }
        let stream = key_of(bench.open(0, flag::EOM, b""));
        Self { bench, stream, known, sent: 16, items: VecDeque::new(), maxima: VecDeque::new(), clock: 1000 }
    }

    /// A sender that sends all it may, at most `rate` items a millisecond; a reader that takes what it gets. How many items
    /// came in a round of the second half of `rounds`.
    fn run(&mut self, rounds: u64, rate: u64) -> u64 {
        let mut came = 0;
        for ms in 0..rounds * 50 {
            self.clock += 1;
            let now = Time::from_micros(self.clock * 1000);
            while self.maxima.front().is_some_and(|(at, ..)| *at <= now) {
                let Some((_, level, max)) = self.maxima.pop_front() else { break };
                self.known[level] = self.known[level].max(max);
            }
            for _ in 0..rate {
                if self.sent + ITEM as u64 > self.known[0].min(self.known[1]) {
                    break;
                }
                self.sent += ITEM as u64;
                self.items.push_back(now.after(WAY));
            }
            while self.items.front().is_some_and(|at| *at <= now) {
                self.items.pop_front();
                self.bench.now = now;
                self.bench.data(0, flag::EOM, &[1; ITEM]).expect("it is within the credit");
                came += u64::from(ms >= rounds * 25);
            }
            self.read();
            self.bench.out.growth().begin_turn(now);
            for (level, max) in self.announced() {
                self.maxima.push_back((now.after(WAY), level, max));
            }
        }
        came * 2 / rounds
    }

    fn read(&mut self) {
        let mut items = rpc_core::proto::Batch::new();
        // The second look is where the reader is done with the batch of the first.
        for _ in 0..2 {
            let state = self.bench.session.take_items(self.stream, &mut items);
            assert!(matches!(state, Items::Ready | Items::Pending), "{state:?}");
        }
        self.bench.session.flush(&mut self.bench.out);
    }

    fn announced(&mut self) -> Vec<(usize, u64)> {
        while let Some((_, lane)) = self.bench.out.next_session() {
            self.bench.session.transmit(lane, &mut self.bench.out);
        }
        let mut maxima = Vec::new();
        frames(&mut self.bench.out, |frame| {
            let level = match frame.kind {
                kind::MAX_STREAM => 0,
                kind::MAX_SESSION => 1,
                _ => return,
            };
            maxima.push((level, varint::read(&mut &frame.body[..], "a maximum").unwrap()));
        });
        maxima
    }

    /// By how much the windows have grown, which is all that is held: the reader leaves nothing behind.
    fn growth(&self) -> u64 {
        self.bench.session.footprint()
    }
}

fn frames(out: &mut Outbox, mut each: impl FnMut(&Frame<'_>)) {
    let mut output = Output::default();
    out.swap(&mut output);
    let mut bytes = Vec::new();
    output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
    let mut input = Input::new(bytes.len().max(8));
    input.space()[..bytes.len()].copy_from_slice(&bytes);
    input.advance(bytes.len());
    while let Some(raw) = input.next_frame(1 << 24).unwrap() {
        each(&Frame::read(raw, Mode::Single).unwrap());
    }
}

fn limits() -> Limits {
    Limits::default().stream_window(2000).session_window(4000).max_stream_window(64_000).max_session_window(128_000)
}

#[test]
fn a_window_that_holds_its_sender_up_grows_until_it_does_not_any_more() {
    let round = 2 * WAY;
    let mut fixed = Path::new(limits(), 0, Some(round));
    let items = fixed.run(40, 10);
    assert!(items <= 20, "a window a round, and no more: {items}");
    assert_eq!(fixed.growth(), 0);
    let limits = limits().max_stream_window(1 << 20).max_session_window(1 << 20);
    let mut grows = Path::new(limits, u64::MAX, Some(round));
    let items = grows.run(40, 10);
    assert!(items >= 490, "ten items in each of 50 ms are what the sender has to say: {items}");
    // A round has 50,000 bytes, and a window of which half lasts for longer does not grow.
    assert!(grows.growth() <= 200_000, "{}", grows.growth());
}

#[test]
fn a_window_grows_to_its_limit_and_not_a_byte_further() {
    for most in [15_999, 16_000, 16_001] {
        let mut path = Path::new(limits().session_window(1 << 20).max_stream_window(most), u64::MAX, Some(2 * WAY));
        let items = path.run(40, 1000);
        assert_eq!(path.growth(), most - 2000, "what it has grown by");
        assert!(items <= most / ITEM as u64 && items >= most / ITEM as u64 * 9 / 10, "{items} items of {most} bytes");
    }
}

#[test]
fn the_window_of_a_session_grows_likewise() {
    for most in [15_999, 16_000, 16_001] {
        let limits = limits().stream_window(1 << 20).session_window(2000).max_session_window(most);
        let mut path = Path::new(limits, u64::MAX, Some(2 * WAY));
        let items = path.run(40, 1000);
        assert_eq!(path.growth(), most - 2000);
        assert!(items <= most / ITEM as u64 && items >= most / ITEM as u64 * 9 / 10, "{items} items of {most} bytes");
    }
}

#[test]
fn the_window_of_a_connection_grows_likewise() {
    for most in [15_999, 16_000, 16_001] {
        let mut out = Outbox::new(2000);
        out.open(1 << 20, 1 << 20);
        out.grow_to(most);
        out.growth().allow(u64::MAX);
        out.growth().note_round(2 * WAY);
        let (mut received, mut window) = (0, 0);
        // A thousand bytes each ms, as far as they may be sent.
        for ms in 1..1000 {
            out.growth().begin_turn(Time::from_micros(ms * 1000));
            received = out.grant().max().min(received + 1000);
            out.note_received(received);
            out.swap(&mut Output::default());
            window = window.max(out.grant().max() - received);
        }
        assert_eq!(window, most);
    }
}

#[test]
fn a_window_that_was_given_larger_than_it_may_grow_stays_as_it_is() {
    let mut path = Path::new(limits().max_stream_window(512).max_session_window(512), u64::MAX, Some(2 * WAY));
    path.run(40, 1000);
    assert_eq!((path.growth(), path.bench.out.growth().take_wanted()), (0, 0));
}

#[test]
fn the_handshake_measures_a_first_round_where_it_has_one() {
    let hello = |mode| Handshake { side: Side::Initiator, mode, modes: vec![mode], codecs: vec![1] };
    for (mode, measured) in [(Mode::Multi, Some(Duration::from_millis(20))), (Mode::Single, None)] {
        let limits = Limits::default();
        let at = |ms: u64| Time::from_micros(ms * 1000);
        let mut ends = [hello(mode), Handshake { side: Side::Acceptor, ..hello(mode) }].map(|handshake| {
            let connection = Connection::new(handshake, limits.clone(), at(0));
            (connection, Outbox::new(limits.connection_window), Input::new(1 << 12))
        });
        // HELLO arrives at 10, HELLO_ACK at 20, and what comes next, here a PING, at 30.
        for (from, now) in [(0, at(10)), (1, at(20)), (0, at(30))] {
            let (connection, out, _) = &mut ends[from];
            if now == at(30) {
                connection.handle_timeout(connection.next_timeout()).unwrap();
            }
            connection.flush(out);
            let mut output = Output::default();
            connection.take_batch(out, &mut output);
            let bytes = output.single().unwrap().to_vec();
            let (connection, out, input) = &mut ends[1 - from];
            feed(input, &bytes);
            connection.heard(now);
            while connection.next_event(now, input).unwrap().is_some() {}
            connection.flush(out);
        }
        let [(_, client, _), (_, server, _)] = &mut ends;
        assert_eq!(client.growth().round(), Some(Duration::from_millis(20)), "{mode:?}");
        assert_eq!(server.growth().round(), measured, "{mode:?}");
    }
}

#[test]
fn a_ping_in_silence_measures_the_path_as_it_is_now() {
    let (mut connection, mut out, mut input) = connection();
    out.growth().note_round(Duration::from_millis(5));
    let silent = connection.next_timeout();
    connection.handle_timeout(silent).unwrap();
    let sent = pings(&mut connection, &mut out);
    assert_eq!(sent.len(), 1);
    pong(&mut connection, &mut out, &mut input, &sent[0], silent.after(Duration::from_millis(70)));
    assert_eq!(out.growth().round(), Some(Duration::from_millis(70)));
}

#[test]
fn windows_grow_by_the_room_there_is_and_what_is_missing_is_known() {
    let mut path = Path::new(limits(), 2000, Some(2 * WAY));
    path.run(40, 1000);
    assert_eq!((path.growth(), path.bench.out.growth().room()), (2000, 0));
    assert!(path.bench.out.growth().take_wanted() >= 4000);
}

#[test]
fn a_sender_that_is_slow_by_itself_is_given_no_more() {
    // One item each 6.25 ms: 800 bytes in a round, and a window holds 2000.
    let mut path = Path::new(limits(), u64::MAX, Some(2 * WAY));
    for ms in (0..2000).step_by(6) {
        let now = Time::from_micros(1_000_000 + ms * 1000);
        path.bench.now = now;
        path.bench.data(0, flag::EOM, &[1; ITEM]).unwrap();
        path.read();
        path.bench.out.growth().begin_turn(now);
        path.announced();
    }
    assert_eq!(path.growth(), 0);
}

#[test]
fn without_a_round_that_was_measured_nothing_grows_and_somebody_asks() {
    let mut path = Path::new(limits(), u64::MAX, None);
    path.run(10, 1000);
    assert_eq!(path.growth(), 0);
    assert!(path.bench.out.growth().take_curiosity());
}

#[test]
fn what_a_stream_has_grown_by_counts_until_it_is_over_and_a_session_stays_awake_for_it() {
    let mut path = Path::new(limits(), u64::MAX, Some(2 * WAY));
    path.run(40, 1000);
    assert!(path.growth() >= 62_000);
    path.bench.data(0, flag::END, b"").unwrap();
    let of_the_session = path.growth();
    assert!((64_000..=124_000).contains(&of_the_session), "{of_the_session}");
    path.bench.session.answer(path.stream, vec![1].into(), false);
    path.bench.session.handler_done(path.stream);
    path.bench.session.release(path.stream);
    path.bench.session.flush(&mut path.bench.out);
    path.announced();
    assert_eq!(path.bench.session.rest(&[], Time::from_micros(1 << 40)), None, "its window is larger than a new one's");
}

/// An open connection of a server, and the bytes that a client sends it.
fn connection() -> (Connection, Outbox, Input) {
    let limits = Limits::default();
    let handshake =
        Handshake { side: Side::Acceptor, mode: Mode::Multi, modes: vec![Mode::Single, Mode::Multi], codecs: vec![1] };
    let mut out = Outbox::new(limits.connection_window);
    let mut connection = Connection::new(handshake, limits, Time::default());
    let mut input = Input::new(1 << 16);
    feed(&mut input, &greeting(&hello(Mode::Single)));
    while connection.next_event(Time::default(), &mut input).unwrap().is_some() {}
    connection.flush(&mut out);
    out.swap(&mut Output::default());
    (connection, out, input)
}

fn feed(input: &mut Input, bytes: &[u8]) {
    input.space()[..bytes.len()].copy_from_slice(bytes);
    input.advance(bytes.len());
}

fn pong(connection: &mut Connection, out: &mut Outbox, input: &mut Input, token: &[u8], now: Time) {
    feed(input, HeadBuf::new(kind::PONG, 0).finish(token.len()));
    feed(input, token);
    while connection.next_event(now, input).unwrap().is_some() {}
    out.growth().begin_turn(now);
    connection.flush(out);
}

/// The tokens of the PINGs that are written.
fn pings(connection: &mut Connection, out: &mut Outbox) -> Vec<Vec<u8>> {
    connection.flush(out);
    let mut output = Output::default();
    out.swap(&mut output);
    let bytes = output.single().unwrap_or_default().to_vec();
    let mut input = Input::new(bytes.len().max(8));
    feed(&mut input, &bytes);
    let mut tokens = Vec::new();
    while let Some(raw) = input.next_frame(1 << 24).unwrap() {
        tokens.extend((raw.kind == kind::PING).then(|| raw.rest.to_vec()));
    }
    tokens
}

#[test]
fn a_round_is_measured_by_the_ping_that_was_sent_for_it_and_by_no_other() {
    let (mut connection, mut out, mut input) = connection();
    let at = |ms: u64| Time::from_micros(ms * 1000);
    let mut path = Path::new(limits(), u64::MAX, None);
    // Somebody's window is announced.
    path.run(4, 1000);
    std::mem::swap(path.bench.out.growth(), out.growth());
    out.growth().begin_turn(at(1000));
    let sent = pings(&mut connection, &mut out);
    assert_eq!(sent.len(), 1);
    assert_eq!(pings(&mut connection, &mut out).len(), 0, "one at a time");
    pong(&mut connection, &mut out, &mut input, &[7; 8], at(1001));
    pong(&mut connection, &mut out, &mut input, b"", at(1001));
    assert_eq!(out.growth().round(), None, "what nobody sent measures nothing");
    pong(&mut connection, &mut out, &mut input, &sent[0], at(1030));
    assert_eq!(out.growth().round(), Some(Duration::from_millis(30)));
    pong(&mut connection, &mut out, &mut input, &sent[0], at(1031));
    assert_eq!(out.growth().round(), Some(Duration::from_millis(30)), "once");
}

proptest! {
    /// F1 and F2 with windows that grow: a sender within its credit is never refused, whatever the times, rates and room.
    #[test]
    fn a_sender_within_its_credit_is_never_refused(
        room in prop_oneof![Just(0), 0..200_000u64, Just(u64::MAX)],
        round in proptest::option::of(1..200u64),
        rates in proptest::collection::vec(0..300u64, 1..20),
        stream in 600..5000u64,
        session in 600..9000u64,
    ) {
        let limits = limits().stream_window(stream).session_window(session);
        let (most, all) = (limits.max_stream_window.max(stream), limits.max_session_window.max(session));
        let mut path = Path::new(limits, room, round.map(Duration::from_millis));
        for rate in rates {
            path.run(1, rate);
            prop_assert!(path.growth() <= (most - stream).max(all - session));
        }
        let grown = path.growth();
        prop_assert!(grown <= room, "{grown} bytes of {room}");
    }
}

#[test]
fn windows_are_as_at_first_once_the_path_turns_out_to_be_short() {
    let mut path = Path::new(limits(), u64::MAX, Some(2 * WAY));
    path.run(40, 1000);
    assert!(path.growth() >= 62_000);
    path.bench.out.growth().note_round(Duration::from_micros(300));
    path.run(4, 1000);
    assert_eq!(path.growth(), 0);
    let items = path.run(40, 10);
    assert!((9..=20).contains(&items), "a window of 2000 bytes in each of the rounds, which are as long as before: {items}");
}

#[test]
fn answers_in_items_grow_their_windows_as_arguments_do() {
    let mut bench = Bench::new(Side::Initiator, limits());
    bench.out.growth().allow(u64::MAX);
    bench.out.growth().note_round(2 * WAY);
    let stream = bench.call(AnswerKind::Many, false);
    bench.written();
    bench.receive(exchange_head(kind::ACCEPT, 0, None, Xid(0)), b"").unwrap();
    let mut items = rpc_core::proto::Batch::new();
    for _ in 0..200 {
        bench.data(0, flag::EOM, &[1; ITEM]).unwrap();
        for _ in 0..2 {
            bench.session.take_items(stream, &mut items);
        }
        bench.session.flush(&mut bench.out);
        bench.written();
    }
    assert_eq!(bench.session.footprint(), 30_000, "five times twice as much is what 200 items were worth");
}
