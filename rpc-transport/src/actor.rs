//! A service that stays on one thread: its calls come to it as jobs, and each runs as a task of its `LocalSet`. The
//! server that holds an [`Actor`] is `Send` and `Sync` although the service is neither.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;

use rpc_core::context::{Context, enter};
use rpc_core::service::{Reply, ReplyFuture};
use rpc_core::status::{Error, Fault, FaultKind};

use crate::sync::{mpsc, oneshot, spawn_local};

/// Calls that may wait for the service's thread to take them: what a driver starts in a turn. More wait in their own
/// tasks, of which the limits of the sessions allow so many.
const QUEUE: usize = 32;

/// A running handler, which never leaves its thread.
type Handler<T> = Pin<Box<dyn Future<Output = T>>>;

/// Starts a call at the service.
type Job<S> = Box<dyn FnOnce(Rc<S>) + Send>;

/// The way to a service on its thread. Clones share it; when the last one is gone and the last call is over, the
/// service is dropped, on its thread.
#[doc(hidden)]
pub struct Actor<S> {
    jobs: mpsc::Sender<Job<S>>,
}

impl<S: 'static> Actor<S> {
    /// Gives `service` to the `LocalSet` that this is called in.
    ///
    /// # Panics
    /// Outside of a `LocalSet`.
    #[track_caller]
    pub fn new(service: S) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<Job<S>>(QUEUE);
        let service = Rc::new(service);
        spawn_local(async move {
            while let Some(job) = waiting.recv().await {
                job(Rc::clone(&service));
            }
        });
        Self { jobs }
    }

    /// A call that arrived encoded.
    pub fn serve<H>(&self, handler: H) -> ReplyFuture
    where
        H: FnOnce(Rc<S>) -> Handler<Reply> + Send + 'static,
    {
        let run = self.run(handler);
        Box::pin(async move { run.await.unwrap_or_else(Reply::fault) })
    }

    /// A call of this process, with nothing encoded.
    pub fn direct<H, T, E>(&self, handler: H) -> Pin<Box<dyn Future<Output = Result<T, Error<E>>> + Send>>
    where
        H: FnOnce(Rc<S>) -> Handler<Result<T, Error<E>>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let run = self.run(handler);
        Box::pin(async move { run.await? })
    }

    /// Runs a handler on the service's thread, in the context of whoever polls this first. Dropping it drops the handler
    /// as soon as that thread comes to it.
    fn run<H, T>(&self, handler: H) -> impl Future<Output = Result<T, Fault>> + Send + use<S, H, T>
    where
        H: FnOnce(Rc<S>) -> Handler<T> + Send + 'static,
        T: Send + 'static,
    {
        let jobs = self.jobs.clone();
        async move {
            let context = Context::current();
            let (reply, answer) = oneshot::channel();
            let job: Job<S> = Box::new(move |service| {
                // Nobody may wait any more by now, and then the handler is not even started.
                if !reply.is_closed() {
                    spawn_local(supervise(handler(service), context, reply));
                }
            });
            jobs.send(job).await.map_err(|_| gone().not_run())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        }
    }
}

/// Runs a handler for as long as somebody waits for it. A panic is this call's fault alone.
async fn supervise<T>(mut handler: Handler<T>, context: Context, mut reply: oneshot::Sender<Result<T, Fault>>) {
    let mut context = Some(context);
    let polled = poll_fn(move |cx| {
        let poll = || enter(&mut context, || handler.as_mut().poll(cx).map(Ok));
        let panicked = |_| Err(Fault::new(FaultKind::Internal, "the handler panicked")).into();
        catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(panicked)
    });
    let result = tokio::select! {
        biased;
        () = reply.closed() => return,
        result = polled => result,
    };
    // The handler is dropped by now: what it held is free when its caller hears of it.
    let _ = reply.send(result);
}

fn gone() -> Fault {
    Fault::new(FaultKind::Internal, "the thread of the service has ended")
}

impl<S> Clone for Actor<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

impl<S> fmt::Debug for Actor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor").finish_non_exhaustive()
    }
}
