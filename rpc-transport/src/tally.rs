//! What has happened in this process since its start: counted where something ends or is refused, never on a call's way.

use std::sync::atomic::{AtomicU64, Ordering};

use rpc_core::code::Code;
use rpc_core::proto::ConnectionError;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection ended: this side closed it.
    Closed,
    /// The peer closed it in good order.
    ClosedByPeer,
    /// The peer ended it for a reason, or refused it.
    FailedByPeer,
    /// The peer broke the protocol, or does not speak it.
    Protocol,
    /// The peer hung up without a word.
    HungUp,
    /// The transport broke.
    Io,
    /// The peer was silent for too long.
    Silent,
    /// The peer did not finish the handshake in time.
    Handshake,
    /// The peer took nothing for too long.
    WriteStall,
    /// A connection was not taken: its peer has as many as it may.
    PerPeer,
    /// What goes before the protocol, such as the handshake of TLS, failed or took too long.
    Setup,
    /// A session was not taken: there is too little memory.
    Memory,
    /// There are as many sessions on the connection as there may be.
    Sessions,
    /// There is no such service.
    Service,
    /// There is no codec that both sides have.
    Codec,
    /// The list of methods does not fit a frame of the peer's.
    Methods,
    /// A call was not taken: as many handlers of its connection wait as there may be.
    Busy,
    /// A call was not taken: too many bytes of answers wait in its session.
    Unsent,
    /// Calls of this side, in sessions that are over or at rest.
    Made,
    /// Calls of peers, in the same.
    Served,
    /// Bytes that were sent on connections that have ended.
    Sent,
    /// Bytes that were received on the same.
    Received,
}

/// One for each event: `Received` is the last of them.
static COUNTS: [AtomicU64; Event::Received as usize + 1] = [const { AtomicU64::new(0) }; Event::Received as usize + 1];

impl Event {
    /// How a connection ended.
    pub(crate) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::Closed => Self::Closed,
            ConnectionError::ClosedByPeer(reason) if reason.code == Code::NO_ERROR => Self::ClosedByPeer,
            ConnectionError::ClosedByPeer(_) | ConnectionError::Rejected { .. } => Self::FailedByPeer,
            ConnectionError::NotRpc { .. } | ConnectionError::Protocol(_) => Self::Protocol,
            ConnectionError::Io { kind: std::io::ErrorKind::UnexpectedEof, .. } => Self::HungUp,
            ConnectionError::Silent => Self::Silent,
            ConnectionError::Handshake => Self::Handshake,
            ConnectionError::WriteStall => Self::WriteStall,
            // Of `Io`, and of what may be added there.
            _ => Self::Io,
        }
    }

    /// It happened once.
    pub(crate) fn happened(self) {
        self.add(1);
    }

    /// It happened so often.
    pub(crate) fn add(self, times: u64) {
        COUNTS[self as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// How often it has happened.
    #[cfg(feature = "metrics")]
    pub(crate) fn count(self) -> u64 {
        COUNTS[self as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use rpc_core::proto::ProtocolError;
    use rpc_core::wire::frame::Reason;

    use super::*;

    #[test]
    fn each_end_of_a_connection_is_counted_under_its_reason() {
        let because = |code| Reason::new(code, "");
        let io = |kind| ConnectionError::Io { kind, detail: String::new() };
        let rejected = ConnectionError::Rejected { reason: because(Code::MODE), ours: Vec::new(), theirs: Vec::new() };
        let ends = [
            (ConnectionError::Closed, Event::Closed),
            (ConnectionError::ClosedByPeer(because(Code::NO_ERROR)), Event::ClosedByPeer),
            (ConnectionError::ClosedByPeer(because(Code::CALM)), Event::FailedByPeer),
            (rejected, Event::FailedByPeer),
            (ConnectionError::NotRpc { seen: "HTTP" }, Event::Protocol),
            (ConnectionError::Protocol(ProtocolError::new(Code::PROTOCOL, "")), Event::Protocol),
            (io(std::io::ErrorKind::UnexpectedEof), Event::HungUp),
            (io(std::io::ErrorKind::ConnectionReset), Event::Io),
            (ConnectionError::Silent, Event::Silent),
            (ConnectionError::Handshake, Event::Handshake),
            (ConnectionError::WriteStall, Event::WriteStall),
        ];
        for (error, event) in ends {
            assert_eq!(Event::of(&error), event, "{error}");
        }
    }
}
