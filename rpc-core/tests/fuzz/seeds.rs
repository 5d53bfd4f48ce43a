//! Inputs to start from: conversations as they should be, so that mutations of them get somewhere.

use rpc_core::code::Code;
use rpc_core::id::{Sid, Side, Xid};
use rpc_core::proto::Limits;
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Beside, GoAway, Mode, Open, Reason, Reset, exchange_head, flag, kind, session_head};
use rpc_core::wire::header::PREFIX;
use rpc_core::wire::hello::{PREFACE, Reject, SessionAccept, SessionOpen};

use crate::targets::connection::{frame, greeting};
use crate::targets::decode;

/// The frames of a peer that opens sessions, calls, streams, changes its mind and goes.
pub(crate) fn conversation() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for sid in [0, 2] {
        let windows = Limits::default().windows();
        let mut body = Vec::new();
        SessionOpen { service: "Kv".into(), fingerprint: 7, codecs: vec![1], windows, weight: 40 }.write(&mut body);
        frames.push(frame(session_head(kind::S_OPEN, 0, Some(Sid(sid))), &body));
        let head = |kind, flags, xid| exchange_head(kind, flags, Some(Sid(sid)), Xid(xid));
        let whole = flag::EOM | flag::END;
        let mut open = head(kind::OPEN, whole, 0);
        Open { method: 0, timeout_ms: None, total: None }.write(&mut open);
        frames.push(frame(open, b"arguments"));
        let mut open = head(kind::OPEN, flag::EXT, 2);
        Open { method: 3, timeout_ms: Some(500), total: Some(40) }.write(&mut open);
        frames.push(frame(open, &[1; 20]));
        frames.push(frame(head(kind::DATA, flag::EOM, 2), &[2; 20]));
        frames.push(frame(head(kind::DATA, flag::EOM, 2), b"an item"));
        frames.push(frame(head(kind::DATA, flag::END, 2), b""));
        let mut open = head(kind::OPEN, flag::EOM | flag::EXT, 4);
        let mut behind = Vec::new();
        Open { method: 1, timeout_ms: None, total: None }.write_with(
            Beside { urgency: 1, metadata: b"\x05trace\x02ab" },
            &mut open,
            &mut behind,
        );
        frames.push(frame(open, &[&behind[..], b"items follow"].concat()));
        let mut reset = Vec::new();
        Reset { final_offset: 24, reason: Reason::new(Code::CANCELLED, "enough") }.write(&mut reset);
        frames.push(frame(head(kind::RESET, 0, 4), &reset));
        let mut cancel = head(kind::CANCEL, 0, 0);
        cancel.varint(3);
        frames.push(frame(cancel, b""));
        let mut more = head(kind::MAX_STREAM, 0, 0);
        more.varint(1 << 20);
        frames.push(frame(more, b""));
        let mut more = session_head(kind::MAX_SESSION, 0, Some(Sid(sid)));
        more.varint(1 << 21);
        more.varint(2000);
        frames.push(frame(more, b""));
        frames.push(frame(session_head(kind::S_CLOSE, 0, Some(Sid(sid))), b""));
    }
    frames.push(frame(HeadBuf::new(kind::PING, 0), &[7; 8]));
    let mut credit = HeadBuf::new(kind::MAX_CONN_DATA, 0);
    credit.varint(1 << 22);
    frames.push(frame(credit, b""));
    let mut goaway = Vec::new();
    GoAway { deadline_ms: 1000, reason: Reason::new(Code::NO_ERROR, "deploy") }.write(&mut goaway);
    frames.push(frame(HeadBuf::new(kind::GOAWAY, 0), &goaway));
    frames
}

/// The bodies of what is negotiated.
fn negotiated() -> Vec<Vec<u8>> {
    let (mut accept, mut reject) = (Vec::new(), Vec::new());
    SessionAccept { codec: 1, windows: Limits::default().windows(), methods: Some(vec![1, 2, u64::MAX]) }.write(&mut accept);
    Reject { reason: Reason::new(Code::REFUSED, "no"), codecs: vec![1, 2] }.write(&mut reject);
    // Behind the preface and the head of the one, and the head and the id of the other.
    let hello = greeting(Side::Initiator, Mode::Multi)[PREFACE.len() + PREFIX + 1..].to_vec();
    let open = conversation()[0][PREFIX + 2..].to_vec();
    vec![hello, open, accept, reject]
}

/// The parts that the input of a target is made of.
pub(crate) fn parts(target: &str) -> Vec<Vec<u8>> {
    match target {
        "hello" => negotiated(),
        "decode" => decode::samples(),
        _ => conversation(),
    }
}

/// The parts as inputs of a target: one for each, or one of all.
pub(crate) fn inputs(target: &str, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    match target {
        "hello" | "decode" => parts.to_vec(),
        // Mode, and sizes of pieces.
        "frames" => vec![[&[0, 4, 3, 60, 9, 255][..], &parts.concat()].concat()],
        // An acceptor behind its handshake, which reads the frames one by one.
        "connection" => {
            let mut input = vec![0, 1, 1];
            for frame in parts {
                input.extend([0, 0, u8::try_from(frame.len()).unwrap_or(u8::MAX)]);
                input.extend(frame);
            }
            vec![input]
        }
        // Its input is a script, in which any bytes are sound.
        _ => vec![parts.concat()],
    }
}
