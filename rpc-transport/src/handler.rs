//! A call from the peer that did not complete at once, in a task of its own; and the sender of a stream.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{self, Poll};

use rpc_core::code::Code;
use rpc_core::context::{Context, enter};
use rpc_core::id::ExchangeKey;
use rpc_core::proto::{Batch, Session};
use rpc_core::service::{Reply, ReplyFuture};
use rpc_core::status::{Fault, FaultKind, promises_not_run};
use rpc_core::streaming::{Filled, ItemEncoder};
use rpc_core::wire::frame::Reason;

use crate::state::{Counted, SessionState, Slot};

/// Bytes of items that are encoded ahead of the socket: two quanta, so that the next batch is ready when one is written.
const BATCH_BYTES: usize = 32 * 1024;

/// A running call.
pub(crate) struct Running {
    pub(crate) future: ReplyFuture,
    pub(crate) context: Option<Context>,
}

impl Running {
    /// Polls the handler under its context. A panic is this call's fault alone.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Reply> {
        let Self { future, context } = self;
        let polled = catch_unwind(AssertUnwindSafe(|| enter(context, || future.as_mut().poll(cx))));
        polled.unwrap_or_else(|_| Poll::Ready(Reply::Fault(Fault::new(FaultKind::Internal, "the handler panicked"))))
    }
}

/// Gives the exchange's place back when the handler has really ended, however it did: its task owns it from the start,
/// so that one which is aborted before its first poll gives it back too.
pub(crate) struct Place {
    pub(crate) session: Arc<SessionState>,
    pub(crate) key: ExchangeKey,
    /// Its place among those of the connection (`Limits::handlers`).
    pub(crate) _counted: Counted,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.session.act(|session| session.handler_done(self.key));
    }
}

/// Runs a call to its end. The handler stands before its place, so that it is dropped first where the task is aborted
/// before its first poll: a place is given back when its handler has really ended.
pub(crate) async fn run(running: Running, place: Place) {
    let key = place.key;
    let context = running.context.clone();
    let reply = {
        // Dropped before the reply goes out: what the handler held is free when its caller hears of it.
        let mut running = running;
        poll_fn(|cx| running.poll(cx)).await
    };
    match reply {
        Reply::Stream(items) => match items.into_produced() {
            Ok(items) => {
                place.session.act(|session| session.accept(key));
                send_items(&place.session, key, items, context).await;
            }
            Err(fault) => place.session.act(|session| settle(session, key, Reply::Fault(fault))),
        },
        reply => place.session.act(|session| settle(session, key, reply)),
    }
}

/// Sends the items of an answer in the place of its handler.
pub(crate) async fn run_stream(items: Box<dyn ItemEncoder>, context: Option<Context>, place: Place) {
    send_items(&place.session, place.key, items, context).await;
}

/// Queues a reply that is complete.
pub(crate) fn settle(session: &mut Session<Slot>, key: ExchangeKey, reply: Reply) {
    match reply {
        Reply::Message(bytes) => session.answer(key, bytes.into(), false),
        Reply::AppError(bytes) => session.answer(key, bytes.into(), true),
        Reply::Fault(fault) => session.reset(key, reason_of(&fault)),
        Reply::Stream(_) | Reply::Done => {}
    }
}

/// Sends a stream's items, batch by batch, as the peer takes them.
pub(crate) async fn send_items(
    session: &SessionState,
    key: ExchangeKey,
    mut items: Box<dyn ItemEncoder>,
    mut context: Option<Context>,
) {
    let mut batch = Batch::new();
    while poll_fn(|cx| session.poll_send(key, cx)).await {
        let filled = poll_fn(|cx| {
            let fill = || enter(&mut context, || items.poll_fill(cx, &mut batch, BATCH_BYTES));
            let panicked = || Poll::Ready(Filled::Fault(Fault::new(FaultKind::Internal, "the stream panicked")));
            catch_unwind(AssertUnwindSafe(fill)).unwrap_or_else(|_| panicked())
        })
        .await;
        let more = filled == Filled::More;
        session.act(|session| match filled {
            Filled::More => session.send(key, &mut batch, false),
            Filled::Ended => session.send(key, &mut batch, true),
            Filled::AppError(error) => {
                session.send(key, &mut batch, false);
                session.answer(key, error.into(), true);
            }
            Filled::Fault(fault) => {
                session.send(key, &mut batch, false);
                session.break_stream(key, reason_of(&fault));
            }
        });
        if !more {
            return;
        }
        // A source that is always ready must not keep its worker to itself.
        tokio::task::coop::consume_budget().await;
    }
}

/// What a fault tells the peer. Codes that promise that nothing was started are only for calls of which that is true:
/// the fault of a call made downstream, or of a lost session there, is this handler's own failure.
fn reason_of(fault: &Fault) -> Reason {
    let lost = matches!(fault.kind(), FaultKind::NotStarted | FaultKind::Indeterminate);
    if lost || (promises_not_run(fault.code()) && fault.may_have_run()) {
        return Reason::new(Code::INTERNAL, fault.to_string());
    }
    Reason::new(fault.code(), fault.detail())
}
