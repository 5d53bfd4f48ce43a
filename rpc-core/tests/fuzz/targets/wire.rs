//! Frames and the bodies in them: how bytes arrive does not matter, and what was read can be written and read again.

use std::fmt::Debug;

use rpc_core::id::{Sid, Xid};
use rpc_core::proto::Input;
use rpc_core::wire::frame::{
    Abort, Frame, GoAway, Mode, Open, Reason, Reset, exchange_head, flag, kind, read_cancel, read_varints,
};
use rpc_core::wire::header::PREFIX;
use rpc_core::wire::hello::{Hello, Reject, SessionAccept, SessionOpen};
use rpc_core::wire::{DecodeError, Head, HeadBuf};

use super::bytes::Bytes;

/// The longest frame taken here.
const MAX: u32 = 5000;

/// What a buffer may grow to: four frames of the allowed length (`proto/input.rs`).
pub(crate) fn largest_buffer(max_frame: u32) -> usize {
    4 * (PREFIX + max_frame as usize)
}

/// Cuts `data` into frames as they come in pieces, and at once by hand; both must see the same.
pub(crate) fn frames(data: &[u8]) {
    let mut choices = Bytes(data);
    let mode = if choices.flag() { Mode::Single } else { Mode::Multi };
    let (mut sizes, stream) = (Bytes(choices.some(16)), choices.0);

    let (mut input, mut rest, mut seen, mut refused) = (Input::new(64), stream, Vec::new(), false);
    'stream: while !rest.is_empty() {
        let n = (1 + usize::from(sizes.byte())).min(rest.len()).min(input.space().len());
        input.space()[..n].copy_from_slice(&rest[..n]);
        input.advance(n);
        rest = &rest[n..];
        loop {
            match input.next_frame(MAX) {
                Ok(None) => break,
                Ok(Some(raw)) => {
                    seen.push((raw.kind, raw.flags, raw.rest.to_vec()));
                    if let Ok(frame) = Frame::read(raw, mode) {
                        body(&frame, mode);
                    }
                }
                Err(_) => {
                    refused = true;
                    break 'stream;
                }
            }
        }
        assert!(input.capacity() <= largest_buffer(MAX), "the buffer has grown to {}", input.capacity());
    }

    let (expected, wrong) = cut(stream);
    assert_eq!((seen, refused), (expected, wrong));
}

/// The frames of a stream, and whether a wrong one follows.
fn cut(mut stream: &[u8]) -> (Vec<(u8, u8, Vec<u8>)>, bool) {
    let mut frames = Vec::new();
    while let Some(head) = Head::read(stream) {
        if head.len == 0 || head.len > MAX {
            return (frames, true);
        }
        let whole = PREFIX + head.len as usize;
        if stream.len() < whole {
            break;
        }
        frames.push((stream[0], stream[PREFIX], stream[PREFIX + 1..whole].to_vec()));
        stream = &stream[whole..];
    }
    (frames, false)
}

/// Reads what a frame's body may be.
fn body(frame: &Frame<'_>, mode: Mode) {
    let body = frame.body;
    match frame.kind {
        kind::OPEN => open(frame, mode),
        kind::RESET => again(body, Reset::read, Reset::write),
        kind::CANCEL => drop(read_cancel(body)),
        kind::S_ABORT => again(body, Abort::read, Abort::write),
        kind::GOAWAY => again(body, GoAway::read, GoAway::write),
        kind::CONN_CLOSE => again(body, Reason::read, Reason::write),
        kind::ACK | kind::MAX_SESSION => drop(read_varints(body, ["one", "two"])),
        kind::MAX_STREAM | kind::MAX_CONN_DATA | kind::S_CLOSE_DONE | kind::GOAWAY_ACK => drop(read_varints(body, ["one"])),
        _ => lists(body),
    }
}

fn open(frame: &Frame<'_>, mode: Mode) {
    let Ok((open, beside, message)) = Open::read(frame) else { return };
    let sid = (mode == Mode::Multi).then_some(frame.sid);
    let mut head = exchange_head(frame.kind, frame.flags, sid, frame.xid);
    let mut behind = Vec::new();
    match (frame.has(flag::EXT), beside.is_nothing()) {
        (false, _) => open.write(&mut head),
        (true, false) => open.write_with(beside, &mut head, &mut behind),
        // A bitmap of nothing, which nobody writes.
        (true, true) if open.timeout_ms.is_none() => return,
        (true, true) => open.write(&mut head),
    }
    behind.extend_from_slice(message);
    let bytes = [head.finish(behind.len()), &behind].concat();
    let mut input = Input::new(bytes.len());
    input.space()[..bytes.len()].copy_from_slice(&bytes);
    input.advance(bytes.len());
    let raw = input.next_frame(u32::MAX).expect("it is a frame").expect("it is whole");
    let again = Frame::read(raw, mode).expect("its ids are sound");
    assert_eq!((again.sid, again.xid), (sid.unwrap_or(Sid(0)), Xid(frame.xid.0)));
    assert_eq!(Open::read(&again), Ok((open, beside, message)));
}

/// The bodies of everything that is negotiated.
pub(crate) fn hello(data: &[u8]) {
    lists(data);
    if data.len() <= MAX as usize {
        let bytes = [HeadBuf::new(kind::HELLO, 0).finish(data.len()), data].concat();
        assert_eq!(cut(&bytes).0.len(), 1);
    }
}

fn lists(body: &[u8]) {
    again(body, Hello::read, Hello::write);
    again(body, SessionOpen::read, SessionOpen::write);
    again(body, SessionAccept::read, SessionAccept::write);
    again(body, Reject::read, Reject::write);
}

/// What was read is written and read again: the same, but for a text that was not UTF-8 or too long, and is cut once.
fn again<T: PartialEq + Debug>(body: &[u8], read: fn(&[u8]) -> Result<T, DecodeError>, write: fn(&T, &mut Vec<u8>)) {
    let Ok(first) = read(body) else { return };
    let written = |value: &T| {
        let mut bytes = Vec::new();
        write(value, &mut bytes);
        read(&bytes).expect("what this side writes it reads")
    };
    let second = written(&first);
    if std::str::from_utf8(body).is_ok() {
        assert_eq!(first, second);
    }
    assert_eq!(written(&second), second);
}
