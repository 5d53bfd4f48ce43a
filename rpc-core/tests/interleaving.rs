//! A large message never holds up a small one: counted in bytes between the moment at which the small one is asked for and
//! its last byte in the output.

use rpc_core::id::{Sid, Side};
use rpc_core::proto::outbox::{BATCH, BULK, Output, QUANTUM, SessionSlot};
use rpc_core::proto::{AnswerKind, Limits, Link, OpenCommand, Outbox, Session};

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
