//! What can be known of connections, sessions and exchanges: plain values that can be printed, compared and sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an exchange, or a whole connection, waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Cause {
    /// The peer lets the exchange send no more: the reader of its items is slow.
    StreamCredit,
    /// The peer lets the session send no more: what it has received in the session, nobody takes there.
    SessionCredit,
    /// The peer lets the connection send no more: it does not read, or has not said so.
    ConnectionCredit,
    /// As many calls of this side are open in the session as the peer allows.
    Places,
    /// The socket takes nothing: the network is slow, or the peer does not read.
    Socket,
    /// It has something to write, and others have their turn.
    Turn,
    /// The handler here has not ended. Of a connection: a handler holds it, or its runtime has no thread for it.
    Handler,
    /// The application here has something to take, or something to send.
    Application,
    /// The peer has not answered, or not sent what is to come.
    Peer,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::StreamCredit,
        Self::SessionCredit,
        Self::ConnectionCredit,
        Self::Places,
        Self::Socket,
        Self::Turn,
        Self::Handler,
        Self::Application,
        Self::Peer,
    ];

    /// Its name, for example `stream_credit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StreamCredit => "stream_credit",
            Self::SessionCredit => "session_credit",
            Self::ConnectionCredit => "connection_credit",
            Self::Places => "places",
            Self::Socket => "socket",
            Self::Turn => "turn",
            Self::Handler => "handler",
            Self::Application => "application",
            Self::Peer => "peer",
        }
    }

    /// Whether something that is ready to be written is held up by it.
    pub const fn holds_up_writing(self) -> bool {
        matches!(self, Self::StreamCredit | Self::SessionCredit | Self::ConnectionCredit | Self::Places | Self::Socket)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What something waits for, and how long it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// What it waits for.
    pub cause: Cause,
    /// For how long, in milliseconds, where that is known.
    pub for_ms: Option<u64>,
}

/// How many exchanges wait for one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What they wait for.
    pub cause: Cause,
    /// How many they are.
    pub exchanges: u64,
    /// How long the one has waited that has waited longest, in milliseconds, of those of which it is known.
    pub longest_ms: Option<u64>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its number in this process. No other connection ever has it.
    pub id: u64,
    /// The peer's address in the form of an endpoint.
    pub peer: String,
    /// Who the peer is, where the transport knows it for certain, for a person to read.
    pub principal: Option<String>,
    /// Whether this side connected.
    pub dialed: bool,
    /// Whether it carries one session only.
    pub single_session: bool,
    /// How long it has been there, in milliseconds.
    pub age_ms: u64,
    /// Sessions, those at rest among them.
    pub sessions: u64,
    /// Sessions in which nothing is under way, and which are kept as a few bytes.
    pub at_rest: u64,
    /// Exchanges that are not over, of both sides.
    pub exchanges: u64,
    /// Those of them that this side opened.
    pub opened_here: u64,
    /// Calls that this side has made on it.
    pub calls_made: u64,
    /// Calls that the peer has made on it.
    pub calls_served: u64,
    /// Handlers that have a task.
    pub handlers: u64,
    /// Bytes received against its credit.
    pub received: u64,
    /// Bytes received that the application here has not taken.
    pub held: u64,
    /// Bytes sent against its credit.
    pub sent: u64,
    /// Bytes that wait for the socket.
    pub unsent: u64,
    /// Bytes of replies that the peer has not taken; over `Limits::owed` it is not read any more.
    pub owed: u64,
    /// Bytes that the peer lets it send.
    pub send_credit: u64,
    /// What holds up the whole connection: its socket, its credit, or a handler that does not let go of its driver. In the
    /// last case nothing is known of its sessions, and their numbers are zero.
    pub stall: Option<Stall>,
    /// What its exchanges wait for.
    pub waiting: Vec<Waiting>,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The peer has not accepted it yet.
    Opening,
    /// Something is or was under way a moment ago.
    Open,
    /// Nothing has been under way for a while, and it is kept as a few bytes.
    AtRest,
    /// Either side closes it.
    Closing,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number on the connection.
    pub sid: u64,
    /// Whether this side opened it, and calls; else the peer calls.
    pub opened_here: bool,
    /// The service.
    pub service: String,
    /// What its messages are encoded in.
    pub codec: String,
    /// How far it has come.
    pub stage: Stage,
    /// Bytes that the peer lets it send.
    pub send_credit: u64,
    /// Bytes that the peer may send in it.
    pub receive_credit: u64,
    /// Bytes received that the application here has not taken.
    pub held: u64,
    /// Calls that this side may open now.
    pub places: u64,
    /// Exchanges that are not over.
    pub exchanges: u64,
    /// Calls that were ever made in it, by either side.
    pub calls: u64,
    /// How many bytes it takes at rest.
    pub resting_bytes: Option<u64>,
}

/// An exchange: a call with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeInfo {
    /// The number of its session.
    pub sid: u64,
    /// Its number in the session; `None` before it is sent.
    pub xid: Option<u64>,
    /// Whether this side made the call.
    pub opened_here: bool,
    /// The method; `None` for a number that this side has no method for.
    pub method: Option<String>,
    /// What it waits for.
    pub waits_for: Cause,
    /// For how long, in milliseconds: exactly for credit, places and the socket; since the call arrived for a handler that
    /// has a task; since it was made for a call of this side without a deadline of its own. Else it is not known.
    pub for_ms: Option<u64>,
    /// The time that is left, in milliseconds, where it has a deadline.
    pub ends_in_ms: Option<u64>,
    /// Bytes that the peer lets it send.
    pub send_credit: u64,
    /// Messages that wait to be written.
    pub queued: u64,
    /// Messages that have arrived and wait for the application here.
    pub untaken: u64,
}

/// What is known of connections: one page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Those of the page, in the order in which they came.
    pub page: Vec<ConnectionInfo>,
    /// How many there are in all.
    pub total: u64,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// What is known of one connection, with a page of its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionDetail {
    /// The connection.
    pub connection: ConnectionInfo,
    /// The sessions of the page, by sid.
    pub sessions: Vec<SessionInfo>,
    /// Their exchanges: those of a session together, the longest wait first.
    pub exchanges: Vec<ExchangeInfo>,
    /// Exchanges of these sessions that are left out: of one session so many are shown.
    pub left_out: u64,
    /// The sid with which the next page begins, if there is one.
    pub next: Option<u64>,
}

/// What only a connection's driver knows.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) single_session: bool,
    pub(crate) sessions: u64,
    pub(crate) at_rest: u64,
    pub(crate) exchanges: u64,
    pub(crate) opened_here: u64,
    /// Calls of this side and of the peer so far.
    pub(crate) calls: (u64, u64),
    pub(crate) received: u64,
    pub(crate) held: u64,
    /// Bytes that the driver has taken and the socket has not.
    pub(crate) unsent: u64,
    pub(crate) owed: u64,
    pub(crate) stall: Option<Stall>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) page: Option<Page>,
}

/// A page of sessions.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) sessions: Vec<SessionInfo>,
    pub(crate) exchanges: Vec<ExchangeInfo>,
    pub(crate) left_out: u64,
    pub(crate) next: Option<u64>,
}
