//! A call through the layers of its channel: under one deadline, which holds for what waits in the layers too.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rpc_core::metadata::Metadata;
use rpc_core::service::{Attempts, Reply, ReplyFuture, Request, Service};
use rpc_core::status::{Error, Fault, FaultKind};
use rpc_core::streaming::Decoding;
use tokio::time::Sleep;

use crate::clock::{self, time_left};

/// A call that goes through layers.
pub(crate) struct Layered<T, E> {
    stack: Arc<dyn Service>,
    request: Option<Request>,
    decoding: Decoding,
    /// The time of a call that states none; `None` for streams.
    default_deadline: Option<Duration>,
    finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
    running: Option<Running>,
}

struct Running {
    future: ReplyFuture,
    attempts: Attempts,
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<T, E> Layered<T, E> {
    pub(crate) fn new(
        stack: Arc<dyn Service>,
        request: Request,
        decoding: Decoding,
        default_deadline: Duration,
        finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
    ) -> Self {
        let default_deadline = (!request.info().kind.is_stream()).then_some(default_deadline);
        Self { stack, request: Some(request), decoding, default_deadline, finish, running: None }
    }

    /// Whether it has been polled.
    pub(crate) fn is_under_way(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
        inherited: Option<Instant>,
        metadata: Option<Arc<Metadata>>,
        urgency: Option<u8>,
    ) -> Poll<Result<T, Error<E>>> {
        if let Some(mut request) = self.request.take() {
            let time_left = time_left(timeout, inherited).or(self.default_deadline);
            if time_left.is_some_and(|time_left| time_left.is_zero()) {
                return Poll::Ready(Err(Fault::new(FaultKind::Deadline, "").not_run().into()));
            }
            let deadline = time_left.and_then(|time_left| clock::here().checked_add(time_left));
            request.set_deadline(deadline);
            if let Some(metadata) = metadata {
                request.set_metadata(metadata);
            }
            if let Some(urgency) = urgency {
                request.set_urgency(urgency);
            }
            let attempts = request.attempts().clone();
            self.running = Some(Running { future: self.stack.call(request), attempts, deadline, sleep: None });
        }
        let Some(running) = &mut self.running else { return Poll::Pending };
        let reply = match running.future.as_mut().poll(cx) {
            Poll::Ready(reply) => reply,
            Poll::Pending if running.poll_deadline(cx).is_pending() => return Poll::Pending,
            Poll::Pending => {
                let late = Fault::new(FaultKind::Deadline, "");
                Reply::Fault(if running.attempts.none() { late.not_run() } else { late })
            }
        };
        self.running = None;
        Poll::Ready((self.finish)(&self.decoding, reply))
    }
}

impl Running {
    /// A timer only where the call waits. The session has its own for what was sent, but what waits in a layer was not.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        sleep.as_mut().poll(cx)
    }
}
