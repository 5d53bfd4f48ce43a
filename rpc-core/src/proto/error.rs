//! What can go wrong in the protocol, each error with the smallest scope that contains it (docs/PROTOCOL.md §9).

use crate::code::Code;
use crate::codec::nothing_in_common;
use crate::wire::DecodeError;
use crate::wire::frame::Reason;

/// The peer broke a rule: what goes out in S_ABORT or CONN_CLOSE. Whoever returns it names the scope that it ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ProtocolError {
    /// Code and words for the peer.
    pub reason: Reason,
}

impl ProtocolError {
    /// An error with words for the peer's developer.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { reason: Reason::new(code, text) }
    }
}

impl From<DecodeError> for ProtocolError {
    fn from(error: DecodeError) -> Self {
        Self::new(Code::PROTOCOL, error.to_string())
    }
}

/// Who ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This side: a deadline, a lost session.
    Local,
    /// The peer, by RESET.
    Peer,
}

/// Why an exchange ended without its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeFault {
    /// Code and words.
    pub reason: Reason,
    /// Who ended it.
    pub origin: Origin,
    /// Whether the peer can have started anything: not, if the arguments were not written whole, or the peer said that
    /// it had not received them.
    pub sent: bool,
}

/// Why a connection ended. Every waiter of the connection gets one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The other side speaks something else.
    #[error("the peer does not speak rpc: it sent {seen}")]
    NotRpc {
        /// What its first bytes look like.
        seen: &'static str,
    },
    /// The server refused the connection.
    #[error("the server refused the connection: {}", refusal(.reason, .ours, .theirs))]
    Rejected {
        /// Code and words of the server.
        reason: Reason,
        /// The codecs that this side offered, by number.
        ours: Vec<u8>,
        /// The codecs that the server would accept, by number.
        theirs: Vec<u8>,
    },
    /// The peer closed the connection and said why.
    #[error("the peer closed the connection{}", because(.0))]
    ClosedByPeer(Reason),
    /// The peer broke a rule of the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The peer was silent for longer than the keepalive allows.
    #[error("the peer went silent")]
    Silent,
    /// The peer did not finish the handshake in time.
    #[error("the peer did not finish the handshake in time")]
    Handshake,
    /// The peer stopped taking bytes.
    #[error("the peer stopped reading")]
    WriteStall,
    /// The transport broke.
    #[error("the connection broke: {detail}")]
    Io {
        /// The class of the transport's error; `UnexpectedEof` where the peer hung up without a word.
        kind: std::io::ErrorKind,
        /// The transport's words.
        detail: String,
    },
    /// This side closed the connection.
    #[error("the connection was closed")]
    Closed,
}

fn because(reason: &Reason) -> String {
    if reason.code == Code::NO_ERROR { String::new() } else { format!(": {reason}") }
}

/// A server's refusal in words: its own, but for codecs, of which this side has both lists by name.
pub fn refusal(reason: &Reason, ours: &[u8], theirs: &[u8]) -> String {
    if reason.code == Code::NO_CODEC {
        format!("{}: {}", reason.code, nothing_in_common(ours, theirs))
    } else {
        reason.to_string()
    }
}

impl ConnectionError {
    /// The code that stands for this end in the faults of the calls that it cost.
    pub fn code(&self) -> Code {
        match self {
            Self::NotRpc { .. } => Code::PROTOCOL,
            Self::ClosedByPeer(reason) if reason.code == Code::NO_ERROR => Code::CLOSED,
            Self::Rejected { reason, .. } | Self::ClosedByPeer(reason) => reason.code,
            Self::Protocol(error) => error.reason.code,
            Self::Silent => Code::KEEPALIVE,
            Self::Handshake => Code::HANDSHAKE,
            Self::WriteStall => Code::WRITE_STALL,
            Self::Io { .. } | Self::Closed => Code::CLOSED,
        }
    }

    /// Whether the peer ended the connection in good order.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::ClosedByPeer(reason) if reason.code == Code::NO_ERROR)
    }

    /// The reason that the sessions of the connection end with.
    pub fn reason(&self) -> Reason {
        Reason::new(self.code(), self.to_string())
    }
}

impl From<ProtocolError> for ConnectionError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<DecodeError> for ConnectionError {
    fn from(error: DecodeError) -> Self {
        Self::Protocol(error.into())
    }
}

impl From<std::io::Error> for ConnectionError {
    fn from(error: std::io::Error) -> Self {
        Self::Io { kind: error.kind(), detail: error.to_string() }
    }
}
