//! Errors of opening: an endpoint, a connection, a session, a listener.

use rpc_core::code::Code;
use rpc_core::proto::ConnectionError;
use rpc_core::status::Fault;
use rpc_core::wire::frame::Reason;

use crate::endpoint::{Endpoint, EndpointError};

/// Why a connection or session could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The endpoint makes no sense.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Limits that do not fit together; the sentence names the limit and the fix.
    #[error("{0}")]
    Config(String),
    /// Nobody answers at the endpoint.
    #[error("cannot reach {endpoint}: {detail}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// The class of the operating system's error.
        kind: std::io::ErrorKind,
        /// The operating system's words.
        detail: String,
    },
    /// The connection ended before it was of use.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// The peer refused the session.
    #[error("the peer refused the session: {reason}")]
    Rejected {
        /// Code and words of the peer.
        reason: Reason,
        /// The codecs that the peer would accept, by number.
        codecs: Vec<u8>,
    },
}

impl OpenError {
    /// The protocol's code for the refusal, where the peer gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rejected { reason, .. } => Some(reason.code),
            Self::Connection(error) => Some(error.code()),
            Self::Endpoint(_) | Self::Config(_) | Self::Unreachable { .. } => None,
        }
    }
}

/// For methods that open what they need: nothing of the call can have run.
impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        Self::from_code(error.code().unwrap_or(Code::CLOSED), error.to_string(), false)
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The endpoint makes no sense.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Limits or services that do not fit together; the sentence names the fix.
    #[error("{0}")]
    Config(String),
    /// The endpoint cannot be listened on.
    #[error("cannot listen on {endpoint}: {source}")]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// The operating system's error.
        source: std::io::Error,
    },
}
