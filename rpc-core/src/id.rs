//! Identifiers: newtypes, so that a session id is never taken for an exchange id. No other room is imported here.

use std::fmt;

/// Which end of a connection or session a value stands on: who opened it decides the parity of the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This end opened it; the ids it assigns are even.
    Initiator,
    /// The peer opened it; the ids this end assigns are odd.
    Acceptor,
}

impl Side {
    /// The first id that this side assigns: 0 for the initiator, 1 for the acceptor. Ids are dense: the next is two more.
    pub const fn first_id(self) -> u64 {
        match self {
            Self::Initiator => 0,
            Self::Acceptor => 1,
        }
    }

    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Acceptor,
            Self::Acceptor => Self::Initiator,
        }
    }

    /// Whether `id` has this side's parity, that is: whether this side assigned it.
    pub const fn owns(self, id: u64) -> bool {
        id & 1 == self.first_id()
    }
}

/// A session's alias on one connection (docs/PROTOCOL.md §5). It never outlives the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(pub u64);

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

/// An exchange's id within its session (docs/PROTOCOL.md §6), assigned when its OPEN is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid(pub u64);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange {}", self.0)
    }
}

/// The local name of an exchange: a slot and its generation. It never travels, and a stale one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ExchangeKey {
    /// The name of a call that is in no session: direct calls in this process.
    pub const LOCAL: Self = Self { slot: u32::MAX, generation: u32::MAX };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sides_never_assign_the_same_id() {
        for id in 0..100 {
            assert_ne!(Side::Initiator.owns(id), Side::Acceptor.owns(id));
        }
        assert!(Side::Initiator.owns(Side::Initiator.first_id()));
        assert!(Side::Acceptor.owns(Side::Acceptor.first_id()));
        assert_eq!(Side::Initiator.peer(), Side::Acceptor);
    }
}
