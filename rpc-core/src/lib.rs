//! The pure half of `rpc`: wire format, session and connection state machines, codec and programming model.
//!
//! Nothing here knows a runtime, a socket, a clock or a thread. Bytes and the time come in as arguments, bytes and
//! deadlines go out; the tokio half (`rpc-transport`) is a thin driver around these values, and so are the seeded
//! simulation and the property tests. Applications depend on the facade crate `rpc`, which re-exports what they need.
//!
//! Floors, each importing only from those below it:
//!
//! ```text
//! 4  service → streaming, context                   travel        (what generated code speaks to)
//! 3  status
//! 2  proto: session → exchange → {credit, batch}    proto: connection → {input, outbox}
//! 1  wire: frame, hello → header → varint           codec    metadata
//! 0  id, code, pool
//! ```
//!
//! The protocol itself is specified in `docs/PROTOCOL.md`; constants cite its sections as §n.

pub mod code;
pub mod codec;
pub mod context;
pub mod id;
pub mod metadata;
pub mod pool;
pub mod proto;
pub mod service;
pub mod status;
pub mod streaming;
pub mod travel;
pub mod wire;
