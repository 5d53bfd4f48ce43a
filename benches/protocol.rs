//! What does the protocol cost by itself: two sessions, two connections and two outboxes, and no socket, task, lock or codec
//! between them? A call is four frames' worth of work: written and read on each side. `-- --list` names the cases; for
//! instructions run it under callgrind.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rpc_core::id::{ExchangeKey, Sid, Side};
use rpc_core::pool;
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{Answer, AnswerKind, Batch, Input, Items, Limits, Link, OpenCommand, Outbox, Session, SessionEvent, Time};
use rpc_core::wire::frame::{Frame, Mode};

/// One end of a session.
struct End {
    session: Session<()>,
    out: Outbox,
    output: Output,
    input: Input,
}

impl End {
    fn new(side: Side) -> Self {
        // Credit of the connection is its driver's affair, and places are granted by halves: neither is what this is about.
        let limits = Limits::default().connection_window(1 << 40).exchanges(1 << 20);
        let mut session = Session::new(side, limits.session());
        session.granted(limits.windows());
        session.attach(Link { slot: SessionSlot(0), sid: Some(Sid(0)) });
        let mut out = Outbox::new(limits.connection_window);
        out.open(limits.max_frame, limits.connection_window);
        Self { session, out, output: Output::default(), input: Input::new(1 << 20) }
    }

    /// What this end has to say becomes what the other one hears.
    fn deliver(&mut self, to: &mut Self) {
        while !self.out.is_quiet() {
            self.output.clear();
            while let Some((_, lane)) = self.out.next_session() {
                self.session.transmit(lane, &mut self.out);
            }
            self.out.swap(&mut self.output);
            let input = &mut to.input;
            self.output.slices(0, usize::MAX, |mut slice| {
                while !slice.is_empty() {
                    let space = input.space();
                    let n = space.len().min(slice.len());
                    space[..n].copy_from_slice(&slice[..n]);
                    input.advance(n);
                    slice = &slice[n..];
                }
            });
        }
    }

    /// Hands over what was heard.
    fn frames(&mut self, mut each: impl FnMut(&mut Session<()>, &mut Outbox, &Frame<'_>)) {
        while let Some(raw) = self.input.next_frame(1 << 24).expect("frames are sound") {
            let frame = Frame::read(raw, Mode::Multi).expect("frames are sound");
            each(&mut self.session, &mut self.out, &frame);
            self.session.flush(&mut self.out);
        }
    }

    /// Handles what was heard.
    fn handle(&mut self, mut each: impl FnMut(&mut Session<()>, &mut Outbox, SessionEvent)) {
        self.frames(|session, out, frame| {
            if let Some(event) = event(session, frame) {
                each(session, out, event);
            }
        });
    }
}

fn event(session: &mut Session<()>, frame: &Frame<'_>) -> Option<SessionEvent> {
    session.handle_frame(frame, Time::default(), || ()).expect("the peer keeps the rules")
}

fn command(body: &[u8], answer: AnswerKind) -> OpenCommand {
    OpenCommand { method: 0, timeout: None, body: body.to_vec().into(), more: false, answer }
}

/// `in_flight` calls of 64 bytes there and back: as drivers handle them, where they are `plain`, or as any frame is handled.
fn calls(client: &mut End, server: &mut End, in_flight: usize, plain: bool) {
    let open = |_| client.session.open_now(command(&[7; 64], AnswerKind::One), (), &mut client.out).expect("there is room");
    let mut calls: Vec<ExchangeKey> = (0..in_flight).map(open).collect();
    client.deliver(server);
    server.frames(|session, out, frame| {
        if plain && let Some((fresh, args)) = session.receive_call(frame, Time::default()) {
            session.answer_fresh(fresh, None, pool::copy(args).into(), false, out);
            return;
        }
        match event(session, frame) {
            Some(SessionEvent::Opened { key, body, .. }) => session.answer_now(key, body.into(), false, out),
            // Credit.
            None => {}
            other => panic!("{other:?}"),
        }
    });
    server.deliver(client);
    // In the order in which they were asked for.
    calls.reverse();
    client.frames(|session, _, frame| {
        if !plain || session.receive_answer(frame).is_none() {
            match event(session, frame) {
                Some(SessionEvent::Readable(_)) => {}
                None => return,
                other => panic!("{other:?}"),
            }
        }
        let Answer::Message(bytes) = session.take_answer(calls.pop().expect("it was asked for")) else { panic!("it is there") };
        pool::give(black_box(bytes));
    });
    assert_eq!(calls, []);
}

/// A stream that stays open.
fn stream(client: &mut End, server: &mut End) -> (ExchangeKey, ExchangeKey) {
    let down = client.session.open_now(command(b"", AnswerKind::Many), (), &mut client.out).expect("there is room");
    client.deliver(server);
    let mut up = None;
    server.handle(|session, _, event| {
        if let SessionEvent::Opened { key, .. } = event {
            session.accept(key);
            up = Some(key);
        }
    });
    server.deliver(client);
    client.handle(|_, _, _| {});
    (down, up.expect("the call arrived"))
}

/// `count` items of 64 bytes.
fn items(client: &mut End, server: &mut End, (down, up): (ExchangeKey, ExchangeKey), count: usize) {
    let mut batch = Batch::new();
    (0..count).for_each(|_| batch.push(&[7; 64]));
    server.session.send(up, &mut batch, false);
    server.session.flush(&mut server.out);
    server.deliver(client);
    client.handle(|_, _, _| {});
    let mut taken = Batch::new();
    assert_eq!(client.session.take_items(down, &mut taken), Items::Ready);
    let mut n = 0;
    while let Some(item) = taken.front() {
        black_box(item);
        taken.pop();
        n += 1;
    }
    assert_eq!(n, count);
    assert_eq!(client.session.take_items(down, &mut taken), Items::Pending);
    client.session.flush(&mut client.out);
    client.deliver(server);
    server.handle(|_, _, _| {});
}

fn protocol(c: &mut Criterion) {
    let mut group = c.benchmark_group("protocol");
    for in_flight in [1, 64, 1024] {
        let (mut client, mut server) = (End::new(Side::Initiator), End::new(Side::Acceptor));
        group.throughput(Throughput::Elements(in_flight as u64));
        for (way, plain) in [("", true), (", as any frames", false)] {
            group.bench_function(format!("{in_flight} calls of 64 bytes{way}"), |b| {
                b.iter(|| calls(&mut client, &mut server, in_flight, plain));
            });
        }
    }
    for count in [1, 100, 1000] {
        let (mut client, mut server) = (End::new(Side::Initiator), End::new(Side::Acceptor));
        let keys = stream(&mut client, &mut server);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} items of 64 bytes"), |b| {
            b.iter(|| items(&mut client, &mut server, keys, count));
        });
    }
}

criterion_group!(benches, protocol);
criterion_main!(benches);
