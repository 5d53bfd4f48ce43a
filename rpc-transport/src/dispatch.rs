//! From a call that arrived whole to its handler: the first poll in the driver's own turn, outside of every lock, then
//! a task if it has to wait (docs/ARCHITECTURE.md, "Handlers").

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rpc_core::code::Code;
use rpc_core::context;
use rpc_core::id::ExchangeKey;
use rpc_core::metadata::Metadata;
use rpc_core::proto::{Fresh, Session, SessionEvent, Time};
use rpc_core::service::{MethodInfo, Reply, Request, Service, ServiceInfo};
use rpc_core::streaming::Decoding;
use rpc_core::wire::frame::Reason;

use crate::clock;
use crate::handler::{Place, Running, answer, answer_fresh, run, run_stream};
use crate::state::{Counted, Link, SessionItems, SessionState, Slot, Task};
use crate::tally::Event;

/// Arguments over this size are decoded in a task of their own, in bytes: decoding them could hold the connection.
const INLINE_ARGUMENTS: usize = 64 * 1024;

/// A method whose first poll took longer than this is given a task of its own from then on.
const INLINE_TIME: Duration = Duration::from_micros(500);

/// One call in so many is timed; the plain path reads no clock.
const SAMPLE: u32 = 16;

/// So many slow calls in a row make a method slow: one alone may have been the machine's doing.
const SLOW_STREAK: u32 = 3;

/// The services of a listener, by name and by number.
#[derive(Default)]
pub(crate) struct Services {
    offered: Vec<Arc<Offered>>,
    by_name: HashMap<&'static str, usize>,
}

/// A service as it is offered.
pub(crate) struct Offered {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) info: &'static ServiceInfo,
    /// Its number on this side.
    pub(crate) index: u64,
    /// Whether peers are trusted not to send messages that are expensive to decode.
    pub(crate) trusted: bool,
    methods: Vec<MethodState>,
}

/// What is known of a method, and learnt while it runs.
struct MethodState {
    /// Whether it asked for a task of its own.
    spawn: bool,
    calls: AtomicU32,
    /// How many timed calls in a row were slow.
    slow: AtomicU32,
}

/// A service that is to be offered.
#[derive(Clone)]
pub(crate) struct Offer {
    service: Arc<dyn Service>,
    trusted: bool,
}

impl Offer {
    pub(crate) fn new(service: impl Service, trusted: bool) -> Self {
        Self { service: Arc::new(service), trusted }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service.info().name)
    }
}

impl Services {
    /// The services of one side.
    ///
    /// # Errors
    /// If two have one name.
    pub(crate) fn new(offers: Vec<Offer>) -> Result<Self, String> {
        let mut services = Self::default();
        for Offer { service, trusted } in offers {
            let info = service.info();
            let methods = info.methods.iter().map(MethodState::new).collect();
            let index = services.offered.len();
            services.offered.push(Arc::new(Offered { service, info, index: index as u64, trusted, methods }));
            if services.by_name.insert(info.name, index).is_some() {
                return Err(format!("two services are named `{}`: give one of the traits another name", info.name));
            }
        }
        Ok(services)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Offered>> {
        self.offered.get(*self.by_name.get(name)?)
    }

    /// The one with a number.
    pub(crate) fn at(&self, index: u64) -> Option<&Arc<Offered>> {
        self.offered.get(usize::try_from(index).ok()?)
    }

    /// The names, for the refusal of an unknown one.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<&str> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// A call on its way to its handler.
pub(crate) struct Arrival {
    /// It has no exchange yet.
    pub(crate) fresh: Option<Fresh>,
    pub(crate) key: ExchangeKey,
    pub(crate) method: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) body: Vec<u8>,
    pub(crate) more: bool,
    pub(crate) one_way: bool,
    pub(crate) metadata: Option<Arc<Metadata>>,
}

impl Offered {
    /// Checks a call against the method that it names, with the session's lock held. `None`: it was refused.
    pub(crate) fn admit(&self, session: &mut Session<Slot>, event: SessionEvent, now: Time, link: &Link) -> Option<Arrival> {
        let SessionEvent::Opened { key, method, timeout, body, more, one_way, metadata } = event else { return None };
        match self.method(session, method, more, one_way, link) {
            Ok(info) => {
                let timeout = timeout.or_else(|| (!info.kind.is_stream()).then(|| session.default_deadline(key, now)));
                Some(Arrival { fresh: None, key, method, timeout, body, more, one_way, metadata })
            }
            Err(reason) => {
                refuse(session, key, reason);
                None
            }
        }
    }

    /// What a call names, if it may be started.
    #[inline(always)]
    pub(crate) fn method(
        &self,
        session: &mut Session<Slot>,
        method: u32,
        more: bool,
        one_way: bool,
        link: &Link,
    ) -> Result<&'static MethodInfo, Reason> {
        use rpc_core::service::MethodKind::{BidiStream, ClientStream, OneWay};
        let info = self.info;
        let Some(method) = info.methods.get(method as usize) else {
            return Err(Reason::new(Code::UNKNOWN_METHOD, format!("{} has no method number {method}", info.name)));
        };
        let kind = method.kind;
        if more != matches!(kind, ClientStream | BidiStream) || one_way != (kind == OneWay) {
            let text = format!("{}/{} is {kind:?}, and was called otherwise", info.name, method.name);
            return Err(Reason::new(Code::BAD_ARGUMENTS, text));
        }
        // One that is not answered adds nothing to what waits.
        if !one_way && session.is_crowded() {
            Event::Unsent.happened();
            return Err(Reason::new(Code::REFUSED, "too many bytes of answers wait in this session: take them first"));
        }
        // Asked before the first poll, which may make a task of it: whoever is refused was not started.
        if link.is_busy() {
            Event::Busy.happened();
            let text = format!("{} handlers of this connection wait already", link.limits.handlers);
            return Err(Reason::new(Code::REFUSED, text));
        }
        Ok(method)
    }

    /// Starts the handler. The locks are open. Yields when a deadline passes that the driver does not know of.
    // Into the path of plain calls without moving the call in memory.
    #[inline(always)]
    pub(crate) fn start(
        &self,
        session: &Arc<SessionState>,
        arrival: Arrival,
        decoding: Decoding,
        now: Instant,
        link: &Arc<Link>,
    ) -> Option<Time> {
        let Arrival { fresh, key, method, timeout, body, more, one_way, metadata } = arrival;
        let large = body.len() > INLINE_ARGUMENTS;
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let mut context = context::Context::new(session.clone(), key, deadline);
        let input = more.then(|| -> Box<dyn rpc_core::streaming::ItemSource> {
            Box::new(SessionItems { session: session.clone(), key, input: true, on_drop: Session::stop, _keep: () })
        });
        let mut request = Request::new(self.info, method, body, decoding, input);
        if large {
            request.lend();
        }
        if let Some(metadata) = metadata {
            request.set_metadata(metadata.clone());
            context = context.with_metadata(metadata);
        }
        let future = self.service.call(request);
        let mut running = Running { future, context: Some(context) };
        let state = &self.methods[method as usize];
        let mut items = None;
        if !large && state.is_inline() {
            match state.poll(&mut running) {
                Poll::Ready(Reply::Stream(stream)) => items = Some(stream),
                Poll::Ready(reply) => {
                    drop(running);
                    return match fresh {
                        Some(fresh) => answer_fresh(session, fresh, timeout, reply),
                        None => {
                            answer(session, key, reply);
                            None
                        }
                    };
                }
                Poll::Pending => {}
            }
        }
        if let Some(fresh) = fresh {
            session.act(|session| session.keep(fresh, timeout));
        }
        let place = || Place { session: session.clone(), key, _counted: Counted::new(link) };
        let task = match items {
            None => link.runtime.spawn(run(running, place())),
            Some(items) => {
                let context = running.context.take();
                drop(running);
                let items = match items.into_produced() {
                    Ok(items) => items,
                    Err(fault) => {
                        answer(session, key, Reply::Fault(fault));
                        return None;
                    }
                };
                session.act(|session| session.accept(key));
                link.runtime.spawn(run_stream(items, context, place()))
            }
        };
        let task = task.abort_handle();
        attach(session, key, if one_way { Task::OneWay(task) } else { Task::Handler(task) }, now)
    }
}

/// Refuses a call whose handler was not started.
pub(crate) fn refuse(session: &mut Session<Slot>, key: ExchangeKey, reason: Reason) {
    session.reset(key, reason);
    session.handler_done(key);
}

/// Remembers what to stop when nobody waits for the exchange any more. The driver alone cancels, and it is the one
/// who spawned, so no cancellation falls in between. Yields the session's next deadline.
fn attach(session: &SessionState, key: ExchangeKey, task: Task, since: Instant) -> Option<Time> {
    let mut core = session.lock();
    if let Some(slot) = core.proto.user(key) {
        slot.handles(task, since);
    }
    core.proto.next_deadline()
}

impl MethodState {
    fn new(info: &MethodInfo) -> Self {
        Self { spawn: info.spawn, calls: AtomicU32::new(0), slow: AtomicU32::new(0) }
    }

    /// Whether the first poll may happen in the driver's turn.
    #[inline]
    fn is_inline(&self) -> bool {
        !self.spawn && self.slow.load(Ordering::Relaxed) < SLOW_STREAK
    }

    /// The first poll. The waker does nothing: a handler that waits is polled again by its task.
    #[inline]
    fn poll(&self, running: &mut Running) -> Poll<Reply> {
        let mut cx = Context::from_waker(Waker::noop());
        let suspect = self.slow.load(Ordering::Relaxed) > 0;
        if !suspect && !self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
            return running.poll(&mut cx);
        }
        let before = clock::here();
        let polled = running.poll(&mut cx);
        let slow = if clock::here().duration_since(before) > INLINE_TIME { self.slow.load(Ordering::Relaxed) + 1 } else { 0 };
        self.slow.store(slow, Ordering::Relaxed);
        polled
    }
}
