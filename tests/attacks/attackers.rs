//! Peers that mean harm, by hand: frames as bytes, and no rule kept but those that the attack needs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rpc::__private::Client;
use rpc::{Code, Connected, Endpoint};
use rpc_core::codec::Codec;
use rpc_core::id::{Sid, Xid};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Mode, Open, Reason, Reset, exchange_head, flag, kind, session_head};
use rpc_core::wire::hello::{Hello, PREFACE, SessionOpen, Windows};
use rpc_core::wire::varint;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::stand::{HANG, TargetClient};

/// How an attack ended, and how many frames (connections, where it is about those) it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// CONN_CLOSE, or an end without it.
    Connection(Option<Code>),
    Session(Code),
    /// RESET of the last exchange.
    Exchange(Code),
    /// It was served, or borne.
    Borne,
}

type Run = fn(Endpoint) -> futures::future::BoxFuture<'static, (Ended, u64)>;

/// A row of the table in docs/SECURITY.md.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
    pub(crate) ends: Ended,
    /// Bytes above idle that the server may come to.
    pub(crate) bytes: u64,
    /// Handlers at a time.
    pub(crate) handlers: u64,
}

const MIB: u64 = 1 << 20;

/// All of them.
pub(crate) fn all() -> Vec<Attack> {
    let attack = |name, run: Run, ends, mib, handlers| Attack { name, run, ends, bytes: mib * MIB, handlers };
    use Ended::{Borne, Connection, Exchange, Session};
    // What grows besides: the allocator keeps what was used once. 8 MiB are one idle server's noise.
    vec![
        attack("rapid reset", |to| Box::pin(rapid_reset(to, "hang", flag::END)), Session(Code::CALM), 8, 1024),
        attack("rapid reset of streams", |to| Box::pin(rapid_reset(to, "endless", flag::END)), Session(Code::CALM), 8, 0),
        attack(
            "rapid reset, one way",
            |to| Box::pin(rapid_reset(to, "stay", flag::END | flag::ONEWAY)),
            Session(Code::CALM),
            8,
            1024,
        ),
        attack(
            "rapid reset in ever new sessions",
            |to| Box::pin(session_after_session(to)),
            Connection(Some(Code::CALM)),
            8,
            1024,
        ),
        attack("resets provoked: unknown method", |to| Box::pin(provoked(to, 999, b"")), Session(Code::CALM), 8, 0),
        attack("resets provoked: arguments", |to| Box::pin(provoked(to, method("tree"), b"\xFF")), Session(Code::CALM), 8, 0),
        attack("rejections provoked", |to| Box::pin(rejections(to)), Connection(Some(Code::CALM)), 8, 0),
        attack("metadata over their limit", |to| Box::pin(metadata(to)), Session(Code::CALM), 8, 0),
        attack("PING flood", |to| Box::pin(pings(to)), Connection(Some(Code::CALM)), 8, 0),
        attack("replies never taken", |to| Box::pin(replies_untaken(to)), Connection(None), 8, 0),
        attack("empty pieces", |to| Box::pin(empty_pieces(to)), Session(Code::CALM), 8, 1),
        attack("tiny items that nobody reads", |to| Box::pin(tiny_items(to)), Exchange(Code::FLOW), 16, 1),
        attack("maxima at the end of numbers", |to| Box::pin(large_maxima(to)), Borne, 8, 1),
        attack("more than the session's credit", |to| Box::pin(session_overrun(to)), Session(Code::FLOW), 24, 1024),
        attack("answers never read", |to| Box::pin(answers_unread(to)), Connection(None), 900, 0),
        attack("a byte now and then", |to| Box::pin(dribble(to)), Connection(None), 24, 0),
        attack("length of a frame", |to| Box::pin(frame_length(to)), Connection(Some(Code::TOO_LARGE)), 8, 0),
        attack("length of a message", |to| Box::pin(message_length(to)), Exchange(Code::TOO_LARGE), 8, 0),
        attack(
            "length of a list",
            |to| Box::pin(decode(to, "wide", b"\xFF\xFF\xFF\xFF\x0F".to_vec())),
            Exchange(Code::BAD_ARGUMENTS),
            8,
            0,
        ),
        attack("recursion", |to| Box::pin(decode(to, "tree", vec![1; 60_000])), Exchange(Code::BAD_ARGUMENTS), 8, 0),
        attack(
            "items of no size",
            |to| Box::pin(decode(to, "units", vec![0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F])),
            Exchange(Code::BAD_ARGUMENTS),
            8,
            0,
        ),
        attack(
            "items much larger in memory",
            |to| Box::pin(decode(to, "wide", amplified())),
            Exchange(Code::BAD_ARGUMENTS),
            16,
            0,
        ),
        attack("messages never finished", |to| Box::pin(unfinished(to)), Session(Code::FLOW), 24, 0),
        attack("ids used again", |to| Box::pin(old_id(to)), Session(Code::PROTOCOL), 8, 0),
        attack("ids chosen to collide", |to| Box::pin(chosen_sid(to)), Connection(Some(Code::PROTOCOL)), 8, 0),
        attack("a varint longer than it need be", |to| Box::pin(padded(to)), Connection(Some(Code::PROTOCOL)), 8, 0),
        attack("HELLO for the second time", |to| Box::pin(second_hello(to)), Connection(Some(Code::UNKNOWN_FRAME)), 8, 0),
        attack("connections cut in mid-call", |to| Box::pin(cut_off(to)), Borne, 24, 1024),
        attack("a hundred streams that nobody reads", |to| Box::pin(streams_unread(to)), Borne, 200, 0),
        attack("handlers that panic", |to| Box::pin(panics(to)), Exchange(Code::INTERNAL), 8, 0),
    ]
}

fn method(name: &str) -> u64 {
    let methods = TargetClient::info().methods;
    methods.iter().position(|method| method.name == name).expect("the service has the method") as u64
}

fn args(args: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Codec::Postcard.encode(args, &mut bytes).expect("arguments can be encoded");
    bytes
}

fn frame(mut head: HeadBuf, body: &[u8]) -> Vec<u8> {
    [head.finish(body.len()), body].concat()
}

fn hello() -> Vec<u8> {
    let mut body = Vec::new();
    Hello {
        versions: (1, 1),
        mode: Mode::Multi,
        max_frame: 1 << 20,
        codecs: vec![1],
        units: 0,
        required_units: 0,
        connection_window: 1 << 40,
        sessions: 128,
        keepalive_interval_ms: 0,
        keepalive_timeout_ms: 0,
    }
    .write(&mut body);
    frame(HeadBuf::new(kind::HELLO, 0), &body)
}

fn session(sid: u64, service: &str) -> Vec<u8> {
    let windows = Windows { stream: 1 << 30, session: 1 << 40, exchanges: 1 << 20, message: 4 << 20 };
    let fingerprint = TargetClient::info().fingerprint;
    let mut body = Vec::new();
    SessionOpen { service: service.into(), fingerprint, codecs: vec![1], windows, weight: 16 }.write(&mut body);
    frame(session_head(kind::S_OPEN, 0, Some(Sid(sid))), &body)
}

fn open(sid: u64, xid: u64, method: u64, flags: u8, args: &[u8]) -> Vec<u8> {
    let mut head = exchange_head(kind::OPEN, flags | flag::EOM, Some(Sid(sid)), Xid(xid));
    Open { method, timeout_ms: None, total: None }.write(&mut head);
    frame(head, args)
}

fn data(sid: u64, xid: u64, flags: u8, body: &[u8]) -> Vec<u8> {
    frame(exchange_head(kind::DATA, flags, Some(Sid(sid)), Xid(xid)), body)
}

fn cancel(sid: u64, xid: u64) -> Vec<u8> {
    let mut head = exchange_head(kind::CANCEL, 0, Some(Sid(sid)), Xid(xid));
    head.varint(Code::CANCELLED.0.into());
    frame(head, b"")
}

/// PINGs that are told apart from those of an attack.
const FIRST: u8 = 7;
const SECOND: u8 = 8;

fn ping(token: u8) -> Vec<u8> {
    frame(HeadBuf::new(kind::PING, 0), &[token; 8])
}

/// One end of a connection.
struct Raw {
    io: Connected,
}

/// What a frame of the server's tells an attacker.
enum Told {
    Over(Ended),
    /// RESET.
    Reset(Code),
    /// The first of its bytes.
    Pong(u8),
    Other,
}

/// Reads a frame. At the end of the connection the code of CONN_CLOSE was not among the frames before.
async fn next(io: &mut (impl AsyncReadExt + Unpin)) -> Told {
    let mut head = [0; 5];
    if io.read_exact(&mut head).await.is_err() {
        return Told::Over(Ended::Connection(None));
    }
    let mut rest = vec![0; u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize - 1];
    if io.read_exact(&mut rest).await.is_err() {
        return Told::Over(Ended::Connection(None));
    }
    let body = |ids: usize| {
        let mut body = &rest[..];
        (0..ids).for_each(|_| drop(varint::read(&mut body, "an id")));
        body
    };
    match head[0] {
        kind::CONN_CLOSE => Told::Over(Ended::Connection(Reason::read(&rest).ok().map(|reason| reason.code))),
        kind::S_ABORT => Told::Over(Ended::Session(Reason::read(body(2)).expect("the library writes S_ABORT").code)),
        kind::RESET => Told::Reset(Reset::read(body(2)).expect("the library writes RESET").reason.code),
        kind::PONG => Told::Pong(rest[0]),
        _ => Told::Other,
    }
}

impl Raw {
    async fn connect(to: &Endpoint) -> Self {
        Self { io: rpc::dial(to).await.expect("the server listens") }
    }

    /// Behind the handshake, with session 0.
    async fn new(to: &Endpoint) -> Self {
        let mut raw = Self::connect(to).await;
        raw.io.write_all(&[&PREFACE[..], &hello(), &session(0, "Target")].concat()).await.expect("the server reads");
        let mut preface = [0; PREFACE.len()];
        raw.io.read_exact(&mut preface).await.expect("the server answers");
        // HELLO_ACK and S_ACCEPT.
        for _ in 0..2 {
            assert!(matches!(next(&mut raw.io).await, Told::Other), "the session is accepted");
        }
        raw
    }

    /// Writes so many times what `bytes` yields, and a PING; reads all the while, until the PONG or an end. Tells what came
    /// last, and how many times it wrote.
    async fn flood(self, times: u64, bytes: impl Fn(u64) -> Vec<u8> + Send + Sync) -> (Ended, u64) {
        let (mut read, mut write) = tokio::io::split(self.io);
        let (written, again) = (AtomicU64::new(0), Notify::new());
        let writing = async {
            for first in (0..times).step_by(64) {
                let chunk: Vec<u8> = (first..times.min(first + 64)).flat_map(&bytes).collect();
                if write.write_all(&chunk).await.is_err() {
                    break;
                }
                written.store(times.min(first + 64), Ordering::Relaxed);
            }
            let _ = write.write_all(&ping(FIRST)).await;
            again.notified().await;
            let _ = write.write_all(&ping(SECOND)).await;
            std::future::pending().await
        };
        let reading = async {
            let mut ended = Ended::Borne;
            loop {
                match next(&mut read).await {
                    Told::Over(over) => return over,
                    Told::Reset(code) => ended = Ended::Exchange(code),
                    // PONG goes ahead of what waits; behind the second one nothing of the first one's time is left.
                    Told::Pong(FIRST) => again.notify_one(),
                    Told::Pong(SECOND) => return ended,
                    Told::Pong(_) | Told::Other => {}
                }
            }
        };
        let ended = tokio::select! {
            ended = reading => ended,
            () = writing => Ended::Borne,
            () = tokio::time::sleep(HANG) => panic!("the attack is borne for ever"),
        };
        (ended, written.into_inner())
    }

    /// The same with bytes that are written once.
    async fn say(self, bytes: Vec<u8>) -> (Ended, u64) {
        self.flood(1, |_| bytes.clone()).await
    }
}

/// More than any bucket holds.
const FLOOD: u64 = 200_000;

async fn rapid_reset(to: Endpoint, name: &'static str, flags: u8) -> (Ended, u64) {
    let method = method(name);
    Raw::new(&to).await.flood(FLOOD, |n| [open(0, 2 * n, method, flags, b""), cancel(0, 2 * n)].concat()).await
}

/// As many as a session bears, then the next session.
async fn session_after_session(to: Endpoint) -> (Ended, u64) {
    let method = method("hang");
    let (mut read, mut write) = tokio::io::split(Raw::new(&to).await.io);
    let calls = |sid| move |n: u64| [open(sid, 2 * n, method, flag::END, b""), cancel(sid, 2 * n)].concat();
    let mut frames = 0;
    for sid in (0..).step_by(2) {
        let opened = if sid == 0 { Vec::new() } else { session(sid, "Target") };
        let bytes = [opened, (0..300).flat_map(calls(sid)).collect()].concat();
        let _ = write.write_all(&bytes).await;
        frames += 300;
        loop {
            match next(&mut read).await {
                Told::Over(Ended::Session(_)) => break,
                Told::Over(ended) => return (ended, frames),
                _ => {}
            }
        }
        assert!(frames < FLOOD, "the attack is borne for ever");
    }
    unreachable!("sessions do not run out")
}

async fn provoked(to: Endpoint, method: u64, args: &'static [u8]) -> (Ended, u64) {
    Raw::new(&to).await.flood(FLOOD, |n| open(0, 2 * n, method, flag::END, args)).await
}

async fn rejections(to: Endpoint) -> (Ended, u64) {
    Raw::new(&to).await.flood(FLOOD, |n| session(2 * n + 2, "Nobody offers this")).await
}

async fn metadata(to: Endpoint) -> (Ended, u64) {
    let pairs: Vec<u8> = (0..65).flat_map(|n| [2, b'a' + n / 26, b'a' + n % 26, 0]).collect();
    let echo = method("echo");
    let call = |n: u64| {
        let mut head = exchange_head(kind::OPEN, flag::EOM | flag::END | flag::EXT, Some(Sid(0)), Xid(2 * n));
        head.varint(echo);
        head.varint(8);
        head.varint(pairs.len() as u64);
        frame(head, &pairs)
    };
    Raw::new(&to).await.flood(5000, call).await
}

async fn pings(to: Endpoint) -> (Ended, u64) {
    Raw::new(&to).await.flood(FLOOD, |_| ping(0)).await
}

/// Writes until nothing is taken any more, and reads nothing before the end.
async fn write_only(mut raw: Raw, bytes: impl Fn(u64) -> Vec<u8> + Send + Sync) -> (Ended, u64) {
    let writing = async {
        for n in 0..FLOOD {
            if raw.io.write_all(&bytes(n)).await.is_err() {
                return n;
            }
        }
        // All of it was taken; what it asked for is not.
        let _ = raw.io.read_exact(&mut [0]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut rest = [0; 64 * 1024];
        while raw.io.read(&mut rest).await.is_ok_and(|n| n > 0) {}
        FLOOD
    };
    let frames = tokio::time::timeout(HANG, writing).await.expect("the attack is borne for ever");
    (Ended::Connection(None), frames)
}

/// Sessions that are rejected, and a peer that does not want to know.
async fn replies_untaken(to: Endpoint) -> (Ended, u64) {
    write_only(Raw::new(&to).await, |n| session(2 * n + 2, "Nobody offers this")).await
}

async fn empty_pieces(to: Endpoint) -> (Ended, u64) {
    let hold = method("hold");
    let raw = Raw::new(&to).await;
    raw.flood(FLOOD, |n| if n == 0 { open(0, 0, hold, 0, b"") } else { data(0, 0, 0, b"") }).await
}

/// One byte each, each charged for 16.
async fn tiny_items(to: Endpoint) -> (Ended, u64) {
    let hold = method("hold");
    Raw::new(&to).await.flood(16_400, |n| if n == 0 { open(0, 0, hold, 0, b"") } else { data(0, 0, flag::EOM, b"\0") }).await
}

async fn large_maxima(to: Endpoint) -> (Ended, u64) {
    let most = varint::MAX;
    let (hang, echo) = (method("hang"), method("echo"));
    let raise = |n| {
        let mut connection = HeadBuf::new(kind::MAX_CONN_DATA, 0);
        connection.varint(most - n % 2);
        let mut session = session_head(kind::MAX_SESSION, 0, Some(Sid(0)));
        session.varint(most - n % 2);
        session.varint(most - n % 2);
        let mut stream = exchange_head(kind::MAX_STREAM, 0, Some(Sid(0)), Xid(0));
        stream.varint(most - n % 2);
        [frame(connection, b""), frame(session, b""), frame(stream, b"")].concat()
    };
    let first = [open(0, 0, hang, flag::END, b""), open(0, 2, echo, flag::END, &args(&(&b"x"[..],)))].concat();
    Raw::new(&to).await.flood(10_000, |n| if n == 0 { first.clone() } else { raise(n) }).await
}

/// Streams that are within their windows, and more than the session has.
async fn session_overrun(to: Endpoint) -> (Ended, u64) {
    let hold = method("hold");
    let item = vec![0; 250_000];
    let call = |n| [open(0, 2 * n, hold, 0, b""), data(0, 2 * n, flag::EOM, &item)].concat();
    Raw::new(&to).await.flood(1000, call).await
}

/// As many answers of 4 MB as places are, to a peer that takes none.
async fn answers_unread(to: Endpoint) -> (Ended, u64) {
    let method = method("large");
    let size = args(&(4_000_000u64,));
    let mut raw = Raw::new(&to).await;
    for n in 0..200 {
        let _ = raw.io.write_all(&open(0, 2 * n, method, flag::END, &size)).await;
    }
    // Nothing is read until the server has lost its patience.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rest = vec![0; 1 << 20];
    while raw.io.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    (Ended::Connection(None), 200)
}

/// Handshakes a byte at a time, on many connections.
async fn dribble(to: Endpoint) -> (Ended, u64) {
    let bytes = [&PREFACE[..], &hello()].concat();
    let slow = (0..200).map(|_| async {
        let mut raw = Raw::connect(&to).await;
        for byte in &bytes {
            if raw.io.write_all(&[*byte]).await.is_err() {
                break;
            }
            let mut answer = [0];
            let wait = tokio::time::timeout(Duration::from_millis(500), raw.io.read(&mut answer));
            if wait.await.is_ok_and(|read| read.is_err() || read.is_ok_and(|n| n == 0)) {
                return;
            }
        }
        panic!("a handshake of half a minute was borne");
    });
    futures::future::join_all(slow).await;
    (Ended::Connection(None), 200)
}

async fn frame_length(to: Endpoint) -> (Ended, u64) {
    Raw::new(&to).await.say(vec![kind::DATA, 0xFF, 0xFF, 0xFF, 0]).await
}

/// 4 GiB and more are stated, 20 bytes come.
async fn message_length(to: Endpoint) -> (Ended, u64) {
    let echo = method("echo");
    let call = |n: u64| {
        let mut head = exchange_head(kind::OPEN, 0, Some(Sid(0)), Xid(2 * n));
        Open { method: echo, timeout_ms: None, total: Some((4 << 20) + 1 + (n << 32)) }.write(&mut head);
        frame(head, &[0; 20])
    };
    Raw::new(&to).await.flood(500, call).await
}

async fn decode(to: Endpoint, name: &str, args: Vec<u8>) -> (Ended, u64) {
    let method = method(name);
    Raw::new(&to).await.flood(60, |n| open(0, 2 * n, method, flag::END, &args)).await
}

/// 60,000 times a kilobyte that is not there.
fn amplified() -> Vec<u8> {
    let mut bytes = args(&60_000u32);
    bytes.resize(bytes.len() + 60_000, 0);
    bytes
}

/// The first piece of a message on each of all places, and then as much as goes of each.
async fn unfinished(to: Endpoint) -> (Ended, u64) {
    let echo = method("echo");
    let begin = |n: u64| {
        let mut head = exchange_head(kind::OPEN, 0, Some(Sid(0)), Xid(2 * n));
        Open { method: echo, timeout_ms: None, total: Some(4 << 20) }.write(&mut head);
        frame(head, &[0; 3000])
    };
    Raw::new(&to).await.flood(1025, begin).await
}

async fn old_id(to: Endpoint) -> (Ended, u64) {
    let echo = method("echo");
    let call = open(0, 0, echo, flag::END, &args(&(&b"x"[..],)));
    Raw::new(&to).await.say([call.clone(), call].concat()).await
}

async fn chosen_sid(to: Endpoint) -> (Ended, u64) {
    Raw::new(&to).await.say(session(1 << 32, "Target")).await
}

/// The sid 0 in two bytes.
async fn padded(to: Endpoint) -> (Ended, u64) {
    Raw::new(&to).await.say(vec![kind::DATA, 4, 0, 0, 0, 0x40, 0x00, 0x00]).await
}

async fn second_hello(to: Endpoint) -> (Ended, u64) {
    Raw::new(&to).await.say(hello()).await
}

/// Calls under way and half a frame, again and again.
async fn cut_off(to: Endpoint) -> (Ended, u64) {
    let (hang, stay) = (method("hang"), method("stay"));
    for _ in 0..200 {
        let mut raw = Raw::new(&to).await;
        let calls = (0..8).flat_map(|n| {
            open(0, 4 * n, hang, flag::END, b"").into_iter().chain(open(0, 4 * n + 2, stay, flag::END | flag::ONEWAY, b""))
        });
        let bytes: Vec<u8> = calls.chain([kind::DATA, 100, 0, 0]).collect();
        let _ = raw.io.write_all(&bytes).await;
    }
    (Ended::Borne, 200)
}

/// Streams without an end, of which nobody takes anything; the session goes on.
async fn streams_unread(to: Endpoint) -> (Ended, u64) {
    let (endless, echo) = (method("endless"), method("echo"));
    let mut raw = Raw::connect(&to).await;
    let windows = Windows { stream: 64 * 1024, session: 1 << 30, exchanges: 1024, message: 4 << 20 };
    let mut body = Vec::new();
    let fingerprint = TargetClient::info().fingerprint;
    SessionOpen { service: "Target".into(), fingerprint, codecs: vec![1], windows, weight: 16 }.write(&mut body);
    let narrow = frame(session_head(kind::S_OPEN, 0, Some(Sid(0))), &body);
    let _ = raw.io.write_all(&[&PREFACE[..], &hello(), &narrow].concat()).await;
    let _ = raw.io.read_exact(&mut [0; PREFACE.len()]).await;
    let calls =
        |n| if n < 100 { open(0, 2 * n, endless, flag::END, b"") } else { open(0, 2 * n, echo, flag::END, &args(&(&b"x"[..],))) };
    raw.flood(101, calls).await
}

async fn panics(to: Endpoint) -> (Ended, u64) {
    let panics = method("panics");
    Raw::new(&to).await.flood(900, |n| open(0, 2 * n, panics, flag::END, b"")).await
}
