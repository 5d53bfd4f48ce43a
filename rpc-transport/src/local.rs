//! Direct calls: the same trait, errors, deadlines and cancellation with nothing encoded and no task between.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use rpc_core::context::{CallHost, Context, Peer, enter};
use rpc_core::id::ExchangeKey;
use rpc_core::metadata::{Metadata, MetadataError};
use rpc_core::proto::Limits;
use rpc_core::status::{Error, Fault, FaultKind};
use rpc_core::streaming::Streaming;
use tokio::time::Sleep;

use crate::clock::{self, time_left};
use crate::state::lock;

/// A server that a client of type `C` can call directly. Implemented by the macro.
pub trait IntoLocal<C> {
    /// The client.
    fn into_local(self) -> C;
}

/// A client that calls `server` in this process, with nothing encoded: `rpc::local::<KvClient>(KvServer::new(store))`.
///
/// A call behaves as over a connection, by the inherent methods and by the trait's: it has a deadline, can be cancelled by
/// dropping it, and a panic in the handler fails it alone. There is no limit on message sizes, because there are no messages. A call without a deadline of its
/// own or of its caller's has none here: no connection can be lost. A service that stays on its thread
/// (`#[rpc::service(local)]`) runs its handlers there, whoever polls the call.
pub fn local<C>(server: impl IntoLocal<C>) -> C {
    server.into_local()
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call in this process, under a context, a deadline and a guard against panics. Used by generated clients.
#[doc(hidden)]
#[must_use = "a call does nothing before it is awaited"]
pub struct Direct<'a, T, E> {
    future: BoxFuture<'a, Result<T, Error<E>>>,
    timeout: Option<Duration>,
    inherited: Option<Instant>,
    metadata: Option<Arc<Metadata>>,
    running: Option<Running>,
}

/// A call that was polled.
struct Running {
    context: Option<Context>,
    host: Arc<LocalHost>,
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<'a, T, E> Direct<'a, T, E> {
    /// A call that runs `future`.
    pub fn new(future: BoxFuture<'a, Result<T, Error<E>>>) -> Self {
        Self { future, timeout: None, inherited: None, metadata: None, running: None }
    }

    /// Makes the call within the context of another.
    pub fn in_context(mut self, context: &Context) -> Self {
        self.inherited = context.deadline();
        self
    }

    pub(crate) fn timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    pub(crate) fn inherit(&mut self, deadline: Option<Instant>) {
        self.inherited = deadline;
    }

    pub(crate) fn metadata(&mut self, metadata: Option<Arc<Metadata>>) {
        self.metadata = metadata;
    }
}

// The future is behind a box, and nothing else is pinned in place.
impl<T, E> Unpin for Direct<'_, T, E> {}

impl<T, E> Future for Direct<'_, T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let Self { future, running, timeout, inherited, metadata } = &mut *self;
        let metadata = metadata.take();
        if let Some(metadata) = &metadata
            && let Err(error) = check(metadata)
        {
            return Poll::Ready(Err(Fault::from(error).into()));
        }
        let running = running.get_or_insert_with(|| Running::new(time_left(*timeout, *inherited), metadata));
        if running.expired() {
            return Poll::Ready(Err(Fault::new(FaultKind::Deadline, "").not_run().into()));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| enter(&mut running.context, || future.as_mut().poll(cx))));
        match polled {
            Ok(Poll::Ready(Ok(answer))) => Poll::Ready(Ok(answer)),
            Ok(Poll::Ready(Err(Error::Fault(fault)))) => Poll::Ready(Err(fault.run().into())),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            Ok(Poll::Pending) => running.poll_deadline(cx).map(|fault| Err(fault.into())),
            Err(_) => Poll::Ready(Err(Fault::new(FaultKind::Internal, "the handler panicked").into())),
        }
    }
}

/// What would not travel does not pass here either.
fn check(metadata: &Metadata) -> Result<(), MetadataError> {
    let Limits { metadata_bytes, metadata_entries, .. } = Limits::default();
    metadata.check(metadata_bytes as usize, metadata_entries as usize)
}

impl<T, E> std::fmt::Debug for Direct<'_, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A stream of a direct call, which ends with the call's deadline as one over a connection does. Called by generated
/// code in the context of the call.
#[doc(hidden)]
pub fn bounded<T: 'static, E: 'static, F>(answer: Result<Streaming<T, E>, F>) -> Result<Streaming<T, E>, F> {
    let Some(deadline) = Context::current_deadline() else { return answer };
    answer.map(|items| Streaming::from_results(Bounded { items, sleep: Box::pin(tokio::time::sleep_until(deadline.into())) }))
}

struct Bounded<T, E> {
    items: Streaming<T, E>,
    sleep: Pin<Box<Sleep>>,
}

impl<T, E> Unpin for Bounded<T, E> {}

impl<T, E> Stream for Bounded<T, E> {
    type Item = Result<T, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let item = Pin::new(&mut self.items).poll_next(cx);
        if item.is_pending() && self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Fault::new(FaultKind::Deadline, "").into())));
        }
        item
    }
}

impl Running {
    fn new(time_left: Option<Duration>, metadata: Option<Arc<Metadata>>) -> Self {
        let host = Arc::new(LocalHost::default());
        let deadline = time_left.and_then(|time_left| clock::here().checked_add(time_left));
        let mut context = Context::new(host.clone(), ExchangeKey::LOCAL, deadline);
        if let Some(metadata) = metadata {
            context = context.with_metadata(metadata);
        }
        Self { context: Some(context), host, deadline, sleep: None }
    }

    /// Whether the deadline had passed before the call began. Behind that the timer tells.
    fn expired(&self) -> bool {
        self.sleep.is_none() && self.deadline.is_some_and(|deadline| deadline <= clock::here())
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

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
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
