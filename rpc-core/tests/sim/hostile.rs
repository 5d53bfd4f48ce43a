//! A peer that breaks rules: its frames are sound ones of a real end, of which some are changed, dropped, repeated or made
//! up. The honest end runs as a driver runs it, and is held to its bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use rpc_core::id::{ExchangeKey, Side};
use rpc_core::proto::{Answer, AnswerKind, Batch, Input, Items, Limits, OpenCommand, Session, SessionEvent, Time};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Mode, Reason};
use rpc_core::wire::hello::PREFACE;

use crate::node::{Event, Node, SERVED};
use crate::rng::Rng;

/// What happened on the honest side.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) handled: u64,
    /// Sessions that were ended for what the peer did.
    pub(crate) aborted: u64,
    /// Connections likewise.
    pub(crate) closed: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.handled += other.handled;
        self.aborted += other.aborted;
        self.closed += other.closed;
    }

    /// Whether everything happened that is to be contained, and much that is not.
    pub(crate) fn is_telling(&self) -> bool {
        [self.answered, self.failed, self.handled].iter().all(|n| *n > 500) && self.aborted > 20 && self.closed > 20
    }
}

struct Call {
    session: usize,
    key: ExchangeKey,
    answer: AnswerKind,
    streaming: bool,
}

struct Handler {
    session: usize,
    key: ExchangeKey,
    method: u32,
    more: bool,
    one_way: bool,
}

/// The methods: one answers with items.
const ONE: u32 = 0;
const ITEMS: u32 = 1;

/// One end with its applications, which do as they like within the rules.
struct End {
    node: Node,
    calls: Vec<Call>,
    handlers: Vec<Handler>,
    written: usize,
    /// The connection has ended for it.
    over: bool,
    seen: Seen,
}

/// The longest time that a call has.
const LONGEST_CALL: Duration = Duration::from_secs(5);

impl End {
    fn new(side: Side, limits: &Limits) -> Self {
        let mut node = Node::new(side, Mode::Multi, limits.clone(), Time::default());
        node.wary = true;
        Self { node, calls: Vec::new(), handlers: Vec::new(), written: 0, over: false, seen: Seen::default() }
    }

    /// Bytes of the peer.
    fn receive(&mut self, bytes: &[u8], now: Time) {
        if !self.over && self.node.receive(bytes, now, &mut BTreeMap::new()).is_err() {
            self.seen.closed += 1;
            self.lose();
        }
        self.events();
    }

    fn lose(&mut self) {
        self.over = true;
        for attached in self.node.sessions.values_mut() {
            attached.core.fail(Reason::new(rpc_core::code::Code::CLOSED, "the connection is lost"));
        }
    }

    fn events(&mut self) {
        for event in std::mem::take(&mut self.node.events) {
            match event {
                Event::Session(session, SessionEvent::Opened { key, method, more, one_way, .. }) => {
                    self.seen.handled += 1;
                    self.handlers.push(Handler { session, key, method, more, one_way });
                }
                Event::Session(_, SessionEvent::Aborted(_)) => self.seen.aborted += 1,
                Event::Session(..) | Event::Expired(..) => {}
            }
        }
    }

    /// The applications do something.
    fn act(&mut self, rng: &mut Rng) {
        match rng.below(4) {
            0 => self.call(rng),
            1 => self.serve(rng),
            _ if self.calls.is_empty() => {}
            _ => {
                let at = rng.below(self.calls.len());
                self.look(at, rng);
            }
        }
        self.events();
    }

    fn call(&mut self, rng: &mut Rng) {
        let session = rng.below(SERVED);
        let callable = self.node.sessions.get(&session).is_some_and(|there| there.live && there.core.side() == Side::Initiator);
        if !callable || self.calls.len() > 40 {
            return;
        }
        let answer = [AnswerKind::One, AnswerKind::One, AnswerKind::Many, AnswerKind::None][rng.below(4)];
        let more = answer != AnswerKind::None && rng.chance(30);
        let size = if rng.chance(10) { rng.below(20_000) } else { rng.below(200) };
        let timeout = Some(Duration::from_millis(1 + rng.below(LONGEST_CALL.as_millis() as usize) as u64));
        let method = if answer == AnswerKind::Many { ITEMS } else { ONE };
        let command = OpenCommand { method, timeout, body: vec![1; size].into(), more, answer };
        if let Ok(key) = self.node.with_out(session, |core, out| core.open_now(command, 0, out)) {
            self.calls.push(Call { session, key, answer, streaming: false });
        }
    }

    /// A caller looks at its call, sends, or lets go.
    fn look(&mut self, at: usize, rng: &mut Rng) {
        let Call { session, key, .. } = self.calls[at];
        let over = match rng.below(20) {
            0 => {
                self.node.with(session, |core| core.release(key));
                true
            }
            1..=4 => {
                send(self.node.session(session), key, rng);
                self.node.with(session, |_| ());
                false
            }
            _ => self.take(at),
        };
        if over {
            self.calls.swap_remove(at);
        }
    }

    /// Whether the call is over with this.
    fn take(&mut self, at: usize) -> bool {
        let Call { session, key, answer, streaming } = self.calls[at];
        let over = if answer == AnswerKind::None {
            match self.node.with(session, |core| core.release_sent(key)) {
                Ok(false) => return false,
                sent => sent.is_ok(),
            }
        } else if !streaming {
            match self.node.with(session, |core| core.take_answer(key)) {
                Answer::Pending => return false,
                Answer::Stream => {
                    self.calls[at].streaming = true;
                    return false;
                }
                Answer::Message(_) | Answer::AppError(_) => true,
                Answer::Fault(_) => false,
            }
        } else {
            match self.node.with(session, |core| core.take_items(key, &mut Batch::new())) {
                Items::Ready | Items::Pending => return false,
                Items::Ended | Items::AppError(_) => true,
                Items::Fault(_) => false,
            }
        };
        self.node.with(session, |core| core.release(key));
        if over {
            self.seen.answered += 1
        } else {
            self.seen.failed += 1
        }
        true
    }

    /// Some handler does a piece of work.
    fn serve(&mut self, rng: &mut Rng) {
        if self.handlers.is_empty() {
            return;
        }
        let at = rng.below(self.handlers.len());
        let Handler { session, key, method, more, one_way } = self.handlers[at];
        let core = self.node.session(session);
        let done = match rng.below(5) {
            0 if method == ITEMS && !one_way => {
                core.accept(key);
                send(core, key, rng);
                false
            }
            1 if more => {
                core.take_items(key, &mut Batch::new());
                false
            }
            2 if !one_way => {
                // Behind items, or instead of them, there is only an error.
                let is_error = method == ITEMS || rng.chance(20);
                core.answer(key, vec![2; rng.below(3000)].into(), is_error);
                true
            }
            3 => rng.chance(20),
            _ => false,
        };
        self.node.with(session, |core| {
            if done {
                core.handler_done(key)
            }
        });
        if done {
            self.handlers.swap_remove(at);
        }
    }

    /// What holds at any time.
    fn check(&self) -> Result<(), String> {
        let limits = &self.node.limits;
        let most = 4 * (limits.max_frame as usize + 4);
        if self.node.buffer() > most {
            return Err(format!("the read buffer has grown to {}", self.node.buffer()));
        }
        // What one delivery asks for comes on top.
        let owed = self.node.out.owed() + self.node.connection.owed();
        if owed as u64 > limits.owed + 20_000 {
            return Err(format!("X1: {owed} bytes of replies are owed"));
        }
        for (index, attached) in &self.node.sessions {
            let core = &attached.core;
            if core.queued() > 3 * core.live() + 100 {
                return Err(format!("session {index}: {} places are taken for {} exchanges", core.queued(), core.live()));
            }
            if core.held() > limits.session_window {
                return Err(format!("session {index}: {} bytes are held", core.held()));
            }
            let running = self.handlers.iter().filter(|handler| handler.session == *index).count() as u64;
            if running > limits.exchanges {
                return Err(format!("E9: {running} handlers run where {} exchanges are granted", limits.exchanges));
            }
        }
        Ok(())
    }
}

fn send(core: &mut Session<u64>, key: ExchangeKey, rng: &mut Rng) {
    if core.poll_send(key) == Some(true) {
        let (mut batch, last) = (Batch::new(), rng.chance(30));
        for _ in 0..rng.below(5) {
            batch.push(&vec![3; rng.below(2000)]);
        }
        if !batch.is_empty() || last {
            core.send(key, &mut batch, last);
        }
    }
}

/// What the hostile end's frames become.
struct Forger {
    input: Input,
    greeted: bool,
    percent: u64,
}

impl Forger {
    /// Changes some of the frames in what the real end wrote.
    fn forge(&mut self, mut bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
        let mut forged = Vec::new();
        while !bytes.is_empty() {
            let n = self.input.space().len().min(bytes.len());
            self.input.space()[..n].copy_from_slice(&bytes[..n]);
            self.input.advance(n);
            bytes = &bytes[n..];
            if !self.greeted {
                // What comes first is not tampered with: that is `connection_rules.rs`'s.
                let Some(preface) = self.input.take(PREFACE.len()) else { continue };
                forged.extend_from_slice(preface);
                self.greeted = true;
            }
            while let Some(raw) = self.input.next_frame(1 << 24).expect("a real end wrote it") {
                let (mut kind, mut flags, mut body) = (raw.kind, raw.flags, raw.rest.to_vec());
                let handshake = kind <= 0x03;
                let mut times = 1;
                if !handshake && rng.chance(self.percent) {
                    match rng.below(8) {
                        0 => times = 0,
                        1 => times = 2,
                        2 => flags ^= 1 << rng.below(8),
                        3 => kind = rng.next() as u8,
                        4 => body.truncate(rng.below(body.len() + 1)),
                        5 => body.extend((0..rng.below(300)).map(|_| 7)),
                        _ if body.is_empty() => {}
                        _ => {
                            // Ids and lengths stand in front.
                            let near = if rng.chance(70) { body.len().min(8) } else { body.len() };
                            let at = rng.below(near);
                            body[at] = rng.next() as u8;
                        }
                    }
                }
                for _ in 0..times {
                    forged.extend_from_slice(HeadBuf::new(kind, flags).finish(body.len()));
                    forged.extend_from_slice(&body);
                }
            }
        }
        forged
    }
}

/// Runs a seed in which so many of a hundred frames of the hostile end are tampered with.
pub(crate) fn run(seed: u64, percent: u64) -> Result<Seen, String> {
    let mut rng = Rng::new(seed);
    let window = 2048 << rng.below(4);
    let limits = Limits::default().stream_window(window).session_window(4 * window).connection_window(8 * window);
    let limits = limits.max_frame(4096 << rng.below(3)).max_message(30_000).exchanges(1 + rng.below(8) as u64).owed(2000);
    let honest = rng.below(2);
    let mut ends = [End::new(Side::Initiator, &limits), End::new(Side::Acceptor, &limits)];
    let mut pipes = [Vec::new(), Vec::new()];
    let mut forger = Forger { input: Input::new(256), greeted: false, percent };
    let mut now = Time::default();
    let mut to_open: Vec<usize> = (0..SERVED).collect();

    for _ in 0..3000 {
        now = now.after(Duration::from_millis(rng.below(4) as u64));
        for (parity, end) in ends.iter_mut().enumerate() {
            let ready = end.node.connection.is_open() && !end.over;
            if ready && let Some(at) = to_open.iter().position(|index| index % 2 == parity) {
                let index = to_open.swap_remove(at);
                end.node.open(index, Session::new(Side::Initiator, limits.session()), &index.to_string());
            }
        }
        let end = rng.below(2);
        match rng.below(4) {
            0 | 1 => {
                let mut bytes = Vec::new();
                let sender = &mut ends[end];
                if !sender.over || end != honest {
                    sender.node.transmit(now, 1 + rng.below(6000), &mut sender.written, &mut bytes);
                }
                let bytes = if end == honest { bytes } else { forger.forge(&bytes, &mut rng) };
                pipes[end].extend(bytes);
            }
            2 => {
                let receiver = &mut ends[1 - end];
                // As a driver: a peer that takes no replies is not read.
                if (receiver.node.out.owed() + receiver.node.connection.owed()) as u64 <= limits.owed {
                    let n = rng.below(pipes[end].len().min(500) + 1);
                    let bytes: Vec<u8> = pipes[end].drain(..n).collect();
                    receiver.receive(&bytes, now);
                }
            }
            _ => {
                ends[end].act(&mut rng);
                ends[end].node.tick(now);
                ends[end].events();
            }
        }
        ends[honest].check()?;
    }

    let end = &mut ends[honest];
    // The hostile end says just enough to live: each call has its deadline.
    let after = now.after(LONGEST_CALL);
    while now < after {
        now = now.after(Duration::from_millis(500));
        if !end.over {
            end.node.connection.heard(now);
            end.node.tick(now);
        }
    }
    all_over(end, "its deadline")?;
    // Silence ends the connection.
    for _ in 0..4 {
        now = now.after(end.node.connection.next_timeout().since(now));
        if !end.over && end.node.connection.handle_timeout(now).is_err() {
            end.lose();
        }
    }
    if !end.over {
        return Err("a silent peer is waited for".into());
    }
    for Handler { session, key, .. } in std::mem::take(&mut end.handlers) {
        end.node.session(session).handler_done(key);
    }
    for (index, attached) in &end.node.sessions {
        if attached.core.live() != 0 {
            return Err(format!("session {index}: {} exchanges are left", attached.core.live()));
        }
    }
    Ok(std::mem::take(&mut ends[honest].seen))
}

/// Each call has an outcome to take.
fn all_over(end: &mut End, by: &str) -> Result<(), String> {
    while !end.calls.is_empty() {
        let at = end.calls.len() - 1;
        // What has arrived comes before the end.
        if !(0..4).any(|_| end.take(at)) {
            let Call { session, answer, .. } = &end.calls[at];
            return Err(format!("L4: a call of session {session} for {answer:?} goes on behind {by}"));
        }
        end.calls.pop();
    }
    Ok(())
}
