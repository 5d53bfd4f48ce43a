//! What a client says first, and what a frame is in bytes.

use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Mode, kind};
use rpc_core::wire::hello::{Hello, PREFACE};

/// A HELLO that never lacks room.
pub(crate) fn hello(mode: Mode) -> Hello {
    Hello {
        versions: (1, 1),
        mode,
        max_frame: 1 << 16,
        codecs: vec![1],
        units: 0,
        required_units: 0,
        connection_window: 1 << 20,
        sessions: 128,
        keepalive_interval_ms: 0,
        keepalive_timeout_ms: 0,
    }
}

/// The bytes of a frame.
pub(crate) fn frame(mut head: HeadBuf, body: &[u8]) -> Vec<u8> {
    let mut bytes = head.finish(body.len()).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// The preface, and a HELLO behind it.
pub(crate) fn greeting(hello: &Hello) -> Vec<u8> {
    let mut body = Vec::new();
    hello.write(&mut body);
    [PREFACE.to_vec(), frame(HeadBuf::new(kind::HELLO, 0), &body)].concat()
}
