//! What the connections, sessions and exchanges of this process are doing, and who is held up by what.
//!
//! Always there, with nothing counted beforehand: a list of the connections, and for each a question to its driver, which
//! looks on the spot. Every answer is bounded; what does not fit is on the next page.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use rpc_core::context::Principal;
use rpc_core::id::Side;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::registry::{self, Known};
pub use crate::report::{Cause, ConnectionDetail, ConnectionInfo, Connections, ExchangeInfo, SessionInfo, Stage, Stall, Waiting};
use crate::report::{Inside, Page};
use crate::state::Inquiry;

/// Connections of a page.
const CONNECTIONS: usize = 256;

/// How often [`watch`] looks at the most.
const FASTEST: Duration = Duration::from_millis(100);

/// A driver that has not answered by then is held by a handler, or its runtime is. One turn takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(250);

/// The connections of this process, of all its servers and clients, from number `from` on: 256 of them at most.
///
/// Each connection's numbers are of one moment; those of different connections are not.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub async fn connections(from: u64) -> Connections {
    let (known, next) = registry::page(from, CONNECTIONS);
    let asked: Vec<_> = known.into_iter().map(|known| ask(known, None)).collect();
    let until = Instant::now() + PATIENCE;
    let mut page = Vec::with_capacity(asked.len());
    for (known, answer) in asked {
        page.extend(answered(&known, answer, until).await.map(|(info, _)| info));
    }
    Connections { page, total: registry::len() as u64, next }
}

/// One connection, with its sessions from number `from_sid` on and their exchanges: at most 256 sessions, and with them at
/// most 1024 exchanges. `None`: there is none of that number, or no more.
///
/// It takes the driver of a connection with a million sessions a few milliseconds to find those of a page.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub async fn connection(id: u64, from_sid: u64) -> Option<ConnectionDetail> {
    let (known, _) = registry::page(id, 1);
    let known = known.into_iter().find(|known| known.id == id)?;
    let (known, answer) = ask(known, Some(from_sid));
    let (connection, page) = answered(&known, answer, Instant::now() + PATIENCE).await?;
    let Page { sessions, exchanges, left_out, next } = page.unwrap_or_default();
    Some(ConnectionDetail { connection, sessions, exchanges, left_out, next })
}

/// [`connections`] again and again, `every` so often and at most ten times a second, for as long as somebody takes it.
///
/// # Panics
/// If it is polled outside of a tokio runtime.
pub fn watch(from: u64, every: Duration) -> Watch {
    let every = every.max(FASTEST);
    Watch { from, every, next: Box::pin(connections(from)) }
}

/// The stream of [`watch`].
#[must_use = "a stream does nothing before it is polled"]
pub struct Watch {
    from: u64,
    every: Duration,
    next: Pin<Box<dyn Future<Output = Connections> + Send>>,
}

impl Stream for Watch {
    type Item = Connections;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Connections>> {
        let Poll::Ready(connections) = self.next.as_mut().poll(cx) else { return Poll::Pending };
        let Self { from, every, .. } = *self;
        self.next = Box::pin(async move {
            tokio::time::sleep(every).await;
            self::connections(from).await
        });
        Poll::Ready(Some(connections))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("from", &self.from).field("every", &self.every).finish_non_exhaustive()
    }
}

/// An answer that is to come.
type Coming = oneshot::Receiver<Inside>;

fn ask(known: Known, page: Option<u64>) -> (Known, Coming) {
    let (done, answer) = oneshot::channel();
    known.link.inquire(Inquiry { page, done });
    (known, answer)
}

/// What there is to say of a connection; `None`: it has ended.
async fn answered(known: &Known, answer: Coming, until: Instant) -> Option<(ConnectionInfo, Option<Page>)> {
    let inside = match timeout_at(until, answer).await {
        Ok(answer) => answer.ok()?,
        Err(_) => Inside { stall: Some(Stall { cause: Cause::Handler, for_ms: None }), ..Inside::default() },
    };
    let Known { id, link, side, since } = known;
    let (sent, waiting, send_credit) = {
        let state = link.lock();
        (state.out.sent(), state.out.waiting(), state.out.credit())
    };
    let peer = &link.peer;
    let info = ConnectionInfo {
        id: *id,
        peer: peer.endpoint.clone(),
        principal: peer.principal.as_ref().map(words),
        dialed: *side == Side::Initiator,
        single_session: inside.single_session,
        age_ms: clock::now().0.since(*since).as_millis() as u64,
        sessions: inside.sessions,
        at_rest: inside.at_rest,
        exchanges: inside.exchanges,
        opened_here: inside.opened_here,
        calls_made: inside.calls.0,
        calls_served: inside.calls.1,
        handlers: link.handlers(),
        received: inside.received,
        held: inside.held,
        sent,
        unsent: inside.unsent + waiting as u64,
        owed: inside.owed,
        send_credit,
        stall: inside.stall,
        waiting: inside.waiting,
    };
    Some((info, inside.page))
}

fn words(principal: &Principal) -> String {
    match principal {
        Principal::UnixUser { uid, pid: Some(pid), .. } => format!("user {uid}, process {pid}"),
        Principal::UnixUser { uid, .. } => format!("user {uid}"),
        Principal::WindowsUser { sid, pid } => format!("user {sid}, process {pid}"),
        Principal::Certificate { subject, .. } => subject.clone(),
        _ => "known".to_owned(),
    }
}
