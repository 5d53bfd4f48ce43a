//! Both ends, the network between them, and the applications on top.
//!
//! Every call's arguments name its session, its number and what the server is to do, so that each side can check what
//! it gets and nothing can be mixed up unnoticed.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rpc_core::id::{ExchangeKey, Side};
use rpc_core::metadata::Metadata;
use rpc_core::proto::{Answer, AnswerKind, Batch, Extras, Items, Limits, OpenCommand, Session, SessionEvent, Time};
use rpc_core::wire::frame::Mode;

use crate::ends::Ledger;
use crate::node::{Event, Node, User};
use crate::rng::Rng;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    pub(crate) tight: bool,
    pub(crate) impatient: bool,
    pub(crate) single: bool,
    pub(crate) giants: bool,
    pub(crate) move_sessions: bool,
    /// Both ends open sessions, and handlers call back before they answer.
    pub(crate) both_ways: bool,
    /// Sessions have weights and calls urgencies, and large messages are many.
    pub(crate) weighted: bool,
    /// How it all ends, in the middle of the calls.
    pub(crate) end: Option<End>,
    pub(crate) mutation: Option<Mutation>,
}

/// How a run ends before all calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// One side goes away, and waits for as long as it takes.
    Drain,
    /// One side goes away, and cuts off what is left at its deadline.
    DrainUntil,
    /// Each session is closed by one of its sides.
    Close,
    /// Each session is aborted by one of its sides.
    Abort,
    /// The connection is lost, with all that was under way on it.
    Lose,
    /// The link goes silent in one direction, and neither end is told: keepalive has to find out.
    HalfOpen,
}

impl End {
    pub(crate) const ALL: [Self; 6] = [Self::Drain, Self::DrainUntil, Self::Close, Self::Abort, Self::Lose, Self::HalfOpen];

    /// Whether every call is either served or known not to have run.
    pub(crate) fn is_orderly(self) -> bool {
        matches!(self, Self::Drain | Self::Close)
    }
}

/// Faults that a run must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A byte of the stream is lost.
    LoseByte,
    /// A whole write is delivered twice.
    RepeatWrite,
    /// The client passes over announcements of credit.
    IgnoreCredit,
    /// The server never gives the place of an ended handler back.
    KeepPlaces,
    /// The server answers a call of one session into another.
    CrossSessions,
    /// The server forgets to answer one call.
    ForgetAnswer,
    /// At a drain, whatever failed is made elsewhere again.
    RetryBlindly,
    /// A side that goes away is gone when it has served all it has seen.
    LeaveUnasked,
    /// An abort says that nothing was received.
    DenyReceipt,
    /// An answer is taken and lost.
    LoseAnswer,
    /// All sessions have turns alike, whatever they weigh.
    IgnoreWeights,
    /// Nobody minds the other's silence.
    IgnoreSilence,
    /// Where the link went silent, calls are said not to have run.
    DenyStart,
}

impl Mutation {
    pub(crate) const ALL: [Self; 13] = [
        Self::LoseByte,
        Self::RepeatWrite,
        Self::IgnoreCredit,
        Self::KeepPlaces,
        Self::CrossSessions,
        Self::ForgetAnswer,
        Self::RetryBlindly,
        Self::LeaveUnasked,
        Self::DenyReceipt,
        Self::LoseAnswer,
        Self::IgnoreWeights,
        Self::IgnoreSilence,
        Self::DenyStart,
    ];

    /// The run that it is seeded into.
    pub(crate) fn plan(self) -> Plan {
        let end = match self {
            Self::RetryBlindly => Some(End::DrainUntil),
            Self::LeaveUnasked => Some(End::Drain),
            Self::LoseAnswer => Some(End::Close),
            Self::DenyReceipt => Some(End::Abort),
            Self::IgnoreSilence | Self::DenyStart => Some(End::HalfOpen),
            _ => None,
        };
        Plan { mutation: Some(self), end, weighted: self == Self::IgnoreWeights, ..Plan::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Unary,
    OneWay,
    /// Items down.
    Down,
    /// Items up, one answer.
    Up,
    /// Items echoed.
    Echo,
    /// An application error.
    Error,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Unary, Self::OneWay, Self::Down, Self::Up, Self::Echo, Self::Error];

    fn answer(self) -> AnswerKind {
        match self {
            Self::OneWay => AnswerKind::None,
            Self::Unary | Self::Up | Self::Error => AnswerKind::One,
            Self::Down | Self::Echo => AnswerKind::Many,
        }
    }

    pub(crate) fn sends_items(self) -> bool {
        matches!(self, Self::Up | Self::Echo)
    }
}

/// What metadata take beside what fills them.
const METADATA_ROOM: usize = 40;

/// What a call is for, as its arguments say it: 26 bytes and filler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) session: usize,
    pub(crate) call: u64,
    pub(crate) kind: Kind,
    pub(crate) items: u32,
    size: u32,
}

impl Spec {
    fn encode(&self, filler: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((self.session as u64).to_le_bytes());
        bytes.extend(self.call.to_le_bytes());
        bytes.push(Kind::ALL.iter().position(|kind| *kind == self.kind).unwrap() as u8);
        bytes.extend(self.items.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend((0..filler).map(|at| (at as u64 * 7 + self.call) as u8));
        bytes
    }

    fn has_metadata(&self) -> bool {
        self.call.is_multiple_of(4)
    }

    fn metadata(&self, filler: usize) -> Arc<Metadata> {
        let mut metadata = Metadata::new();
        metadata.insert("filler", vec![7; filler]).unwrap();
        metadata.insert("call", self.call.to_string()).unwrap();
        metadata.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let number = |from: usize, to: usize| bytes.get(from..to).ok_or("arguments are cut off");
        let spec = Self {
            session: u64::from_le_bytes(number(0, 8)?.try_into().unwrap()) as usize,
            call: u64::from_le_bytes(number(8, 16)?.try_into().unwrap()),
            kind: *Kind::ALL.get(number(16, 17)?[0] as usize).ok_or("no such kind")?,
            items: u32::from_le_bytes(number(17, 21)?.try_into().unwrap()),
            size: u32::from_le_bytes(number(21, 25)?.try_into().unwrap()),
        };
        let right = bytes[25..].iter().enumerate().all(|(at, byte)| *byte == (at as u64 * 7 + spec.call) as u8);
        if right { Ok(spec) } else { Err("arguments are damaged".into()) }
    }

    /// Item `index`, or the single answer: nothing else in the world has these bytes.
    fn item(&self, index: u32) -> Vec<u8> {
        let seed = (self.session as u64) << 40 | self.call << 16 | u64::from(index);
        (0..u64::from(self.size)).map(|at| (seed.wrapping_mul(0x9E37_79B9) >> (at % 8 * 8)) as u8).collect()
    }
}

/// A call as the client sees it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) spec: Spec,
    key: Option<ExchangeKey>,
    sent: u32,
    got: u32,
    streaming: bool,
    pub(crate) outcome: Option<Outcome>,
    /// It may end in other ways than by its answer.
    fragile: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Done,
    /// The code, and whether the call may have run.
    Failed(u32, bool),
    Dropped,
}

/// A handler of the server.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) session: usize,
    pub(crate) key: ExchangeKey,
    spec: Spec,
    accepted: bool,
    sent: u32,
    got: u32,
    input_over: bool,
    stopped: bool,
    /// It calls back, and waits for this call before it answers.
    waits_for: Option<(usize, u64)>,
}

/// One direction of the network.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    pub(crate) written: usize,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    limits: Limits,
    pub(crate) nodes: [Node; 2],
    pub(crate) pipes: [Pipe; 2],
    pub(crate) calls: BTreeMap<(usize, u64), Call>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) to_start: usize,
    pub(crate) sessions: usize,
    /// Sessions of the acceptor, which opens them when the handshake is over.
    to_open: Vec<usize>,
    pub(crate) ledger: Ledger,
    mutated: bool,
    moves: usize,
    trace: DefaultHasher,
}

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

impl World {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = Rng::new(seed);
        let mut limits = Limits::default();
        limits.exchanges = 1 + rng.below(8) as u64;
        if plan.tight {
            // Windows of one frame, and smaller ones.
            limits.max_frame = 4096;
            let window = if rng.chance(50) { 512 + rng.below(600) as u64 } else { 4096 };
            (limits.stream_window, limits.session_window, limits.connection_window) = (window, window, window);
            (limits.max_stream_window, limits.max_session_window, limits.max_connection_window) = (20_000, 20_000, 20_000);
            limits.max_message = 60_000;
            limits.reassembly = 1;
        }
        if plan.giants {
            limits.exchanges = 8;
        }
        if plan.end == Some(End::HalfOpen) {
            (limits.keepalive_interval, limits.keepalive_timeout) = (Duration::from_secs(1), Duration::from_millis(500));
        }
        let now = Time::default();
        let mode = if plan.single { Mode::Single } else { Mode::Multi };
        let nodes = [Node::new(Side::Initiator, mode, limits.clone(), now), Node::new(Side::Acceptor, mode, limits.clone(), now)];
        let sessions = if plan.single { 1 } else { 1 + rng.below(4) + usize::from(plan.both_ways) + usize::from(plan.weighted) };
        let mut world = Self {
            to_start: if plan.giants { 8 } else { 20 + rng.below(60) + if plan.weighted { 20 } else { 0 } },
            moves: if plan.move_sessions { 3 } else { 0 },
            plan,
            rng,
            now,
            limits,
            nodes,
            pipes: Default::default(),
            calls: BTreeMap::new(),
            handlers: Vec::new(),
            sessions,
            to_open: Vec::new(),
            ledger: Ledger::default(),
            mutated: false,
            trace: DefaultHasher::new(),
        };
        // Room for no growth, for a little, or for any.
        for node in &mut world.nodes {
            node.out.growth().allow([0, 5000, u64::MAX][world.rng.below(3)]);
        }
        world.nodes[CLIENT].deaf = plan.mutation == Some(Mutation::IgnoreCredit);
        world.ledger.begin_at = world.rng.below(world.to_start);
        for index in 0..sessions {
            if world.caller(index) == CLIENT { world.open(index) } else { world.to_open.push(index) }
        }
        world
    }

    /// The end that calls in a session; the other one serves.
    pub(crate) fn caller(&self, session: usize) -> usize {
        if self.plan.both_ways { session % 2 } else { CLIENT }
    }

    fn open(&mut self, index: usize) {
        let mut core = Session::new(Side::Initiator, self.limits.session());
        let end = self.caller(index);
        if self.plan.weighted {
            let weight = [1, 4, 16, 64, 256][self.rng.below(5)];
            self.nodes[end].fairness.weigh(index, weight);
            self.nodes[1 - end].fairness.weigh(index, weight.min(self.limits.max_weight));
            if self.plan.mutation != Some(Mutation::IgnoreWeights) {
                core.weigh(weight);
            }
        }
        self.nodes[end].open(index, core, &index.to_string());
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn run(&mut self) -> Result<(), String> {
        for step in 0.. {
            if step > 400_000 {
                return Err(format!("no end in sight: {}", self.stuck()));
            }
            self.step()?;
            self.nodes.iter().try_for_each(|node| node.fairness.check())?;
            let over = self.to_start == 0 && self.handlers.is_empty() && self.calls.values().all(|call| call.outcome.is_some());
            if over && self.is_quiet() && self.has_ended() {
                if self.moves == 0 {
                    break;
                }
                self.move_sessions();
            }
        }
        self.check_ends()?;
        self.check_residue()
    }

    fn stuck(&self) -> String {
        let open: Vec<_> = self.calls.values().filter(|call| call.outcome.is_none()).take(3).collect();
        format!("{open:?}, handlers {:?}", self.handlers.first())
    }

    fn is_quiet(&self) -> bool {
        let quiet = |end: usize| self.nodes[end].is_quiet(self.pipes[end].written) && self.pipes[end].bytes.is_empty();
        self.ledger.lost || (0..2).all(quiet)
    }

    fn step(&mut self) -> Result<(), String> {
        self.now = self.now.after(Duration::from_millis(1 + self.rng.below(3) as u64));
        if self.nodes[SERVER].connection.is_open() {
            std::mem::take(&mut self.to_open).into_iter().for_each(|index| self.open(index));
        }
        self.advance_end();
        match self.rng.below(10) {
            0 | 1 => self.start_call(),
            2..=5 if !self.ledger.lost => {
                let end = self.rng.below(2);
                self.network(end)?;
            }
            6 => {
                let end = self.rng.below(2);
                self.nodes[end].tick(self.now);
                self.keep_alive(end);
            }
            7 if self.plan.impatient => self.lose_patience(),
            8 => self.serve()?,
            _ => self.consume()?,
        }
        for end in [CLIENT, SERVER] {
            for event in std::mem::take(&mut self.nodes[end].events) {
                self.handle(end, event)?;
            }
        }
        Ok(())
    }

    /// Moves some bytes out of one end and, perhaps others, into the other.
    fn network(&mut self, from: usize) -> Result<(), String> {
        if self.ledger.gone[from] {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let most = if self.rng.chance(50) { 20 } else { 20_000 };
        let n = 1 + self.rng.below(most);
        let now = self.now;
        self.nodes[from].transmit(now, n, &mut self.pipes[from].written, &mut bytes);
        self.mutate_bytes(from, &mut bytes);
        bytes.hash(&mut self.trace);
        if self.ledger.cut == Some(from) || self.ledger.gone[1 - from] {
            return Ok(());
        }
        // A socket buffer of one frame is enough for progress.
        self.pipes[from].bytes.extend(bytes);
        let n = self.rng.below(self.pipes[from].bytes.len() + 1);
        let chunk: Vec<u8> = self.pipes[from].bytes.drain(..n).collect();
        self.nodes[1 - from].receive(&chunk, self.now, &mut BTreeMap::new())
    }

    fn mutate_bytes(&mut self, from: usize, bytes: &mut Vec<u8>) {
        if self.mutated || bytes.len() < 16 || self.calls.len() < 5 {
            return;
        }
        match self.plan.mutation {
            Some(Mutation::LoseByte) => {
                bytes.remove(self.rng.below(bytes.len()));
            }
            Some(Mutation::RepeatWrite) if from == CLIENT => bytes.extend_from_within(..),
            _ => return,
        }
        self.mutated = true;
    }

    fn start_call(&mut self) {
        let session = self.rng.below(self.sessions);
        if self.to_start > 0 && self.is_live(session) {
            self.to_start -= 1;
            self.call(session);
        }
    }

    fn is_live(&self, session: usize) -> bool {
        self.nodes[self.caller(session)].sessions.get(&session).is_some_and(|attached| attached.live)
    }

    /// Makes a call; `None`: it cannot be made any more, and was not.
    fn call(&mut self, session: usize) -> Option<(usize, u64)> {
        let end = self.caller(session);
        let kind = if self.plan.giants { Kind::Unary } else { Kind::ALL[self.rng.below(Kind::ALL.len())] };
        let most = self.limits.max_message as usize;
        let size = match self.rng.below(20) {
            _ if self.plan.giants => most,
            0 => self.rng.below(most.min(300_000)),
            1..=5 if self.plan.weighted => self.rng.below(most.min(60_000)),
            1..=4 => self.rng.below(5_000),
            _ => self.rng.below(100),
        };
        let items = if size > 10_000 { self.rng.below(3) } else { self.rng.below(40) } as u32;
        self.ledger.numbers += 1;
        let spec = Spec { session, call: self.ledger.numbers, kind, items, size: size as u32 };
        let longest = if self.plan.weighted && self.rng.chance(30) {
            60_000.min(most - 25)
        } else if self.rng.chance(10) {
            20_000.min(most - 25)
        } else {
            60
        };
        let filler = if self.plan.giants { most - 25 } else { self.rng.below(longest) };
        let timeout = (self.plan.impatient && self.rng.chance(30)).then(|| Duration::from_millis(1 + self.rng.below(300) as u64));
        // Simulated time flies: no call that is not meant to expire may do so.
        let timeout = timeout.or(Some(Duration::from_secs(3600)));
        let fragile = self.plan.impatient || self.plan.end.is_some();
        let command =
            OpenCommand { method: 0, timeout, body: spec.encode(filler).into(), more: kind.sends_items(), answer: kind.answer() };
        let node = &mut self.nodes[end];
        let extra = self.rng.below(6000);
        let urgency = if self.plan.weighted { self.rng.below(8) as u8 } else { Extras::default().urgency };
        let opened = if spec.has_metadata() {
            let metadata = Some(spec.metadata(extra.min(node.metadata_room(session) - METADATA_ROOM)));
            node.with_out(session, |core, out| core.open_with(command, Extras { urgency, metadata }, spec.call, out))
        } else if self.plan.weighted {
            node.with_out(session, |core, out| core.open_with(command, Extras { urgency, metadata: None }, spec.call, out))
        } else if self.rng.chance(50) {
            node.with(session, |core| core.open(command, spec.call))
        } else {
            node.with_out(session, |core, out| core.open_now(command, spec.call, out))
        };
        let key = match opened {
            Ok(key) => key,
            Err(fault) => {
                assert!(self.ledger.begun && !fault.sent, "calls are refused at the end, and nothing was started: {fault:?}");
                return None;
            }
        };
        let call = Call { spec, key: Some(key), sent: 0, got: 0, streaming: false, outcome: None, fragile };
        self.calls.insert((session, spec.call), call);
        Some((session, spec.call))
    }

    /// Somebody drops a call, or a server stops taking a stream.
    fn lose_patience(&mut self) {
        let open: Vec<_> = self.calls.iter().filter(|(_, call)| call.outcome.is_none()).map(|(id, _)| *id).collect();
        if open.is_empty() || !self.rng.chance(20) {
            return;
        }
        let id = open[self.rng.below(open.len())];
        let call = self.calls.get_mut(&id).unwrap();
        call.outcome = Some(Outcome::Dropped);
        let key = call.key.take().unwrap();
        let end = self.caller(id.0);
        self.nodes[end].with(id.0, |core| core.release(key));
    }

    fn handle(&mut self, end: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Session(session, SessionEvent::Opened { key, body, more, one_way, metadata, .. }) => {
                let spec = Spec::decode(&body)?;
                let number = metadata.as_ref().and_then(|metadata| metadata.get_text("call"));
                if number != spec.has_metadata().then(|| spec.call.to_string()).as_deref() {
                    return Err(format!("call {} came with the metadata {metadata:?}", spec.call));
                }
                if spec.session != session {
                    return Err(format!("a call of session {} came to session {session}", spec.session));
                }
                if one_way != (spec.kind == Kind::OneWay) || more != spec.kind.sends_items() {
                    return Err("the flags of OPEN are wrong".into());
                }
                let input_over = !more;
                let (accepted, sent, got, stopped) = (false, 0, 0, false);
                let waits_for = self.call_back(spec);
                self.handlers.push(Handler { session, key, spec, accepted, sent, got, input_over, stopped, waits_for });
                self.ledger.start((session, spec.call))?;
                // E9: live handlers never exceed the granted exchanges, also while cancels pour in.
                let running = self.handlers.iter().filter(|handler| handler.session == session).count() as u64;
                if running > self.limits.exchanges {
                    return Err(format!("{running} handlers run where {} exchanges are granted", self.limits.exchanges));
                }
            }
            Event::Session(session, SessionEvent::Cancelled(key)) | Event::Expired(session, key, Side::Acceptor)
                if end != self.caller(session) =>
            {
                for handler in self.handlers.iter_mut().filter(|handler| handler.session == session && handler.key == key) {
                    handler.stopped = true;
                }
            }
            Event::Session(session, SessionEvent::Aborted(_)) if self.ledger.begun => self.over(end, session),
            Event::Session(_, SessionEvent::Aborted(reason)) => return Err(format!("aborted: {reason}")),
            Event::Session(..) | Event::Expired(..) => {}
        }
        Ok(())
    }

    /// A handler may call its caller back, on a session that the other end serves. Those calls do not call back again:
    /// with one place a session, they would wait for each other.
    fn call_back(&mut self, spec: Spec) -> Option<(usize, u64)> {
        let session = self.rng.below(self.sessions);
        let back = self.caller(session) != self.caller(spec.session) && self.caller(spec.session) == CLIENT;
        let now = self.plan.both_ways && back && self.is_live(session) && self.rng.chance(50);
        if now { self.call(session) } else { None }
    }

    /// Some handler does a piece of work.
    fn serve(&mut self) -> Result<(), String> {
        if self.handlers.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.handlers.len());
        let handler = &mut self.handlers[index];
        let (session, key, spec) = (handler.session, handler.key, handler.spec);
        if handler.waits_for.and_then(|id| self.calls.get(&id)).is_some_and(|call| call.outcome.is_none()) && !handler.stopped {
            return Ok(());
        }
        let end = if self.plan.both_ways { 1 - session % 2 } else { SERVER };
        let mut done = handler.stopped;
        if !done && !handler.input_over {
            let mut batch = Batch::new();
            match self.nodes[end].with(session, |core| core.take_items(key, &mut batch)) {
                Items::Ready => {
                    while let Some(item) = batch.front() {
                        if item != spec.item(handler.got) {
                            return Err(format!("item {} of call {} is damaged", handler.got, spec.call));
                        }
                        handler.got += 1;
                        batch.pop();
                    }
                }
                Items::Ended if handler.got != spec.items => return Err("items are missing".into()),
                Items::Ended => handler.input_over = true,
                Items::Fault(_) if self.plan.impatient || self.ledger.begun => done = true,
                Items::Pending => {}
                other => return Err(format!("the stream of a call broke: {other:?}")),
            }
        }
        let node = &mut self.nodes[end];
        let answers = !done && self.rng.chance(50);
        match spec.kind {
            Kind::OneWay if answers => done = true,
            Kind::Unary | Kind::Up | Kind::Error if answers && handler.input_over => {
                if self.plan.mutation == Some(Mutation::ForgetAnswer) && !self.mutated {
                    self.mutated = true;
                } else {
                    let to =
                        if self.plan.mutation == Some(Mutation::CrossSessions) { self.rng.below(self.sessions) } else { session };
                    let is_error = spec.kind == Kind::Error;
                    if to == session && self.rng.chance(50) {
                        node.with_out(session, |core, out| core.answer_now(key, spec.item(0).into(), is_error, out));
                    } else if node.sessions.contains_key(&to) {
                        node.with(to, |core| core.answer(key, spec.item(0).into(), is_error));
                    }
                }
                done = true;
            }
            Kind::Down | Kind::Echo if !done => {
                if !handler.accepted {
                    handler.accepted = true;
                    node.with(session, |core| core.accept(key));
                }
                let most = if spec.kind == Kind::Down { spec.items } else { handler.got };
                let last = handler.input_over;
                match node.with(session, |core| core.poll_send(key)) {
                    None => done = true,
                    Some(false) => {}
                    Some(true) => {
                        let mut batch = Batch::new();
                        let until = most.min(handler.sent + 1 + self.rng.below(10) as u32);
                        for item in handler.sent..until {
                            batch.push(&spec.item(item));
                        }
                        handler.sent = until;
                        let ends = last && until == spec.items;
                        if !batch.is_empty() || ends {
                            node.with(session, |core| core.send(key, &mut batch, ends));
                        }
                        done = ends;
                    }
                }
            }
            _ => {}
        }
        if done {
            let handler = self.handlers.swap_remove(index);
            if handler.input_over {
                self.ledger.took_input.insert((session, spec.call));
            }
            if self.plan.mutation != Some(Mutation::KeepPlaces) {
                self.nodes[end].with(session, |core| core.handler_done(key));
            }
        }
        Ok(())
    }

    /// Some caller looks at its call.
    fn consume(&mut self) -> Result<(), String> {
        let open: Vec<_> = self.calls.iter().filter(|(_, call)| call.outcome.is_none()).map(|(id, _)| *id).collect();
        if open.is_empty() {
            return Ok(());
        }
        let id = open[self.rng.below(open.len())];
        let call = self.calls.get_mut(&id).unwrap();
        let (spec, key) = (call.spec, call.key.unwrap());
        let end = if self.plan.both_ways { id.0 % 2 } else { CLIENT };
        let node = &mut self.nodes[end];
        let core = node.session(id.0);
        if spec.kind.sends_items() && call.sent <= spec.items && core.poll_send(key) == Some(true) {
            let mut batch = Batch::new();
            let until = spec.items.min(call.sent + 1 + self.rng.below(10) as u32);
            for item in call.sent..until {
                batch.push(&spec.item(item));
            }
            let last = until == spec.items;
            call.sent = if last { spec.items + 1 } else { until };
            node.with(id.0, |core| core.send(key, &mut batch, last));
        }
        let outcome = if call.streaming {
            Self::consume_items(node, call, key)?
        } else if spec.kind == Kind::OneWay {
            match node.with(id.0, |core| core.release_sent(key)) {
                Ok(sent) => sent.then_some(Outcome::Done),
                Err(fault) if call.fragile => Some(Outcome::Failed(fault.reason.code.0, fault.sent)),
                Err(fault) => return Err(format!("one-way call {} failed: {fault:?}", spec.call)),
            }
        } else {
            match node.with(id.0, |core| core.take_answer(key)) {
                Answer::Pending => None,
                Answer::Message(bytes) if spec.kind != Kind::Error && bytes == spec.item(0) => Some(Outcome::Done),
                Answer::AppError(bytes) if spec.kind == Kind::Error && bytes == spec.item(0) => Some(Outcome::Done),
                Answer::Stream if spec.kind.answer() == AnswerKind::Many => {
                    call.streaming = true;
                    None
                }
                Answer::Fault(fault) if call.fragile => Some(Outcome::Failed(fault.reason.code.0, fault.sent)),
                other => return Err(format!("call {} got {}", spec.call, short(&other))),
            }
        };
        if let Some(outcome) = outcome {
            (spec.call, &outcome).hash(&mut self.trace);
            call.outcome = Some(outcome.clone());
            call.key = None;
            self.settle_outcome(id, &outcome)?;
        }
        Ok(())
    }

    fn consume_items(node: &mut Node, call: &mut Call, key: ExchangeKey) -> Result<Option<Outcome>, String> {
        let (session, mut batch) = (call.spec.session, Batch::new());
        let outcome = match node.with(session, |core| core.take_items(key, &mut batch)) {
            Items::Pending => return Ok(None),
            Items::Ready => {
                while let Some(item) = batch.front() {
                    if item != call.spec.item(call.got) {
                        return Err(format!("item {} of call {} is damaged", call.got, call.spec.call));
                    }
                    call.got += 1;
                    batch.pop();
                }
                return Ok(None);
            }
            Items::Ended if call.got == call.spec.items => Outcome::Done,
            Items::Fault(fault) if call.fragile => Outcome::Failed(fault.reason.code.0, fault.sent),
            other => return Err(format!("the stream of call {} ended with {other:?} after {}", call.spec.call, call.got)),
        };
        node.with(session, |core| core.release(key));
        Ok(Some(outcome))
    }

    /// All sessions leave their connection for a new one. Without a replay buffer this is for quiet moments only, but
    /// it shows that nothing of a session lives in its connection.
    fn move_sessions(&mut self) {
        self.moves -= 1;
        self.to_start = 10;
        let mode = Mode::Multi;
        let fresh = [
            Node::new(Side::Initiator, mode, self.limits.clone(), self.now),
            Node::new(Side::Acceptor, mode, self.limits.clone(), self.now),
        ];
        let [old_client, old_server] = std::mem::replace(&mut self.nodes, fresh);
        self.pipes = Default::default();
        let mut arriving: BTreeMap<usize, Session<User>> = BTreeMap::new();
        for (index, mut attached) in old_server.sessions {
            attached.core.detach();
            arriving.insert(index, attached.core);
        }
        for (index, mut attached) in old_client.sessions {
            attached.core.detach();
            self.nodes[CLIENT].open(index, attached.core, &index.to_string());
        }
        while !arriving.is_empty() {
            for from in [CLIENT, SERVER] {
                let mut bytes = Vec::new();
                self.nodes[from].transmit(self.now, usize::MAX, &mut self.pipes[from].written, &mut bytes);
                self.nodes[1 - from].receive(&bytes, self.now, &mut arriving).expect("the handshake is quiet");
            }
        }
    }

    /// When all is over, nothing may be left: F3 at three levels, empty tables, equal counts.
    fn check_residue(&mut self) -> Result<(), String> {
        for end in [CLIENT, SERVER].into_iter().filter(|_| !self.ledger.lost) {
            let held = self.nodes[end].held();
            if held != 0 {
                return Err(format!("end {end} holds {held} bytes of connection credit"));
            }
            let node = &self.nodes[end];
            for (index, attached) in &node.sessions {
                if attached.core.live() != 0 || attached.core.held() != 0 {
                    let (live, held) = (attached.core.live(), attached.core.held());
                    return Err(format!("end {end} session {index}: {live} exchanges live, {held} bytes held"));
                }
                let (sent, received) = attached.core.counts();
                let peer = &self.nodes[1 - end].sessions[index].core;
                let (peer_sent, peer_received) = peer.counts();
                // One that is cut off may not have seen the other's last word.
                let failed = attached.core.failure().is_some() || peer.failure().is_some();
                if (sent, received) != (peer_received, peer_sent) && !failed {
                    let counts = format!("sent {sent} of {peer_received}, received {received} of {peer_sent}");
                    return Err(format!("end {end} session {index}: {counts}"));
                }
            }
        }
        Ok(())
    }
}

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Message(bytes) => format!("a message of {} bytes", bytes.len()),
        Answer::AppError(bytes) => format!("an application error of {} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}
