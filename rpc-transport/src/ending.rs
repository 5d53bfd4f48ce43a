//! How sessions and connections have ended, as applications are told.

use std::fmt;

use rpc_core::proto::Session;
use rpc_core::wire::frame::Reason;

/// How a session ended; see [`Session::close`](crate::Session::close).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it tells whether the peer took everything"]
pub struct Closed {
    untaken: Option<u64>,
    reason: Option<Reason>,
}

impl Closed {
    pub(crate) fn new<U: Default>(session: &Session<U>) -> Self {
        match session.closed() {
            Some(closed) => Self { untaken: Some(closed.untaken), reason: None },
            None => Self { untaken: None, reason: session.failure().cloned() },
        }
    }

    /// Whether the session closed in good order and the peer's application took everything that this side sent: every
    /// argument, answer and item.
    pub fn is_confirmed(&self) -> bool {
        self.untaken == Some(0)
    }

    /// Exchanges of which the peer's application let go before it had taken everything that this side sent, for example
    /// by dropping a stream. `None`: the session did not close in good order, and nobody knows.
    pub fn untaken(&self) -> Option<u64> {
        self.untaken
    }

    /// Why the session ended, where it did not close in good order.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.untaken, &self.reason) {
            (Some(0), _) => f.write_str("closed, and the peer took everything"),
            (Some(untaken), _) => write!(f, "closed; of {untaken} exchanges the peer did not take everything"),
            (None, Some(reason)) => write!(f, "ended: {reason}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// How a drain ended; see [`Server::drain`](crate::Server::drain) and [`Connection::drain`](crate::Connection::drain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Connections that there were.
    pub connections: u64,
    /// Calls that were still under way when their connection ended: their callers know that they may have run, or that
    /// they cannot have.
    pub cut: u64,
}

impl Drained {
    /// Whether every call came to its end.
    pub fn is_clean(&self) -> bool {
        self.cut == 0
    }
}
