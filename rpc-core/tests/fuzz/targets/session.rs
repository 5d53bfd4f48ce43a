//! A session under any frames and any order of what its application does: it keeps within its bounds, and each of its
//! calls ends.

use std::sync::Arc;
use std::time::Duration;

use rpc_core::code::Code;
use rpc_core::id::{ExchangeKey, Sid, Side, Xid};
use rpc_core::metadata::Metadata;
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{
    Answer, AnswerKind, Batch, Extras, Input, Items, Limits, Link, OpenCommand, Outbox, Session, SessionEvent, Time,
};
use rpc_core::wire::frame::{Beside, Frame, Mode, Open, Reason, Reset, Run, flag, kind};
use rpc_core::wire::header::PREFIX;
use rpc_core::wire::hello::Windows;
use rpc_core::wire::{HeadBuf, varint};

use super::bytes::Bytes;

/// A call of this side, as its caller sees it.
struct Call {
    key: ExchangeKey,
    answer: AnswerKind,
    streaming: bool,
}

/// A handler of this side.
struct Handler {
    key: ExchangeKey,
    /// It answers with items: behind them, or instead of them, there is only an error.
    streams: bool,
    more: bool,
    one_way: bool,
}

struct Bench {
    session: Session<()>,
    out: Outbox,
    limits: Limits,
    now: Time,
    calls: Vec<Call>,
    handlers: Vec<Handler>,
    /// Ids that the peer has opened, so that most frames find something.
    opened: u64,
    counts: (u64, u64),
}

const KINDS: [u8; 12] = [
    kind::OPEN,
    kind::OPEN,
    kind::DATA,
    kind::DATA,
    kind::DATA,
    kind::RESET,
    kind::CANCEL,
    kind::ACCEPT,
    kind::MAX_STREAM,
    kind::MAX_SESSION,
    kind::ACK,
    kind::S_CLOSE_DONE,
];

impl Bench {
    fn new(side: Side, choices: &mut Bytes<'_>) -> Self {
        let windows = 512 << choices.one_of(0..=3);
        let limits = Limits::default().stream_window(windows).session_window(2 * windows).connection_window(1 << 20);
        let limits = limits.max_message(3000).reassembly(choices.one_of(0..=8) * 500).exchanges(choices.one_of(1..=4));
        let limits = limits.metadata_bytes(64).metadata_entries(3).max_frame(4096).max_deadline(Duration::from_secs(60));
        let peer = Windows {
            stream: 256 << choices.one_of(0..=4),
            session: 512 << choices.one_of(0..=4),
            exchanges: choices.one_of(0..=5),
            message: 2000,
        };
        let mut out = Outbox::new(limits.connection_window);
        out.open(4096 << choices.one_of(0..=3), 1000 << choices.one_of(0..=8));
        let mut session = Session::new(side, limits.session());
        session.granted(peer);
        session.attach(Link { slot: SessionSlot(0), sid: None });
        let now = Time::from_micros(1_000_000);
        Self { session, out, limits, now, calls: Vec::new(), handlers: Vec::new(), opened: 0, counts: (0, 0) }
    }

    fn step(&mut self, choices: &mut Bytes<'_>) -> Result<(), Reason> {
        match choices.byte() % 8 {
            0..=3 => self.frame(choices)?,
            4 if self.session.side() == Side::Initiator => self.call(choices),
            4 | 5 => self.serve(choices),
            6 => self.look(choices),
            _ => self.turn(choices),
        }
        self.session.flush(&mut self.out);
        self.check();
        Ok(())
    }

    fn check(&mut self) {
        let (queued, live) = (self.session.queued(), self.session.live());
        assert!(queued <= 3 * live + 100, "{queued} places are taken for {live} exchanges");
        assert!(self.session.held() <= self.limits.session_window, "{} bytes are held", self.session.held());
        assert!(self.handlers.len() as u64 <= self.limits.exchanges, "{} handlers run", self.handlers.len());
        let counts = self.session.counts();
        assert!(counts.0 >= self.counts.0 && counts.1 >= self.counts.1, "counts went back");
        self.counts = counts;
    }

    /// A frame of the peer: most of known kinds, with an id that means something, and with a body that reads.
    fn frame(&mut self, choices: &mut Bytes<'_>) -> Result<(), Reason> {
        let pick = choices.byte();
        let kind = if pick < 240 { KINDS[usize::from(pick) % KINDS.len()] } else { choices.byte() };
        let flags = [flag::EOM | flag::END, flag::EOM, 0, flag::END, flag::EOM | flag::END | flag::ONEWAY, choices.byte()];
        let flags = flags[usize::from(choices.byte()) % flags.len()];
        let calls = self.session.side() == Side::Initiator;
        let next = 2 * self.opened;
        let xid = match choices.byte() {
            // An OPEN with the right id, nearly always.
            0..=239 if kind == kind::OPEN => next + u64::from(calls),
            0..=239 => 2 * choices.one_of(0..=7) + u64::from(choices.byte().is_multiple_of(16)),
            _ => choices.number() >> 2,
        };
        let mut body = Vec::new();
        let mut head = HeadBuf::new(kind, flags);
        let total = (flags & flag::EOM == 0).then(|| choices.one_of(0..=255) * 16);
        match kind {
            kind::OPEN if flags & flag::EXT != 0 => {
                let beside = Beside { urgency: choices.byte() % 9, metadata: choices.some(80) };
                let timeout_ms = choices.flag().then(|| choices.number() >> 2);
                Open { method: 0, timeout_ms, total }.write_with(beside, &mut head, &mut body);
            }
            kind::OPEN => Open { method: choices.byte().into(), timeout_ms: None, total }.write(&mut head),
            kind::DATA if choices.flag() => total.into_iter().for_each(|total| varint::push(total, &mut body)),
            kind::RESET => {
                let reason = Reason::new(Code(choices.byte().into()), "");
                Reset { final_offset: 16 * choices.one_of(0..=20), reason }.write(&mut body);
            }
            kind::CANCEL => varint::push(choices.byte().into(), &mut body),
            kind::MAX_STREAM => varint::push(choices.number() >> 2, &mut body),
            kind::MAX_SESSION | kind::ACK => {
                varint::push(choices.number() >> 2, &mut body);
                varint::push(choices.number() >> 2, &mut body);
            }
            _ => {}
        }
        if choices.byte().is_multiple_of(8) {
            body.extend_from_slice(choices.some(255));
        } else {
            body.resize(body.len() + 16 * choices.one_of(0..=40) as usize, 7);
        }
        let bytes = [head.finish(body.len()), &body].concat();
        let frame = Frame { kind, flags, sid: Sid(0), xid: Xid(xid), body: &bytes[PREFIX + 1..], behind: Run::default() };
        self.receive(&frame)
    }

    fn receive(&mut self, frame: &Frame<'_>) -> Result<(), Reason> {
        let event = self.session.handle_frame(frame, self.now, || ()).map_err(|error| error.reason)?;
        if frame.kind == kind::OPEN {
            self.opened += 1;
        }
        match event {
            Some(SessionEvent::Opened { key, method, body, more, one_way, metadata, .. }) => {
                assert!(body.len() <= self.limits.max_message as usize, "{} bytes of arguments", body.len());
                if let Some(metadata) = metadata {
                    assert!(metadata.iter().count() <= 3 && metadata.encoded().len() <= 64);
                }
                assert!(self.handlers.iter().all(|handler| handler.key != key), "a call arrives twice");
                self.handlers.push(Handler { key, streams: method % 2 == 1, more, one_way });
            }
            Some(SessionEvent::Aborted(reason)) => {
                self.session.fail(reason.clone());
                return Err(reason);
            }
            Some(SessionEvent::Readable(key) | SessionEvent::Cancelled(key)) => {
                assert!(self.session.user(key).is_some(), "an event names an exchange that is no more");
            }
            Some(SessionEvent::PeerClosed | SessionEvent::PeerDone) | None => {}
        }
        Ok(())
    }

    /// This side's application calls.
    fn call(&mut self, choices: &mut Bytes<'_>) {
        let answer = [AnswerKind::One, AnswerKind::Many, AnswerKind::None][usize::from(choices.byte() % 3)];
        let more = answer != AnswerKind::None && choices.flag();
        let timeout = choices.flag().then(|| Duration::from_millis(choices.number() % 5000));
        let body = vec![3; choices.one_of(0..=255) as usize * 9];
        let command = OpenCommand { method: 0, timeout, body: body.into(), more, answer };
        let opened = match choices.byte() % 3 {
            0 => self.session.open(command, ()),
            1 => self.session.open_now(command, (), &mut self.out),
            _ => {
                let mut metadata = Metadata::new();
                metadata.insert("trace", choices.some(64)).expect("the key is sound");
                let extras = Extras { urgency: choices.byte() % 8, metadata: Some(Arc::new(metadata)) };
                self.session.open_with(command, extras, (), &mut self.out)
            }
        };
        match opened {
            Ok(key) => self.calls.push(Call { key, answer, streaming: false }),
            Err(fault) => assert!(!fault.sent, "a call that was not made was not sent"),
        }
    }

    /// A caller looks, sends, or loses interest.
    fn look(&mut self, choices: &mut Bytes<'_>) {
        if self.calls.is_empty() {
            return;
        }
        let at = usize::from(choices.byte()) % self.calls.len();
        let key = self.calls[at].key;
        let over = match choices.byte() % 4 {
            0 => {
                self.session.release(key);
                true
            }
            1 => {
                self.send(key, choices);
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
        let Call { key, answer, streaming } = self.calls[at];
        if answer == AnswerKind::None {
            return !matches!(self.session.release_sent(key), Ok(false));
        }
        if !streaming {
            let answer = self.session.take_answer(key);
            self.calls[at].streaming = answer == Answer::Stream;
            return !matches!(answer, Answer::Pending | Answer::Stream);
        }
        let mut batch = Batch::new();
        match self.session.take_items(key, &mut batch) {
            Items::Ready => assert!(!batch.is_empty() && batch.bytes() <= 2 * self.limits.max_message as usize + 8192),
            Items::Pending => {}
            Items::Ended | Items::AppError(_) | Items::Fault(_) => {
                self.session.release(key);
                return true;
            }
        }
        false
    }

    fn send(&mut self, key: ExchangeKey, choices: &mut Bytes<'_>) {
        if self.session.poll_send(key) == Some(true) {
            let (mut batch, last) = (Batch::new(), choices.flag());
            for _ in 0..choices.one_of(0..=5) {
                batch.push(&vec![9; choices.one_of(0..=200) as usize * 9]);
            }
            if !batch.is_empty() || last {
                self.session.send(key, &mut batch, last);
            }
        }
    }

    /// A handler does something.
    fn serve(&mut self, choices: &mut Bytes<'_>) {
        if self.handlers.is_empty() {
            return;
        }
        let at = usize::from(choices.byte()) % self.handlers.len();
        let Handler { key, streams, more, one_way } = self.handlers[at];
        let body = || vec![5; 300];
        let done = match choices.byte() % 8 {
            0 if !one_way => {
                self.session.answer_now(key, body().into(), streams || choices.flag(), &mut self.out);
                self.handlers.swap_remove(at);
                return;
            }
            1 if !one_way => {
                self.session.answer(key, body().into(), streams || choices.flag());
                true
            }
            2 if more => {
                self.session.take_items(key, &mut Batch::new());
                false
            }
            3 if streams && !one_way => {
                self.session.accept(key);
                self.send(key, choices);
                false
            }
            4 => {
                self.session.reset(key, Reason::new(Code::INTERNAL, "it panicked"));
                true
            }
            5 if !one_way => {
                self.session.break_stream(key, Reason::new(Code::INTERNAL, "the disk is gone"));
                true
            }
            6 if more => {
                self.session.stop(key);
                false
            }
            7 => true,
            _ => false,
        };
        if done {
            self.session.handler_done(key);
            self.handlers.swap_remove(at);
        }
    }

    /// What a driver does between frames.
    fn turn(&mut self, choices: &mut Bytes<'_>) {
        match choices.byte() % 8 {
            0 => {
                self.now = self.now.after(Duration::from_millis(choices.number() % 3000));
                self.session.stamp(self.now);
                self.session.handle_deadlines(self.now, |_, _| {});
            }
            1 if choices.byte().is_multiple_of(8) => self.session.close(),
            2 => self.out.raise(choices.number() % (1 << 20)),
            _ => self.write(),
        }
        while self.session.next_drained().is_some() {}
    }

    /// What goes out, which must be frames that read and that the peer has room for.
    fn write(&mut self) {
        while let Some((_, lane)) = self.out.next_session() {
            self.session.transmit(lane, &mut self.out);
        }
        while self.out.next_unstamped().is_some() {
            self.session.stamp(self.now);
        }
        let (mut output, mut bytes) = (Output::default(), Vec::new());
        self.out.swap(&mut output);
        output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        let mut input = Input::new(bytes.len().max(8));
        input.space()[..bytes.len()].copy_from_slice(&bytes);
        input.advance(bytes.len());
        while let Some(raw) = input.next_frame(self.out.max_frame()).expect("the peer takes what this side writes") {
            Frame::read(raw, Mode::Single).expect("its ids are sound");
        }
        assert!(input.pending().is_empty(), "this side writes whole frames");
    }

    /// The connection is lost, if nothing was before: each call ends, and nothing is left.
    fn end(&mut self) {
        if self.session.failure().is_none() {
            self.session.fail(Reason::new(Code::CLOSED, "the connection is lost"));
        }
        for at in (0..self.calls.len()).rev() {
            // An answer that came before is still taken, and so are items.
            let over = (0..4).any(|_| self.take(at));
            assert!(over, "a call goes on behind the end of its session");
        }
        for handler in std::mem::take(&mut self.handlers) {
            self.session.handler_done(handler.key);
        }
        assert_eq!(self.session.live(), 0, "something is left");
        self.session.flush(&mut self.out);
        self.write();
    }
}

/// The life of one session.
pub(crate) fn session(data: &[u8]) {
    let mut choices = Bytes(data);
    let side = if choices.flag() { Side::Initiator } else { Side::Acceptor };
    let mut bench = Bench::new(side, &mut choices);
    while !choices.is_empty() {
        if let Err(reason) = bench.step(&mut choices) {
            bench.session.abort(reason);
            break;
        }
    }
    bench.end();
}
