//! A large message never holds up a small one, nor a light session a heavy one: counted in bytes between the moment at which the small one is asked for and
//! its last byte in the output.

use rpc_core::id::{ExchangeKey, Sid, Side};
use rpc_core::proto::outbox::{BATCH, BULK, Lane, Output, QUANTUM, SessionSlot};
use rpc_core::proto::{AnswerKind, Extras, Limits, Link, OpenCommand, Outbox, Session};

/// The peer's longest frame, and so the longest piece of a message that has the connection alone.
const FRAME: usize = 256 * 1024;

struct Scene {
    out: Outbox,
    sessions: Vec<Session<()>>,
    output: Output,
}

impl Scene {
    fn new(sessions: u32) -> Self {
        let mut limits = Limits::default();
        // Credit is not what this is about.
        (limits.stream_window, limits.session_window, limits.connection_window) = (1 << 30, 1 << 30, 1 << 30);
        let mut out = Outbox::new(limits.connection_window);
        out.open(FRAME as u32, limits.connection_window);
        let session = |slot: u32| {
            let mut session = Session::new(Side::Initiator, limits.session());
            session.granted(limits.windows());
            session.attach(Link { slot: SessionSlot(slot), sid: Some(Sid(u64::from(slot) * 2)) });
            session
        };
        Self { out, sessions: (0..sessions).map(session).collect(), output: Output::default() }
    }

    fn call(&mut self, session: usize, size: usize) {
        let command = OpenCommand { method: 0, timeout: None, body: vec![7; size].into(), more: false, answer: AnswerKind::One };
        self.sessions[session].open_now(command, (), &mut self.out).unwrap();
    }

    /// The same with an urgency.
    fn call_at(&mut self, session: usize, size: usize, urgency: u8) -> ExchangeKey {
        let command = OpenCommand { method: 0, timeout: None, body: vec![7; size].into(), more: false, answer: AnswerKind::One };
        let extras = Extras { urgency, metadata: None };
        self.sessions[session].open_with(command, extras, (), &mut self.out).unwrap()
    }

    /// One batch, as a driver takes it; its length.
    fn batch(&mut self) -> usize {
        self.output.clear();
        while let Some((slot, lane)) = self.out.next_session() {
            self.sessions[slot.0 as usize].transmit(lane, &mut self.out);
        }
        self.out.swap(&mut self.output);
        self.output.len()
    }

    /// Whether nothing of a session's calls is left to write.
    fn is_written(&self, session: usize) -> bool {
        let (sent, _) = self.sessions[session].counts();
        sent > 0
    }
}

#[test]
fn a_small_call_waits_for_no_more_than_the_batch_under_way() {
    let mut scene = Scene::new(2);
    scene.call(0, 4 << 20);
    for _ in 0..4 {
        scene.batch();
    }
    // The large message has the connection alone, and its batches are as long as they get. Now somebody else comes.
    scene.call(1, 64);
    let mut waited = 0;
    while !scene.is_written(1) {
        waited += scene.batch();
    }
    assert!(waited <= BULK + QUANTUM + 200, "{waited} bytes went first");
}

#[test]
fn under_competition_a_small_call_waits_for_a_quantum_of_each_session() {
    let mut scene = Scene::new(9);
    for session in 0..8 {
        scene.call(session, 4 << 20);
    }
    scene.batch();
    scene.batch();
    scene.call(8, 64);
    let mut waited = 0;
    while !scene.is_written(8) {
        waited += scene.batch();
    }
    // A batch that was full when it came, and then a turn of each of the others.
    assert!(waited <= 2 * (BATCH + QUANTUM) + 8 * QUANTUM, "{waited} bytes went first");
}

#[test]
fn calls_of_one_session_share_it_too() {
    let mut scene = Scene::new(1);
    for _ in 0..4 {
        scene.call(0, 4 << 20);
    }
    scene.batch();
    let before = scene.sessions[0].live();
    scene.call(0, 64);
    // 16 MiB are queued. The small one is written whole within a turn of each, whatever is left of them.
    let mut waited = 0;
    loop {
        let batch = scene.batch();
        let mut bytes = Vec::new();
        scene.output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        // An OPEN of 64 bytes and two ids, as a whole: EOM and END.
        let small = |head: &[u8]| head[0] == 0xA0 && head[1] < 80 && head[2..4] == [0, 0] && head[4] == 3;
        if let Some(at) = bytes.windows(5).position(small) {
            waited += at;
            break;
        }
        waited += batch;
    }
    assert_eq!(before + 1, scene.sessions[0].live());
    // The batch that was under way; then it goes first.
    assert!(waited <= BULK + FRAME, "{waited} bytes went first");
}

#[test]
fn what_is_expedited_waits_for_the_batch_under_way_alone() {
    let mut scene = Scene::new(9);
    for session in 0..8 {
        scene.call(session, 4 << 20);
    }
    // Its own large message has used its share up.
    scene.call(8, 4 << 20);
    (0..20).for_each(|_| {
        scene.batch();
    });
    let sent = scene.sessions[8].sent();
    scene.call_at(8, 1024, 0);
    let under_way = scene.batch();
    assert!(under_way <= BATCH + QUANTUM + 100, "{under_way}");
    let mut bytes = Vec::new();
    scene.output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
    if scene.sessions[8].sent() == sent || !starts_with_small_call(&bytes) {
        scene.batch();
        bytes.clear();
        scene.output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        assert!(starts_with_small_call(&bytes), "the next batch begins with it");
    }
}

/// An OPEN with an urgency, of not much more than 1 KiB.
fn starts_with_small_call(bytes: &[u8]) -> bool {
    bytes[0] == 0xA0 && u32::from_le_bytes([bytes[1], bytes[2], bytes[3], 0]) < 1100 && bytes[4] == 0x13
}

#[test]
fn a_message_over_the_limit_is_not_expedited() {
    let mut scene = Scene::new(2);
    scene.call(0, 4 << 20);
    scene.batch();
    scene.call_at(1, 1025, 0);
    assert_eq!(scene.out.next_session().map(|(slot, lane)| (slot.0, lane)), Some((0, Lane::Data)));
    assert_eq!(scene.out.next_session().map(|(slot, lane)| (slot.0, lane)), Some((1, Lane::Data)));
}

#[test]
fn a_peer_that_makes_everything_urgent_gets_its_share_and_no_more() {
    let mut scene = Scene::new(2);
    // The most that a peer can claim, against a session that asks for nothing.
    scene.sessions[0].weigh_as_wished(256);
    assert_eq!(scene.sessions[0].weight(), 64);
    scene.call(1, 4 << 20);
    scene.call(1, 4 << 20);
    let (mut from, mut calls) = ((0, 0), 0);
    for turn in 0..60 {
        while calls < 40 * (turn + 2) {
            scene.call_at(0, if calls % 8 == 0 { 1 << 19 } else { 1000 }, 0);
            calls += 1;
        }
        scene.batch();
        if turn == 10 {
            from = (scene.sessions[0].sent(), scene.sessions[1].sent());
        }
    }
    let shares = (scene.sessions[0].sent() - from.0) as f64 / 65536.0 - (scene.sessions[1].sent() - from.1) as f64 / 16384.0;
    let over = (QUANTUM + 1100) as f64;
    assert!(shares.abs() <= 3.0 + over / 65536.0 + over / 16384.0, "{shares} shares apart");
    assert!(scene.sessions[1].sent() - from.1 > 1 << 19, "the other one has sent its part");
}

#[test]
fn the_least_urgent_are_served_while_the_most_urgent_never_end() {
    let mut scene = Scene::new(1);
    let low = scene.call_at(0, 200_000, 7);
    let mut before = scene.sessions[0].sent();
    for _ in 0..400 {
        // There is always more of what is more urgent, some of it expedited.
        (0..3).for_each(|_| {
            scene.call_at(0, 100_000, 1);
        });
        (0..10).for_each(|_| {
            scene.call_at(0, 900, 0);
        });
        scene.batch();
        if scene.sessions[0].release_sent(low) == Ok(true) {
            before = scene.sessions[0].sent() - before;
            // Thirteen pieces, each behind eighteen quanta of two urgencies that go first.
            assert!(before <= 13 * 2 * 18 * QUANTUM as u64 + BULK as u64, "{before} bytes went first");
            return;
        }
    }
    panic!("the least urgent call was never written");
}

/// F5: whatever waits before it, at whatever weight and urgency.
#[test]
fn a_control_frame_waits_for_one_batch_at_most() {
    let mut scene = Scene::new(6);
    for session in 0..5 {
        scene.sessions[session].weigh(256);
        scene.call(session, 4 << 20);
        (0..20).for_each(|_| {
            scene.call_at(session, 1000, 0);
        });
    }
    let dropped = scene.call_at(5, 1 << 20, 3);
    for _ in 0..40 {
        scene.batch();
    }
    // The batch is full when the call is dropped.
    while let Some((slot, lane)) = scene.out.next_session() {
        scene.sessions[slot.0 as usize].transmit(lane, &mut scene.out);
    }
    assert!(scene.out.is_full());
    scene.sessions[5].release(dropped);
    scene.sessions[5].flush(&mut scene.out);
    scene.output.clear();
    scene.out.swap(&mut scene.output);
    scene.batch();
    let mut bytes = Vec::new();
    scene.output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
    assert!(matches!(bytes[0], 0xA2 | 0xA3), "the next batch begins with RESET or CANCEL, not with {:02x}", bytes[0]);
}
