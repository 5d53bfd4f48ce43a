//! The seam to `tower`: layers around a service, on the server and on the client.
//!
//! A layer sees a [`Request`] and yields a [`Reply`], the same two types on both sides, so one that names no side serves
//! both. What it wraps is an [`Inner`].
//!
//! ```
//! # use rpc_transport as rpc;
//! # use rpc_transport::tower::{BoxError, Inner, layered};
//! # use rpc_core::service::{Request, Reply, Service};
//! # fn layers<K: Service>(server: K) -> impl Service {
//! use tower::filter::AsyncFilterLayer;
//!
//! // Takes a call only with a token; whatever a layer is to look up, it can await.
//! let auth = AsyncFilterLayer::new(|request: Request| async move {
//!     match request.metadata().get_text("authorization") {
//!         Some("letmein") => Ok(request),
//!         _ => Err(rpc_core::status::Fault::denied("a token is needed")),
//!     }
//! });
//! let layers = tower::ServiceBuilder::new().load_shed().concurrency_limit(64).layer(auth);
//! layered(server, layers)
//! # }
//! ```
//!
//! On a server it reads `Server::builder().service(layered(KvServer::new(store), layers))`, on a client
//! `connection.session().layer(layers).open::<KvClient>()`. A service without layers has nothing of this in its path.
//!
//! * [`Context::current`](rpc_core::context::Context::current) in the layers of a server is that of the call: deadline,
//!   peer, metadata. What they leave in [`Request::metadata_mut`] is what the handler finds.
//! * Each call goes through a clone of the layers' service, which is polled to readiness for it. So state that calls
//!   share is behind an `Arc`, as `tower`'s own layers have it. Where the caller lets go, the clone and all that waits in
//!   it are dropped.
//! * A layer is done with a call when its reply is there. With a stream for an answer that is before the first item.
//! * A fault of the call is [`Reply::Fault`]; an `Err` is a layer's own, and becomes a fault:
//!
//! | error | fault |
//! |---|---|
//! | [`Fault`] | itself: `Fault::denied("…")`, `Fault::new(FaultKind::Overloaded, "…")` |
//! | `rpc::Error` of a call that the layer made | its fault, as one of this side |
//! | `tower::timeout` and `tokio::time` elapsed | [`FaultKind::Deadline`] |
//! | `tower::load_shed` overloaded | [`FaultKind::Overloaded`] |
//! | any other | [`FaultKind::Internal`] with its text; `ServiceBuilder::map_err` makes a [`Fault`] of it before |
//!
//! None of them promises that nothing was started where the layers have handed the call on; see
//! [`Fault::may_have_run`].

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rpc_core::context::{self, enter};
use rpc_core::metadata::MetadataError;
use rpc_core::proto::Batch;
use rpc_core::service::{Attempts, MethodKind, Reply, ReplyFuture, ReplyItems, Request, Service, ServiceInfo};
use rpc_core::status::{Error, Fault, FaultKind, Never};
use rpc_core::streaming::{Filled, ItemEncoder};
use tower_layer::Layer;

/// The error of layers, as `tower` has it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the innermost layer wraps: the handlers of a service, or the calls of a session. Always ready.
#[derive(Clone)]
pub struct Inner(Arc<dyn Service>);

impl tower_service::Service<Request> for Inner {
    type Response = Reply;
    type Error = BoxError;
    type Future = InnerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> InnerFuture {
        let attempts = request.take_attempts();
        InnerFuture { future: self.0.call(request), attempts, begun: false }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("service", &self.0.info().name).finish_non_exhaustive()
    }
}

/// A call below all layers. Faults are in its [`Reply`]; it has no error.
pub struct InnerFuture {
    future: ReplyFuture,
    attempts: Attempts,
    begun: bool,
}

impl Future for InnerFuture {
    type Output = Result<Reply, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.begun, true) {
            self.attempts.begin();
        }
        let polled = self.future.as_mut().poll(cx);
        if let Poll::Ready(reply) = &polled {
            self.attempts.end(reply);
        }
        polled.map(Ok)
    }
}

impl fmt::Debug for InnerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerFuture").finish_non_exhaustive()
    }
}

/// What layers make of an [`Inner`]: the service of requests and replies that a channel or a server can run. Implemented
/// for everything that fits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand around a service",
    note = "a layer makes a `tower::Service<rpc::Request, Response = rpc::Reply>` that is `Clone`, `Send`, `Sync` and `'static`, with a `Send` future",
    note = "`BoxCloneSyncServiceLayer` and `Buffer` help where it is not"
)]
pub trait Stack:
    tower_service::Service<Request, Response = Reply, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> Stack for S where
    S: tower_service::Service<Request, Response = Reply, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A service behind layers, made by [`layered`].
#[derive(Clone)]
pub struct Layered<S> {
    info: &'static ServiceInfo,
    stack: S,
}

/// Puts layers around the server of a service: `layered(KvServer::new(store), ServiceBuilder::new().timeout(time))`.
pub fn layered<L>(service: impl Service, layer: L) -> Layered<L::Service>
where
    L: Layer<Inner>,
    L::Service: Stack,
{
    around(Arc::new(Handlers(service)), &layer)
}

/// Puts layers around the calls of a session.
pub(crate) fn around<L>(service: Arc<dyn Service>, layer: &L) -> Layered<L::Service>
where
    L: Layer<Inner>,
    L::Service: Stack,
{
    Layered { info: service.info(), stack: layer.layer(Inner(service)) }
}

impl<S: Stack> Service for Layered<S> {
    fn info(&self) -> &'static ServiceInfo {
        self.info
    }

    fn call(&self, request: Request) -> ReplyFuture {
        Box::pin(through(self.stack.clone(), request))
    }
}

impl<S> fmt::Debug for Layered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("service", &self.info.name).finish_non_exhaustive()
    }
}

async fn through(mut stack: impl Stack, mut request: Request) -> Reply {
    let (attempts, kind) = (request.attempts().clone(), request.info().kind);
    let ready: Result<(), BoxError> = poll_fn(|cx| stack.poll_ready(cx)).await.map_err(Into::into);
    let result = match ready {
        Ok(()) => stack.call(request).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    let reply = result.unwrap_or_else(|error| Reply::Fault(fault_of(error, attempts.none())));
    match reply {
        Reply::Fault(fault) if !attempts.none() => Reply::Fault(fault.run()),
        reply if fits(kind, &reply) => reply,
        _ => Reply::Fault(Fault::new(FaultKind::Internal, "a layer answered in another form than the method has")),
    }
}

/// Whether a reply is of the form that a method has. A handler's is; a layer may make one up.
fn fits(kind: MethodKind, reply: &Reply) -> bool {
    match reply {
        Reply::Message(_) => matches!(kind, MethodKind::Unary | MethodKind::ClientStream),
        Reply::Stream(_) => matches!(kind, MethodKind::ServerStream | MethodKind::BidiStream),
        Reply::AppError(_) => kind != MethodKind::OneWay,
        Reply::Done => kind == MethodKind::OneWay,
        Reply::Fault(_) => true,
    }
}

/// What a layer's error means to the caller.
fn fault_of(error: BoxError, untried: bool) -> Fault {
    let error = match error.downcast::<Fault>() {
        Ok(fault) => return *fault,
        Err(error) => error,
    };
    let error = match error.downcast::<Error<Never>>() {
        // A call that the layer made may not have run; that says nothing of this one.
        Ok(error) => return error.into_fault().run(),
        Err(error) => error,
    };
    let fault = match error.downcast::<MetadataError>() {
        Ok(error) => return Fault::from(*error),
        Err(error) => Fault::new(kind_of(&*error), error.to_string()),
    };
    if untried { fault.not_run() } else { fault.run() }
}

/// The errors of `tower`'s own layers are known by what they say of themselves, so that this crate needs not depend on
/// the crate `tower` and its version. No promise hangs on it: whether a call may have run was counted.
fn kind_of(error: &(dyn std::error::Error + 'static)) -> FaultKind {
    let said = (format!("{error:?}"), error.to_string());
    match (&*said.0, &*said.1) {
        ("Elapsed(())", "request timed out") => FaultKind::Deadline,
        (name, "service overloaded") if name.starts_with("Overloaded") => FaultKind::Overloaded,
        _ if error.is::<tokio::time::error::Elapsed>() => FaultKind::Deadline,
        _ => FaultKind::Internal,
    }
}

/// The handlers of a service, which find in their context the metadata that the layers have left.
struct Handlers<S>(S);

impl<S: Service> Service for Handlers<S> {
    fn info(&self) -> &'static ServiceInfo {
        self.0.info()
    }

    fn call(&self, request: Request) -> ReplyFuture {
        if !request.has_changed_metadata() {
            return self.0.call(request);
        }
        let metadata = request.shared_metadata().unwrap_or_default();
        let future = self.0.call(request);
        Box::pin(async move {
            let context = context::Context::current().with_metadata(metadata);
            match context.scope(future).await {
                Reply::Stream(items) => match items.into_produced() {
                    Ok(items) => Reply::Stream(ReplyItems::produced(Box::new(Scoped { context: Some(context), items }))),
                    Err(fault) => Reply::Fault(fault),
                },
                reply => reply,
            }
        })
    }
}

/// The items of a handler, in the context that it had.
struct Scoped {
    context: Option<context::Context>,
    items: Box<dyn ItemEncoder>,
}

impl ItemEncoder for Scoped {
    fn poll_fill(&mut self, cx: &mut Context<'_>, batch: &mut Batch, budget: usize) -> Poll<Filled> {
        let Self { context, items } = self;
        enter(context, || items.poll_fill(cx, batch, budget))
    }
}
