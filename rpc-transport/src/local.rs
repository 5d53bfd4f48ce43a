//! Direct calls: the same trait, errors, deadlines and cancellation with nothing encoded and no task between.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

use rpc_core::context::{CallHost, Context, Peer, enter};
use rpc_core::id::ExchangeKey;
use rpc_core::status::{Error, Fault, FaultKind};
use tokio::time::Sleep;

use crate::state::lock;

/// A server that a client of type `C` can call directly. Implemented by the macro.
pub trait IntoLocal<C> {
    /// The client.
    fn into_local(self) -> C;
}

/// A client that calls `server` in this process, with nothing encoded: `rpc::local::<KvClient>(KvServer::new(store))`.
///
/// A call behaves as over a connection: it has a deadline, can be cancelled by dropping it, and a panic in the handler
/// fails it alone. There is no limit on message sizes, because there are no messages. A call without a deadline of its
/// own or of its caller's has none here: no connection can be lost.
pub fn local<C>(server: impl IntoLocal<C>) -> C {
    server.into_local()
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call in this process.
pub(crate) struct LocalCall<T, E> {
    future: BoxFuture<Result<T, Error<E>>>,
    running: Option<Running>,
}

/// A call that was polled.
struct Running {
    context: Option<Context>,
    host: Arc<LocalHost>,
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<T, E> LocalCall<T, E> {
    pub(crate) fn new(future: BoxFuture<Result<T, Error<E>>>) -> Self {
        Self { future, running: None }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut task::Context<'_>,
        time_left: impl FnOnce() -> Option<Duration>,
    ) -> Poll<Result<T, Error<E>>> {
        let Self { future, running } = self;
        let running = running.get_or_insert_with(|| Running::new(time_left()));
        if running.deadline.is_some_and(|deadline| deadline <= Instant::now()) && running.sleep.is_none() {
            return Poll::Ready(Err(Fault::new(FaultKind::Deadline, "").not_run().into()));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| enter(&mut running.context, || future.as_mut().poll(cx))));
        match polled {
            Ok(Poll::Ready(result)) => Poll::Ready(result),
            Ok(Poll::Pending) => running.poll_deadline(cx).map(|fault| Err(fault.into())),
            Err(_) => Poll::Ready(Err(Fault::new(FaultKind::Internal, "the handler panicked").into())),
        }
    }
}

impl Running {
    fn new(time_left: Option<Duration>) -> Self {
        let host = Arc::new(LocalHost::default());
        let deadline = time_left.and_then(|time_left| Instant::now().checked_add(time_left));
        let context = Context::new(host.clone(), ExchangeKey::LOCAL, deadline);
        Self { context: Some(context), host, deadline, sleep: None }
    }

    /// A timer only where the call waits: one that completes at once never sets it.
    fn poll_deadline(&mut self, cx: &mut task::Context<'_>) -> Poll<Fault> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        sleep.as_mut().poll(cx).map(|()| Fault::new(FaultKind::Deadline, ""))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.abandon();
    }
}

/// What stands in for a session.
#[derive(Default)]
struct LocalHost {
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    over: bool,
    wakers: Vec<Waker>,
}

impl LocalHost {
    fn abandon(&self) {
        let mut watchers = lock(&self.watchers);
        watchers.over = true;
        let wakers = std::mem::take(&mut watchers.wakers);
        drop(watchers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl CallHost for LocalHost {
    fn peer(&self) -> &Peer {
        static LOCAL: LazyLock<Peer> = LazyLock::new(|| Peer::new("local"));
        &LOCAL
    }

    fn poll_abandoned(&self, _: ExchangeKey, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut watchers = lock(&self.watchers);
        if watchers.over {
            return Poll::Ready(());
        }
        if !watchers.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            watchers.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
