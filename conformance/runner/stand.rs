//! The service that an implementation under test offers (conformance/README.md, "The stand"), and the limits that it sets
//! itself, so that every rule about them can be shown with a few bytes.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use rpc::{Connection, Context, Fault, Limits, OpenError, Session, Streaming};
use serde::{Deserialize, Serialize};

/// The error that `fail` answers with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refusal {
    #[error("no")]
    Plain,
    #[error("no, for reason {0}")]
    Because(u64),
}

/// What became of a call that the stand made to its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Back {
    /// It was answered.
    Answer(String),
    /// It ended with a fault.
    Fault { code: u64, may_have_run: bool },
    /// The session was not accepted.
    Rejected(u64),
}

#[rpc::service]
pub(crate) trait Conformance {
    /// The same text.
    async fn echo(&self, text: String) -> rpc::Result<String>;
    /// How many bytes there are.
    async fn size(&self, bytes: Vec<u8>) -> rpc::Result<u64>;
    /// So many zeros.
    async fn zeros(&self, count: u64) -> rpc::Result<Vec<u8>>;
    /// Items up, one answer.
    async fn sum(&self, numbers: Streaming<u64>) -> rpc::Result<u64>;
    /// The first item; the others are let go of.
    async fn first(&self, numbers: Streaming<u64>) -> rpc::Result<Option<u64>>;
    /// Items down: 0 to `to` - 1.
    async fn count(&self, to: u64) -> rpc::Result<Streaming<u64>>;
    /// Each item twice as large.
    async fn double(&self, numbers: Streaming<u64>) -> rpc::Result<Streaming<u64>>;
    /// One way.
    #[rpc(oneway)]
    async fn note(&self, number: u64) -> rpc::Result<()>;
    /// The application's error.
    async fn fail(&self, reason: u64) -> rpc::Result<(), Refusal>;
    /// A fault that is not the application's.
    async fn fault(&self) -> rpc::Result<()>;
    /// Never returns.
    async fn hang(&self) -> rpc::Result<()>;
    /// Never returns, and reads none of its items.
    async fn hold(&self, numbers: Streaming<u64>) -> rpc::Result<()>;
    /// The value of a key of the metadata.
    async fn said(&self, key: String) -> rpc::Result<Option<Vec<u8>>>;
    /// The stand goes away from this connection, within so many milliseconds.
    async fn leave(&self, within_ms: u64) -> rpc::Result<()>;
    /// The stand closes this session in good order.
    async fn close(&self) -> rpc::Result<()>;
    /// The stand aborts this session.
    async fn abort(&self) -> rpc::Result<()>;
    /// Opens a session with its caller's `Conformance`, calls `echo` there, and closes the session.
    async fn call_back(&self, text: String) -> rpc::Result<Back>;
    /// The same with `count`: the items, with commas between them.
    async fn count_back(&self, to: u64) -> rpc::Result<Back>;
}

/// The stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stand;

/// The limits of the stand.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_frame = 16_384;
    limits.max_message = 65_536;
    limits.stream_window = 4096;
    limits.session_window = 12_288;
    limits.connection_window = 32_768;
    limits.exchanges = 4;
    limits.sessions = 2;
    limits.metadata_bytes = 256;
    limits.metadata_entries = 4;
    limits
}

fn fault(fault: &Fault) -> Back {
    Back::Fault { code: fault.code().0.into(), may_have_run: fault.may_have_run() }
}

/// A session with the caller's service, or what to tell where there is none.
async fn caller() -> Result<ConformanceClient, Back> {
    let connection = Connection::current().ok_or(Back::Rejected(0))?;
    match connection.session().open().await {
        Ok(client) => Ok(client),
        Err(OpenError::Rejected { reason, .. }) => Err(Back::Rejected(reason.code.0.into())),
        Err(other) => Err(fault(&other.into())),
    }
}

async fn echoed(text: String) -> Result<Back, Back> {
    match caller().await?.echo(text).await {
        Ok(answer) => Ok(Back::Answer(answer)),
        Err(error) => Err(fault(&error.into_fault())),
    }
}

async fn counted(to: u64) -> Result<Back, Back> {
    let mut items = caller().await?.count(to).await.map_err(|error| fault(&error.into_fault()))?;
    let mut seen = Vec::new();
    while let Some(item) = items.next().await {
        seen.push(item.map_err(|error| fault(&error.into_fault()))?.to_string());
    }
    Ok(Back::Answer(seen.join(",")))
}

impl Conformance for Stand {
    async fn echo(&self, text: String) -> rpc::Result<String> {
        Ok(text)
    }

    async fn size(&self, bytes: Vec<u8>) -> rpc::Result<u64> {
        Ok(bytes.len() as u64)
    }

    async fn zeros(&self, count: u64) -> rpc::Result<Vec<u8>> {
        Ok(vec![0; count.min(65_536) as usize])
    }

    async fn sum(&self, mut numbers: Streaming<u64>) -> rpc::Result<u64> {
        let mut sum = 0_u64;
        while let Some(number) = numbers.next().await {
            sum = sum.wrapping_add(number?);
        }
        Ok(sum)
    }

    async fn first(&self, mut numbers: Streaming<u64>) -> rpc::Result<Option<u64>> {
        numbers.next().await.transpose()
    }

    async fn count(&self, to: u64) -> rpc::Result<Streaming<u64>> {
        Ok(Streaming::new(stream::iter(0..to)))
    }

    async fn double(&self, numbers: Streaming<u64>) -> rpc::Result<Streaming<u64>> {
        Ok(Streaming::from_results(numbers.map(|number| number.map(|number| number.wrapping_mul(2)))))
    }

    async fn note(&self, _: u64) -> rpc::Result<()> {
        Ok(())
    }

    async fn fail(&self, reason: u64) -> rpc::Result<(), Refusal> {
        Err(if reason == 0 { Refusal::Plain } else { Refusal::Because(reason) })?
    }

    async fn fault(&self) -> rpc::Result<()> {
        Err(Fault::internal("on purpose"))?
    }

    async fn hang(&self) -> rpc::Result<()> {
        std::future::pending().await
    }

    async fn hold(&self, numbers: Streaming<u64>) -> rpc::Result<()> {
        let _held = numbers;
        std::future::pending().await
    }

    async fn said(&self, key: String) -> rpc::Result<Option<Vec<u8>>> {
        Ok(Context::current().metadata().get(&key).map(<[u8]>::to_vec))
    }

    async fn leave(&self, within_ms: u64) -> rpc::Result<()> {
        if let Some(connection) = Connection::current() {
            tokio::spawn(async move { connection.drain(Duration::from_millis(within_ms)).await });
        }
        Ok(())
    }

    async fn close(&self) -> rpc::Result<()> {
        if let Some(session) = Session::current() {
            tokio::spawn(async move { session.close().await });
        }
        Ok(())
    }

    async fn abort(&self) -> rpc::Result<()> {
        if let Some(session) = Session::current() {
            session.abort("on purpose");
        }
        std::future::pending().await
    }

    async fn call_back(&self, text: String) -> rpc::Result<Back> {
        Ok(echoed(text).await.unwrap_or_else(|back| back))
    }

    async fn count_back(&self, to: u64) -> rpc::Result<Back> {
        Ok(counted(to).await.unwrap_or_else(|back| back))
    }
}
