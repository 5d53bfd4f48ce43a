//! Errors of opening: an endpoint, a connection, a session, a listener.

use std::io;

use rpc_core::code::Code;
use rpc_core::proto::ConnectionError;
use rpc_core::proto::error::refusal;
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
    /// Limits or codecs that do not fit together; the sentence names the argument and the fix.
    #[error("{0}")]
    Config(String),
    /// Nobody answers at the endpoint.
    #[error("cannot reach {endpoint}: {detail}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// The class of the operating system's error.
        kind: io::ErrorKind,
        /// The operating system's words.
        detail: String,
    },
    /// The sides do not trust each other, or do not agree on TLS; the text says what to do.
    #[cfg(feature = "_tls")]
    #[error("no TLS with {peer}: {error}")]
    Tls {
        /// With whom.
        peer: String,
        /// Why.
        error: crate::tls::TlsError,
    },
    /// The connection ended before it was of use.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// The peer refused the session.
    #[error("the peer refused the session: {}", refusal(.reason, .ours, .theirs))]
    Rejected {
        /// Code and words of the peer.
        reason: Reason,
        /// The codecs that this side offered for the session, by number. Empty where the codec was not the reason.
        ours: Vec<u8>,
        /// The codecs that the peer would accept on this connection, by number. Empty where it did not say so.
        theirs: Vec<u8>,
    },
}

impl OpenError {
    /// Nobody answers.
    pub(crate) fn unreachable(endpoint: Endpoint, error: &io::Error) -> Self {
        #[cfg(feature = "_tls")]
        if let Some(error) = crate::tls::TlsError::within(error) {
            return Self::Tls { peer: endpoint.to_string(), error };
        }
        Self::Unreachable { endpoint, kind: error.kind(), detail: error.to_string() }
    }

    /// A session that is not opened for a reason that has nothing to do with codecs.
    pub(crate) fn rejected(reason: Reason) -> Self {
        Self::Rejected { reason, ours: Vec::new(), theirs: Vec::new() }
    }

    /// The same error, with what had been offered if that was the reason.
    pub(crate) fn having_offered(mut self, codecs: &[u8]) -> Self {
        if let Self::Rejected { reason, ours, .. } = &mut self
            && reason.code == Code::NO_CODEC
        {
            codecs.clone_into(ours);
        }
        self
    }

    /// The protocol's code for the refusal, where the peer gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rejected { reason, .. } => Some(reason.code),
            Self::Connection(error) => Some(error.code()),
            #[cfg(feature = "_tls")]
            Self::Tls { .. } => None,
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
    /// Limits, codecs or services that do not fit together; the sentence names the fix.
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
