//! What does a session cost that is only there, and what does a call cost beside a million of them? The server's side alone:
//! the client is a few frames by hand, so that what this process grows by is the server's.
//!
//! `cargo bench --bench sessions` prints a table; `cargo bench --bench sessions -- 100000` a row. Read the bytes down the
//! column, and the times of a row beside those of the first: flat is the goal. "one" calls in one session, "each" in another
//! session with every call, so that each of them wakes one that is at rest.
#![allow(clippy::print_stdout, reason = "it is a bench")]

mod common;

use std::process::Command;
use std::time::Instant;

use common::{EchoClient, EchoServer, Echoes, runtime};
use rpc::__private::Client;
use rpc::{Limits, Server};
use rpc_core::codec::Codec;
use rpc_core::id::{Sid, Xid};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Mode, Open, exchange_head, flag, kind, session_head};
use rpc_core::wire::hello::{Hello, PREFACE, SessionOpen, Windows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many sessions, by default.
const ROWS: [u64; 4] = [1, 1_000, 100_000, 1_000_000];

/// Sessions that are opened before their answers are read.
const AT_ONCE: u64 = 500;

fn main() {
    let wanted: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if std::env::var_os(ROW).is_some() {
        return runtime(1).block_on(row(wanted[0]));
    }
    println!("| sessions | bytes a session | to open, µs | a call, one, µs | a call, each, µs |");
    println!("|--:|--:|--:|--:|--:|");
    for sessions in if wanted.is_empty() { ROWS.to_vec() } else { wanted } {
        // A process of its own: memory that was freed would be used again.
        let program = std::env::current_exe().expect("a bench is a program");
        let done = Command::new(program).arg(sessions.to_string()).env(ROW, "1").status().expect("it starts");
        assert!(done.success());
    }
}

/// The variable by which a process is told to measure a row.
const ROW: &str = "RPC_BENCH_ROW";

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn frame(mut head: HeadBuf, body: &[u8]) -> Vec<u8> {
    [head.finish(body.len()), body].concat()
}

struct Raw {
    io: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    /// Reads until `count` frames of a kind have come.
    async fn expect(&mut self, wanted: u8, mut count: u64) {
        loop {
            let mut at = 0;
            while let Some(&[kind, a, b, c]) = self.unread.get(at..at + 4) {
                let len = 4 + u32::from_le_bytes([a, b, c, 0]) as usize;
                if self.unread.len() < at + len {
                    break;
                }
                count -= u64::from(kind == wanted);
                at += len;
            }
            self.unread.drain(..at);
            if count == 0 {
                return;
            }
            assert!(self.io.read_buf(&mut self.unread).await.expect("the server answers") > 0);
        }
    }

    async fn call(&mut self, sid: u64, call: u64, method: u64, args: &[u8]) {
        let mut head = exchange_head(kind::OPEN, flag::EOM | flag::END, Some(Sid(sid)), Xid(2 * call));
        Open { method, timeout_ms: None, total: None }.write(&mut head);
        self.io.write_all(&frame(head, args)).await.expect("the server reads");
        self.expect(kind::DATA, 1).await;
    }
}

async fn row(sessions: u64) {
    let limits = Limits::default().sessions(2 << 20);
    let server = Server::builder().service(EchoServer::new(Echoes)).limits(limits);
    let server = server.listen("tcp://127.0.0.1:0").await.expect("loopback listens");
    let io = TcpStream::connect(server.endpoint().to_string().trim_start_matches("tcp://")).await.expect("it listens");
    io.set_nodelay(true).expect("TCP has the option");
    let mut raw = Raw { io, unread: Vec::with_capacity(1 << 16) };
    let hello = Hello {
        versions: (1, 1),
        mode: Mode::Multi,
        max_frame: 1 << 18,
        codecs: vec![1],
        units: 0,
        required_units: 0,
        connection_window: 1 << 40,
        sessions: 0,
        keepalive_interval_ms: 0,
        keepalive_timeout_ms: 0,
    };
    let mut body = Vec::new();
    hello.write(&mut body);
    raw.io.write_all(&[&PREFACE[..], &frame(HeadBuf::new(kind::HELLO, 0), &body)].concat()).await.expect("the server reads");
    let mut preface = [0; PREFACE.len()];
    raw.io.read_exact(&mut preface).await.expect("the server greets");
    raw.expect(kind::HELLO_ACK, 1).await;

    let own = Limits::default();
    let windows = Windows {
        stream: own.stream_window,
        session: own.session_window,
        exchanges: own.exchanges,
        message: own.max_message.into(),
    };
    let info = EchoClient::info();
    let open = SessionOpen { service: info.name.into(), fingerprint: info.fingerprint, codecs: vec![1], windows, weight: 16 };
    let mut open_body = Vec::new();
    open.write(&mut open_body);
    let (before, start) = (resident(), Instant::now());
    let mut opened = 0;
    while opened < sessions {
        let more = AT_ONCE.min(sessions - opened);
        let sids = opened..opened + more;
        let opens: Vec<u8> = sids.flat_map(|n| frame(session_head(kind::S_OPEN, 0, Some(Sid(2 * n))), &open_body)).collect();
        raw.io.write_all(&opens).await.expect("the server reads");
        raw.expect(kind::S_ACCEPT, more).await;
        opened += more;
    }
    let opening = start.elapsed();
    let bytes = resident().saturating_sub(before) / sessions;

    let method = info.methods.iter().position(|method| method.name == "echo").expect("it is there") as u64;
    let mut args = Vec::new();
    Codec::Postcard.encode(&(&[7u8; 64][..],), &mut args).expect("bytes can be encoded");
    // Not more calls than places: what a session at rest has granted is enough for all.
    let calls = 1000;
    let start = Instant::now();
    for call in 0..calls {
        raw.call(0, call, method, &args).await;
    }
    let one = start.elapsed();
    let start = Instant::now();
    for call in 0..calls {
        let session = call * sessions.div_ceil(calls) % sessions;
        let turn = if sessions >= calls { 0 } else { call / sessions };
        let first = if session == 0 { calls } else { 0 };
        raw.call(2 * session, first + turn, method, &args).await;
    }
    let each = start.elapsed();
    let micros = |time: std::time::Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "| {sessions} | {bytes} | {:.2} | {:.1} | {:.1} |",
        micros(opening, sessions),
        micros(one, calls),
        micros(each, calls)
    );
}
