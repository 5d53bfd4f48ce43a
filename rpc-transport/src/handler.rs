//! A call from the peer that did not complete at once, in a task of its own; and the sender of a stream.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use rpc_core::code::Code;
use rpc_core::context::{Context, enter};
use rpc_core::id::ExchangeKey;
use rpc_core::proto::{Batch, Fresh, Session, Time};
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
                send_items(&place.session, key, items, context, Session::handler_done).await;
            }
            Err(fault) => answer(&place.session, key, Reply::Fault(fault)),
        },
        reply => answer(&place.session, key, reply),
    }
}

/// Sends the items of an answer in the place of its handler.
pub(crate) async fn run_stream(items: Box<dyn ItemEncoder>, context: Option<Context>, place: Place) {
    send_items(&place.session, place.key, items, context, Session::handler_done).await;
}

/// The reply of a handler that has ended. Its place is given back with it and not later: whoever hears of the reply may end
/// the connection, and a call that is live then counts as cut off.
#[inline]
pub(crate) fn answer(session: &SessionState, key: ExchangeKey, reply: Reply) {
    let (bytes, is_error) = match reply {
        Reply::Message(bytes) => (bytes, false),
        Reply::AppError(bytes) => (bytes, true),
        other => {
            return session.act(|session| {
                if let Reply::Fault(fault) = other {
                    session.reset(key, reason_of(&fault));
                }
                session.handler_done(key);
            });
        }
    };
    // On no connection there is nobody to answer; the place is given back all the same.
    if session.act_now(|session, out| session.answer_now(key, bytes.into(), is_error, out)).is_none() {
        session.act(|session| session.handler_done(key));
    }
}

/// The same for a call that has no exchange, and needs none where its answer is written at once. Yields the session's next
/// deadline where it is not: an answer that waits has what is left of its call's.
#[inline]
pub(crate) fn answer_fresh(session: &SessionState, fresh: Fresh, timeout: Option<Duration>, reply: Reply) -> Option<Time> {
    let (bytes, is_error) = match reply {
        Reply::Message(bytes) => (bytes, false),
        Reply::AppError(bytes) => (bytes, true),
        other => {
            answer_kept(session, fresh, other);
            return None;
        }
    };
    let mut fresh = Some(fresh);
    let answered = session.act_now(|session, out| {
        let fresh = fresh.take().expect("it is answered once");
        session.answer_fresh(fresh, timeout, bytes.into(), is_error, out)
    });
    if let Some(fresh) = fresh {
        answer_kept(session, fresh, Reply::Done);
    }
    answered.flatten()
}

#[cold]
fn answer_kept(session: &SessionState, fresh: Fresh, reply: Reply) {
    let key = fresh.key();
    session.act(|session| session.keep(fresh, None));
    answer(session, key, reply);
}

/// Sends a stream's items, batch by batch, as the peer takes them. `end` is done with the last of them.
pub(crate) async fn send_items(
    session: &SessionState,
    key: ExchangeKey,
    mut items: Box<dyn ItemEncoder>,
    mut context: Option<Context>,
    end: impl FnOnce(&mut Session<Slot>, ExchangeKey),
) {
    let mut batch = Batch::new();
    while poll_fn(|cx| session.poll_send(key, cx)).await {
        let filled = poll_fn(|cx| {
            let fill = || enter(&mut context, || items.poll_fill(cx, &mut batch, BATCH_BYTES));
            let panicked = || Poll::Ready(Filled::Fault(Fault::new(FaultKind::Internal, "the stream panicked")));
            catch_unwind(AssertUnwindSafe(fill)).unwrap_or_else(|_| panicked())
        })
        .await;
        if filled == Filled::More {
            session.act(|session| session.send(key, &mut batch, false));
            // A source that is always ready must not keep its worker to itself.
            tokio::task::coop::consume_budget().await;
            continue;
        }
        // What the stream held is free when its reader hears of the end.
        drop(items);
        return session.act(|session| {
            session.send(key, &mut batch, filled == Filled::Ended);
            match filled {
                Filled::More | Filled::Ended => {}
                Filled::AppError(error) => session.answer(key, error.into(), true),
                Filled::Fault(fault) => session.break_stream(key, reason_of(&fault)),
            }
            end(session, key);
        });
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Mutex;
    use std::task::Wake;

    use rpc_core::codec::Codec;
    use rpc_core::id::{Side, Xid};
    use rpc_core::proto::outbox::SessionSlot;
    use rpc_core::proto::{Input, Limits, Link as Attached, SessionEvent};
    use rpc_core::wire::frame::{Frame, Mode, Open, exchange_head, flag, kind};

    use super::*;
    use crate::state::Link;
    use rpc_core::context::Peer;

    /// Stands for the driver: looks at how many exchanges are live whenever it is woken.
    struct Looks {
        session: Arc<SessionState>,
        live: Mutex<Vec<usize>>,
    }

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let live = self.session.lock().proto.live();
            self.live.lock().unwrap().push(live);
        }
    }

    struct Nothing(Option<Filled>);

    impl ItemEncoder for Nothing {
        fn poll_fill(&mut self, _: &mut task::Context<'_>, _: &mut Batch, _: usize) -> Poll<Filled> {
            Poll::Ready(self.0.take().unwrap())
        }
    }

    /// Has a call arrive, runs what `start` makes of its place, and tells what the driver saw when it was woken.
    fn seen<F: Future>(start: impl FnOnce(Place) -> F) -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let limits = Limits::default();
        let link = Link::new(Peer::new("mem://here"), limits.clone(), vec![Codec::Postcard], runtime.handle().clone());
        link.lock().out.open(limits.max_frame, limits.connection_window);
        let mut proto = Session::new(Side::Acceptor, limits.session());
        proto.granted(limits.windows());
        proto.attach(Attached { slot: SessionSlot(0), sid: None });
        let mut head = exchange_head(kind::OPEN, flag::EOM | flag::END, None, Xid(0));
        Open { method: 0, timeout_ms: None, total: None }.write(&mut head);
        let mut input = Input::new(64);
        let bytes = head.finish(0).to_vec();
        input.space()[..bytes.len()].copy_from_slice(&bytes);
        input.advance(bytes.len());
        let frame = Frame::read(input.next_frame(limits.max_frame).unwrap().unwrap(), Mode::Single).unwrap();
        let event = proto.handle_frame(&frame, Time::default(), Slot::default).unwrap();
        let Some(SessionEvent::Opened { key, .. }) = event else { panic!("{event:?}") };
        let session = SessionState::new(proto, Arc::clone(&link));
        let looks = Arc::new(Looks { session: Arc::clone(&session), live: Mutex::default() });
        link.lock().driver = Some(Arc::clone(&looks).into());
        let handler = start(Place { session, key, _counted: Counted::new(&link) });
        runtime.block_on(handler);
        looks.live.lock().unwrap().clone()
    }

    fn running(reply: Reply) -> Running {
        Running { future: Box::pin(async { reply }), context: None }
    }

    /// Else a connection that ends upon the answer counts a call that was cut off.
    #[test]
    fn whoever_hears_of_an_answer_finds_its_place_free() {
        assert_eq!(seen(|place| run(running(Reply::Message(vec![1])), place)), [0]);
        assert_eq!(seen(|place| run(running(Reply::AppError(vec![1])), place)), [0]);
        let fault = Fault::new(FaultKind::Internal, "it failed");
        assert_eq!(seen(|place| run(running(Reply::Fault(fault)), place)), [0]);
        assert_eq!(seen(|place| run_stream(Box::new(Nothing(Some(Filled::Ended))), None, place)), [0]);
        let error = Filled::AppError(vec![1]);
        assert_eq!(seen(|place| run_stream(Box::new(Nothing(Some(error))), None, place)), [0]);
    }
}
