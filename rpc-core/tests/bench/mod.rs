//! One session under test, with the peer's part played by hand, frame by frame.

use rpc_core::code::Code;
use rpc_core::id::{ExchangeKey, Side, Xid};
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{AnswerKind, Input, Limits, Link, OpenCommand, Outbox, ProtocolError, Session, SessionEvent, Time};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Frame, Mode, Open, Reset, exchange_head, flag, kind};

/// One side under test, alone on its connection, with the peer's part played by hand.
pub(crate) struct Bench {
    pub(crate) session: Session<()>,
    pub(crate) out: Outbox,
    pub(crate) limits: Limits,
    /// When the next frame arrives.
    pub(crate) now: Time,
}

impl Bench {
    pub(crate) fn new(side: Side, limits: Limits) -> Self {
        let mut out = Outbox::new(limits.connection_window);
        out.open(limits.max_frame, limits.connection_window);
        let mut session = Session::new(side, limits.session());
        session.granted(limits.windows());
        session.attach(Link { slot: SessionSlot(0), sid: None });
        Self { session, out, limits, now: Time::default() }
    }

    pub(crate) fn acceptor() -> Self {
        Self::new(Side::Acceptor, Limits::default())
    }

    pub(crate) fn initiator() -> Self {
        Self::new(Side::Initiator, Limits::default())
    }

    pub(crate) fn receive(&mut self, head: HeadBuf, body: &[u8]) -> Result<Option<SessionEvent>, ProtocolError> {
        self.read(head, body, |session, frame, now| session.handle_frame(frame, now, || ()))
    }

    /// Has a frame arrive, for `handle` to do something with it.
    pub(crate) fn read<R>(
        &mut self,
        mut head: HeadBuf,
        body: &[u8],
        handle: impl FnOnce(&mut Session<()>, &Frame<'_>, Time) -> R,
    ) -> R {
        let mut bytes = head.finish(body.len()).to_vec();
        bytes.extend_from_slice(body);
        let mut input = Input::new(bytes.len());
        input.space()[..bytes.len()].copy_from_slice(&bytes);
        input.advance(bytes.len());
        let raw = input.next_frame(self.limits.max_frame).unwrap().unwrap();
        let frame = Frame::read(raw, Mode::Single).unwrap();
        let handled = handle(&mut self.session, &frame, self.now);
        self.session.flush(&mut self.out);
        handled
    }

    pub(crate) fn open(&mut self, xid: u64, flags: u8, message: &[u8]) -> Result<Option<SessionEvent>, ProtocolError> {
        let mut head = exchange_head(kind::OPEN, flags, None, Xid(xid));
        Open { method: 0, timeout_ms: None, total: None }.write(&mut head);
        self.receive(head, message)
    }

    pub(crate) fn data(&mut self, xid: u64, flags: u8, message: &[u8]) -> Result<Option<SessionEvent>, ProtocolError> {
        self.receive(exchange_head(kind::DATA, flags, None, Xid(xid)), message)
    }

    /// Opens a call of this side and yields its key; its id is 0 for the first, 2 for the next.
    pub(crate) fn call(&mut self, answer: AnswerKind, more: bool) -> ExchangeKey {
        let command = OpenCommand { method: 0, timeout: None, body: vec![1, 2, 3].into(), more, answer };
        self.session.open_now(command, (), &mut self.out).unwrap()
    }

    /// The bytes that have been written since the last look.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        while let Some((_, lane)) = self.out.next_session() {
            self.session.transmit(lane, &mut self.out);
        }
        let mut output = Output::default();
        self.out.swap(&mut output);
        let mut bytes = Vec::new();
        output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        bytes
    }

    /// What has been written since the last look: the kinds of the frames, with the code of resets.
    pub(crate) fn written(&mut self) -> Vec<String> {
        let bytes = self.bytes();
        let mut input = Input::new(bytes.len().max(8));
        input.space()[..bytes.len()].copy_from_slice(&bytes);
        input.advance(bytes.len());
        let mut frames = Vec::new();
        while let Some(raw) = input.next_frame(self.limits.max_frame).unwrap() {
            let frame = Frame::read(raw, Mode::Single).unwrap();
            frames.push(match frame.kind {
                kind::OPEN => "OPEN".into(),
                kind::DATA => "DATA".into(),
                kind::RESET => format!("RESET {:?}", Reset::read(frame.body).unwrap().reason.code),
                kind::CANCEL => "CANCEL".into(),
                kind::ACCEPT => "ACCEPT".into(),
                kind::MAX_STREAM => "MAX_STREAM".into(),
                kind::MAX_SESSION => "MAX_SESSION".into(),
                kind::ACK => "ACK".into(),
                kind::S_CLOSE => "S_CLOSE".into(),
                kind::S_CLOSE_DONE => format!("DONE {}", frame.body[0]),
                other => format!("{other:#04x}"),
            });
        }
        frames
    }
}

/// A whole message and the end of its direction.
pub(crate) const WHOLE: u8 = flag::EOM | flag::END;

pub(crate) fn key_of(event: Result<Option<SessionEvent>, ProtocolError>) -> ExchangeKey {
    match event {
        Ok(Some(SessionEvent::Opened { key, .. })) => key,
        other => panic!("no call arrived: {other:?}"),
    }
}

pub(crate) fn code_of<T: std::fmt::Debug>(result: Result<T, ProtocolError>) -> Code {
    result.expect_err("the peer broke a rule").reason.code
}
