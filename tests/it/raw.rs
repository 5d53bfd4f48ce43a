//! A peer by hand: frames as bytes over a socket, with no rule kept but those that the test keeps.

use rpc::__private::Client;
use rpc::{Address, Code, Endpoint, Limits};
use rpc_core::codec::Codec;
use rpc_core::id::{Sid, Xid};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Mode, Open, Reason, Reset, exchange_head, flag, kind, session_head};
use rpc_core::wire::hello::{Hello, PREFACE, SessionAccept, SessionOpen, Windows};
use rpc_core::wire::varint;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::soon;
use crate::lab::LabClient;

/// A frame as it came, ids still in front of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) rest: Vec<u8>,
}

impl RawFrame {
    /// Takes `ids` varints off the front.
    pub(crate) fn body(&self, ids: usize) -> &[u8] {
        let mut rest = &self.rest[..];
        for _ in 0..ids {
            varint::read(&mut rest, "an id").expect("the library writes its ids");
        }
        rest
    }
}

/// One end of a socket.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) io: TcpStream,
}

/// Where a TCP endpoint is.
pub(crate) fn address(endpoint: &Endpoint) -> (String, u16) {
    match endpoint.address() {
        Address::Tcp { host, port } | Address::Tls { host, port } => (host.clone(), *port),
        _ => panic!("{endpoint} is no TCP endpoint"),
    }
}

/// A listener that is no rpc server, and its endpoint.
pub(crate) async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let endpoint = format!("tcp://{}", listener.local_addr().expect("it is bound"));
    (listener, endpoint)
}

/// The bytes of a frame.
pub(crate) fn frame(mut head: HeadBuf, body: &[u8]) -> Vec<u8> {
    let mut bytes = head.finish(body.len()).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A HELLO or HELLO_ACK with the default limits.
pub(crate) fn hello(mode: Mode) -> Hello {
    let limits = Limits::default();
    Hello {
        versions: (1, 1),
        mode,
        max_frame: limits.max_frame,
        codecs: vec![1],
        units: 0,
        required_units: 0,
        connection_window: limits.connection_window,
        sessions: limits.sessions,
        keepalive_interval_ms: 15_000,
        keepalive_timeout_ms: 10_000,
    }
}

/// Windows that never stand in the way.
pub(crate) fn wide() -> Windows {
    Windows { stream: 1 << 30, session: 1 << 30, exchanges: 1 << 20, message: 4 << 20 }
}

/// A whole greeting.
pub(crate) fn greeting(kind: u8, hello: &Hello) -> Vec<u8> {
    let mut body = Vec::new();
    hello.write(&mut body);
    [&PREFACE[..], &frame(HeadBuf::new(kind, 0), &body)].concat()
}

/// The bytes of an S_OPEN.
pub(crate) fn session_open(sid: u64, service: &str) -> Vec<u8> {
    session_open_in(sid, service, LabClient::info().fingerprint, &[1])
}

/// The same with codecs of one's own.
pub(crate) fn session_open_in(sid: u64, service: &str, fingerprint: u64, codecs: &[u8]) -> Vec<u8> {
    let open = SessionOpen { service: service.into(), fingerprint, codecs: codecs.to_vec(), windows: wide(), weight: 16 };
    let mut body = Vec::new();
    open.write(&mut body);
    frame(session_head(kind::S_OPEN, 0, Some(Sid(sid))), &body)
}

/// The number of a method of the lab.
pub(crate) fn method(name: &str) -> u64 {
    method_of::<LabClient>(name)
}

/// The number of a method of any service.
pub(crate) fn method_of<C: Client>(name: &str) -> u64 {
    C::info().methods.iter().position(|method| method.name == name).expect("the service has the method") as u64
}

/// Arguments as they travel.
pub(crate) fn args(args: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Codec::Postcard.encode(args, &mut bytes).expect("arguments can be encoded");
    bytes
}

/// The bytes of an OPEN whose arguments are in one piece.
pub(crate) fn open(sid: u64, xid: u64, method: u64, flags: u8, args: &[u8]) -> Vec<u8> {
    let mut head = exchange_head(kind::OPEN, flags | flag::EOM, Some(Sid(sid)), Xid(xid));
    Open { method, timeout_ms: None, total: None }.write(&mut head);
    frame(head, args)
}

/// The bytes of a DATA.
pub(crate) fn data(sid: u64, xid: u64, flags: u8, body: &[u8]) -> Vec<u8> {
    frame(exchange_head(kind::DATA, flags, Some(Sid(sid)), Xid(xid)), body)
}

impl Raw {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Self {
        Self { io: TcpStream::connect(address(endpoint)).await.expect("the server listens") }
    }

    /// Connects and shakes hands as a client that never lacks room.
    pub(crate) async fn client(endpoint: &Endpoint) -> Self {
        Self::client_with(endpoint, &[1]).await.0
    }

    /// The same with codecs of one's own; tells those of the answer.
    pub(crate) async fn client_with(endpoint: &Endpoint, codecs: &[u8]) -> (Self, Vec<u8>) {
        let mut raw = Self::connect(endpoint).await;
        let hello = Hello { connection_window: 1 << 40, codecs: codecs.to_vec(), ..hello(Mode::Multi) };
        raw.write(&greeting(kind::HELLO, &hello)).await;
        raw.preface().await;
        let answer = raw.next(kind::HELLO_ACK).await;
        (raw, Hello::read(&answer.rest).expect("the library writes HELLO_ACK").codecs)
    }

    /// A client with a session of the lab, number `sid`.
    pub(crate) async fn session(&mut self, sid: u64) {
        self.write(&session_open(sid, "Lab")).await;
        let accept = self.next(kind::S_ACCEPT).await;
        SessionAccept::read(accept.body(1)).expect("the library writes S_ACCEPT");
    }

    /// Accepts a client and shakes hands as a server; `change` has a word in the answer.
    pub(crate) async fn server(listener: &TcpListener, change: impl FnOnce(&mut Hello)) -> Self {
        let (io, _) = listener.accept().await.expect("a client comes");
        let mut raw = Self { io };
        raw.preface().await;
        let asked = raw.next(kind::HELLO).await;
        let mode = Hello::read(&asked.rest).expect("the library writes HELLO").mode;
        let mut answer = hello(mode);
        change(&mut answer);
        raw.write(&greeting(kind::HELLO_ACK, &answer)).await;
        raw
    }

    /// Accepts whatever session is opened next.
    pub(crate) async fn accept_session(&mut self) {
        let open = self.next(kind::S_OPEN).await;
        let mut rest = &open.rest[..];
        let sid = varint::read(&mut rest, "the session id").expect("the library writes its ids");
        let mut body = Vec::new();
        SessionAccept { codec: 1, windows: wide(), methods: None }.write(&mut body);
        self.write(&frame(session_head(kind::S_ACCEPT, 0, Some(Sid(sid))), &body)).await;
    }

    /// Writes bytes. That the other end has closed is no failure: it will be seen by reading.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("the peer takes bytes", self.io.write_all(bytes)).await;
    }

    pub(crate) async fn preface(&mut self) {
        let mut preface = [0; PREFACE.len()];
        soon("the preface comes", self.io.read_exact(&mut preface)).await.expect("a preface");
        assert_eq!(preface, PREFACE);
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<RawFrame> {
        let read = async {
            let mut head = [0; 5];
            self.io.read_exact(&mut head).await.ok()?;
            let word = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
            let mut rest = vec![0; word - 1];
            self.io.read_exact(&mut rest).await.ok()?;
            Some(RawFrame { kind: head[0], flags: head[4], rest })
        };
        soon("a frame comes or the connection ends", read).await
    }

    /// The next frame of a kind; others are passed over.
    pub(crate) async fn next(&mut self, kind: u8) -> RawFrame {
        loop {
            match self.frame().await {
                Some(frame) if frame.kind == kind => return frame,
                Some(_) => {}
                None => panic!("the connection ended before a frame of kind {kind:#04x}"),
            }
        }
    }

    /// The next RESET, as its code.
    pub(crate) async fn reset(&mut self) -> Code {
        let frame = self.next(kind::RESET).await;
        Reset::read(frame.body(2)).expect("the library writes RESET").reason.code
    }

    /// The next S_ABORT, as its code.
    pub(crate) async fn aborted(&mut self) -> Code {
        let frame = self.next(kind::S_ABORT).await;
        Reason::read(frame.body(2)).expect("the library writes S_ABORT").code
    }

    /// Reads to the end; the reason in CONN_CLOSE, if there was one.
    pub(crate) async fn closed(&mut self) -> Option<Reason> {
        let mut reason = None;
        while let Some(frame) = self.frame().await {
            if frame.kind == kind::CONN_CLOSE {
                reason = Some(Reason::read(&frame.rest).expect("the library writes CONN_CLOSE"));
            }
        }
        reason
    }

    /// Reads to the end, bytes as they come.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = soon("the connection ends", self.io.read_to_end(&mut bytes)).await;
        bytes
    }
}
