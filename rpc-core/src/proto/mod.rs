//! The protocol as plain values: no clock, no socket, no task, no waker, no lock (docs/ARCHITECTURE.md, "The boundary").
//!
//! ```text
//! session → exchange → {credit → growth, batch, table}      connection → {outbox → schedule, input}
//!      both → {config, patience} → bucket, error, time
//! ```
//! A [`Connection`] does not contain sessions. It cuts frames out of the byte stream, negotiates, and tells which
//! session a frame is for; a [`Session`] is a value of its own, because it is meant to outlive its connection. What a
//! session has to say it writes into the connection's [`Outbox`], which is also where they meet the scheduler.

pub mod batch;
pub mod bucket;
pub mod config;
pub mod connection;
pub mod credit;
pub mod error;
mod exchange;
pub mod growth;
pub mod input;
pub mod outbox;
pub mod patience;
pub mod schedule;
pub mod session;
mod table;
pub mod time;

pub use batch::Batch;
pub use bucket::{Allowance, Bucket};
pub use config::{Limits, SessionConfig};
pub use connection::{Connection, ConnectionEvent, Handshake, Negotiated};
pub use error::{ConnectionError, ExchangeFault, Origin, ProtocolError};
pub use exchange::{AnswerKind, Body};
pub use growth::Growth;
pub use input::Input;
pub use outbox::Outbox;
pub use patience::Toll;
pub use session::{
    Answer, Closed, ExchangeView, Extras, Fresh, Items, Link, OpenCommand, Resting, Session, SessionEvent, SessionView, Wait,
};
pub use time::Time;
