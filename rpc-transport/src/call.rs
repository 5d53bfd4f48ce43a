//! A call of this side: a future that does nothing before its first poll, takes options until then, and tells the peer
//! to stop when it is dropped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rpc_core::context;
use rpc_core::id::ExchangeKey;
use rpc_core::metadata::Metadata;
use rpc_core::proto::{Answer, AnswerKind, ExchangeFault, Extras, OpenCommand, Session};
use rpc_core::service::{Reply, ReplyItems, Request, Service};
use rpc_core::status::{Error, Fault, FaultKind, Never};
use rpc_core::streaming::{Decoding, ItemEncoder};
use rpc_core::wire::frame::{DEFAULT_URGENCY, LEAST_URGENCY};

use crate::clock::time_left;
use crate::handle::SessionHandle;
use crate::handler::send_items;
use crate::layered::Layered;
use crate::local::Direct;
use crate::state::{AbortOnDrop, SessionItems, Slot, Task, fire};

/// A call, made by the methods of a generated client.
///
/// It is lazy: nothing is sent before it is first polled (or awaited). It borrows nothing, so it can be spawned. Set
/// options on it before awaiting it:
///
/// ```
/// # #[rpc::service]
/// # trait Kv {
/// #     async fn get(&self, key: &str) -> rpc::Result<String>;
/// # }
/// # struct Store;
/// # impl Kv for Store {
/// #     async fn get(&self, key: &str) -> rpc::Result<String> {
/// #         Ok(format!("{key} has {:?}", rpc::Context::current().deadline().is_some()))
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::time::Duration;
/// # let server = rpc::Server::builder().service(KvServer::new(Store)).listen("mem://documented/timeout").await?;
/// # let kv: KvClient = rpc::connect(server.endpoint()).await?;
/// let value = kv.get("key").timeout(Duration::from_secs(5)).await?;
/// # assert_eq!(value, "key has true");
/// # Ok(())
/// # }
/// ```
///
/// Without [`timeout`](Self::timeout) a call made inside of a handler has that handler's deadline, else the session's
/// default (30 seconds; none for streams).
///
/// # Errors
/// The method's own error as [`Error::App`], or a [`Fault`] that says whether the call may have run.
///
/// # Cancel safety
/// Dropping a call that was polled tells the peer to stop; the handler is dropped there. Whether it had run already is
/// not known then. Dropping one that was never polled sends nothing.
#[must_use = "a call does nothing before it is awaited"]
pub struct Call<T, E = Never> {
    state: State<T, E>,
    timeout: Option<Duration>,
    rare: Option<Box<Rare>>,
}

/// Options that few calls have. Behind a box, because every call is moved.
#[derive(Debug, Default)]
struct Rare {
    inherited: Option<Instant>,
    metadata: Option<Arc<Metadata>>,
    urgency: Option<u8>,
}

impl Rare {
    /// What of it travels, if any does.
    fn into_extras(self) -> Option<Extras> {
        let Self { metadata, urgency, .. } = self;
        let urgency = urgency.filter(|urgency| *urgency != DEFAULT_URGENCY);
        (metadata.is_some() || urgency.is_some()).then(|| Extras { urgency: urgency.unwrap_or(DEFAULT_URGENCY), metadata })
    }
}

enum State<T, E> {
    Remote(Remote<T, E>),
    Local(Direct<'static, T, E>),
    Layered(Box<Layered<T, E>>),
    Failed(Fault),
    Over,
}

/// A call over a session.
struct Remote<T, E> {
    session: Arc<SessionHandle>,
    request: Option<Prepared>,
    answer: AnswerKind,
    key: Option<ExchangeKey>,
    finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
}

/// A call before its first poll.
struct Prepared {
    method: u32,
    body: Vec<u8>,
    items: Option<Box<dyn ItemEncoder>>,
}

impl<T, E> Call<T, E> {
    /// A call over a session.
    pub(crate) fn remote(
        session: &Arc<SessionHandle>,
        method: u32,
        body: Vec<u8>,
        items: Option<Box<dyn ItemEncoder>>,
        answer: AnswerKind,
        finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
    ) -> Self {
        let request = Some(Prepared { method, body, items });
        let remote = Remote { session: Arc::clone(session), request, answer, key: None, finish };
        Self::new(State::Remote(remote))
    }

    /// A call through the layers of its channel.
    pub(crate) fn layered(
        stack: Arc<dyn Service>,
        request: Request,
        decoding: Decoding,
        default_deadline: Duration,
        finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
    ) -> Self {
        Self::new(State::Layered(Box::new(Layered::new(stack, request, decoding, default_deadline, finish))))
    }

    #[inline]
    fn new(state: State<T, E>) -> Self {
        Self { state, timeout: None, rare: None }
    }

    /// A call that has failed already.
    pub(crate) fn failed(fault: Fault) -> Self {
        Self::new(State::Failed(fault))
    }

    /// A call in this process: `future` runs when the call is polled. For generated clients.
    #[doc(hidden)]
    pub fn local<F>(future: F) -> Self
    where
        F: Future<Output = Result<T, Error<E>>> + Send + 'static,
    {
        Self::new(State::Local(Direct::new(Box::pin(future))))
    }

    /// Gives the call so much time from its first poll. A handler's own deadline is kept if it is earlier.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the call within the context of another: it ends with that one's deadline at the latest.
    pub fn in_context(mut self, context: &context::Context) -> Self {
        if let Some(deadline) = context.deadline() {
            self.rare.get_or_insert_default().inherited = Some(deadline);
        }
        self
    }

    /// Sends a value beside the arguments, for layers and for [`Context::metadata`](context::Context::metadata) in the
    /// handler: `kv.get("key").metadata("authorization", token)`. Calls that the handler makes do not inherit it.
    ///
    /// A key has 1 to 255 of the characters `a` to `z`, `0` to `9`, `-`, `_` and `.`, and stands once: the last value
    /// counts. By default a call may have 64 keys and 16 KiB in all, which `Limits` say on both sides. Where any of this
    /// is broken, the call fails with a fault that names the key, and nothing is sent.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let metadata = Arc::make_mut(self.rare.get_or_insert_default().metadata.get_or_insert_default());
        if let Err(error) = metadata.insert(key, value) {
            self.state = State::Failed(error.into());
        }
        self
    }

    /// Says how urgent the call and its answer are among those of its session: 0 is the most, 7 the least, 3 the default,
    /// as RFC 9218 has it. Where they find others waiting, the more urgent go first, and now and then one of the others,
    /// so that none waits for ever. At 0, arguments or an answer of 1 KiB at most go ahead of other sessions too, out of
    /// their session's own share ([`SessionBuilder::weight`](crate::SessionBuilder::weight)).
    ///
    /// Calls that the handler makes do not inherit it, and a call in this process has no use for it. An urgency over 7
    /// fails the call with a fault that says so, and nothing is sent.
    ///
    /// ```
    /// # #[rpc::service]
    /// # trait Kv {
    /// #     async fn get(&self, key: &str) -> rpc::Result<String>;
    /// #     async fn dump(&self) -> rpc::Result<Vec<String>>;
    /// # }
    /// # struct Store;
    /// # impl Kv for Store {
    /// #     async fn get(&self, key: &str) -> rpc::Result<String> {
    /// #         Ok(format!("{key} is fine"))
    /// #     }
    /// #     async fn dump(&self) -> rpc::Result<Vec<String>> {
    /// #         Ok(vec!["state is fine".to_owned(); 10_000])
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = rpc::Server::builder().service(KvServer::new(Store)).listen("mem://documented/urgency").await?;
    /// # let kv: KvClient = rpc::connect(server.endpoint()).await?;
    /// // Both are under way, and the small one does not wait for the large one.
    /// let (dump, state) = tokio::join!(kv.dump().urgency(7), kv.get("state").urgency(0));
    /// # assert_eq!((dump?.len(), state?.as_str()), (10_000, "state is fine"));
    /// # assert!(kv.get("state").urgency(8).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn urgency(mut self, urgency: u8) -> Self {
        if urgency > LEAST_URGENCY {
            let text = format!("Call::urgency is {urgency}; give it at least 0, the most urgent, and at most {LEAST_URGENCY}");
            self.state = State::Failed(Fault::new(FaultKind::Incompatible, text).not_run());
        } else {
            self.rare.get_or_insert_default().urgency = Some(urgency);
        }
        self
    }

    /// With what a request says of the call.
    #[cfg(feature = "tower")]
    pub(crate) fn prepared(mut self, inherited: Option<Instant>, metadata: Option<Arc<Metadata>>, urgency: Option<u8>) -> Self {
        if inherited.is_some() || metadata.is_some() || urgency.is_some() {
            self.rare = Some(Box::new(Rare { inherited, metadata, urgency }));
        }
        self
    }
}

// Nothing in it is pinned in place.
impl<T, E> Unpin for Call<T, E> {}

impl<T, E> Future for Call<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { state, timeout, rare } = &mut *self;
        let result = match state {
            // It knows its end itself: what is returned is not moved once more to look at it.
            State::Remote(remote) => return remote.poll(cx, *timeout, rare),
            State::Layered(layered) => {
                let Rare { inherited, metadata, urgency } = rare.take().map(|rare| *rare).unwrap_or_default();
                layered.poll(cx, *timeout, inherited, metadata, urgency)
            }
            State::Local(local) => {
                if let Some(timeout) = timeout.take() {
                    local.timeout(timeout);
                }
                if let Some(rare) = rare.take() {
                    local.inherit(rare.inherited);
                    local.metadata(rare.metadata);
                }
                Pin::new(local).poll(cx)
            }
            State::Failed(_) | State::Over => match std::mem::replace(state, State::Over) {
                State::Failed(fault) => Poll::Ready(Err(Error::Fault(fault))),
                _ => over(),
            },
        };
        if result.is_ready() {
            *state = State::Over;
        }
        result
    }
}

#[cold]
fn over() -> ! {
    panic!("a call is polled behind its end")
}

impl<T, E> Remote<T, E> {
    #[inline]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
        rare: &mut Option<Box<Rare>>,
    ) -> Poll<Result<T, Error<E>>> {
        if let Some(request) = self.request.take() {
            let rare = rare.take();
            let timeout = time_left(timeout, rare.as_ref().and_then(|rare| rare.inherited));
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Poll::Ready(Err(Fault::new(FaultKind::Deadline, "").not_run().into()));
            }
            if let Err(fault) = self.open(request, timeout, rare.and_then(|rare| rare.into_extras()), cx) {
                return Poll::Ready(Err(Fault::from(fault).into()));
            }
            if self.answer != AnswerKind::None {
                return Poll::Pending;
            }
        }
        let Some(key) = self.key else { over() };
        let reply = if self.answer == AnswerKind::None {
            match self.session.state.poll_sent(key, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => Reply::Done,
                Poll::Ready(Err(fault)) => {
                    self.key = None;
                    return Poll::Ready(Err(Fault::from(fault).into()));
                }
            }
        } else {
            match self.take_answer(key, cx) {
                Answer::Pending => return Poll::Pending,
                Answer::Message(bytes) => Reply::Message(bytes),
                Answer::AppError(bytes) => Reply::AppError(bytes),
                Answer::Stream => Reply::Stream(self.items(key)),
                Answer::Fault(fault) => {
                    self.key = None;
                    return Poll::Ready(Err(Fault::from(fault).into()));
                }
            }
        };
        self.key = None;
        Poll::Ready((self.finish)(&self.session.decoding, reply))
    }

    fn open(
        &mut self,
        request: Prepared,
        timeout: Option<Duration>,
        extras: Option<Extras>,
        cx: &Context<'_>,
    ) -> Result<(), ExchangeFault> {
        let Prepared { method, body, items } = request;
        let command = OpenCommand { method, timeout, body: body.into(), more: items.is_some(), answer: self.answer };
        let state = &self.session.state;
        let slot = Slot::reading(cx.waker());
        let opened = match extras {
            None => state.act_now(|session, out| session.open_now(command, slot, out)),
            Some(extras) => state.act_now(|session, out| session.open_with(command, extras, slot, out)),
        };
        let key = opened.unwrap_or_else(|| Err(state.lock().proto.lost()))?;
        self.key = Some(key);
        if let Some(items) = items
            && let Some(runtime) = state.runtime()
        {
            let session = Arc::clone(state);
            let task = runtime.spawn(async move { send_items(&session, key, items, None, |_, _| {}).await });
            let task = Task::Sender(AbortOnDrop(task.abort_handle()));
            if let Some(slot) = state.lock().proto.user(key) {
                slot.runs(task);
            }
        }
        Ok(())
    }

    fn take_answer(&self, key: ExchangeKey, cx: &Context<'_>) -> Answer {
        let mut core = self.session.state.lock();
        let answer = core.proto.take_answer(key);
        if answer == Answer::Pending
            && let Some(slot) = core.proto.user(key)
        {
            match &mut slot.reader {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        let wake = core.flush();
        drop(core);
        fire(wake);
        answer
    }

    /// The exchange passes from the call to the stream of its items.
    fn items(&self, key: ExchangeKey) -> ReplyItems {
        let session = Arc::clone(&self.session.state);
        let items = SessionItems { session, key, input: false, on_drop: Session::release, _keep: Arc::clone(&self.session) };
        ReplyItems::received(Box::new(items))
    }
}

impl<T, E> Drop for Remote<T, E> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.session.state.act(|session| session.release(key));
        }
    }
}

impl<T, E> fmt::Debug for Call<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Remote(remote) if remote.key.is_some() => "under way",
            State::Layered(layered) if layered.is_under_way() => "under way",
            State::Remote(remote) if remote.request.is_none() => "over",
            State::Remote(_) | State::Layered(_) => "not sent",
            State::Local(_) => "local",
            State::Failed(_) | State::Over => "over",
        };
        f.debug_struct("Call").field("state", &state).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
