//! What a handler knows about the call that it serves: its deadline, its peer, what came beside the arguments, and
//! whether anybody still waits.
//!
//! A context is passed on to the calls that a handler makes without anyone remembering to: it is ambient while the
//! handler is polled. It does not cross `tokio::spawn`; [`Context::scope`] carries it there.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Instant;

use bytes::Bytes;

use crate::id::ExchangeKey;
use crate::metadata::Metadata;

/// Who is on the other end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Peer {
    /// The peer's address in the form of an endpoint, for example `tcp://127.0.0.1:40312`, or `local` for direct calls.
    pub endpoint: String,
    /// Who that is, where the transport knows it for certain.
    pub principal: Option<Principal>,
}

/// Who somebody is, as a third party vouches for: the operating system, or a certificate's authority.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// A user of this machine, as Unix names them.
    UnixUser {
        /// Number of the user.
        uid: u32,
        /// Number of the user's group.
        gid: u32,
        /// The process that connected or listens, where the system tells. Numbers of processes that have ended are used
        /// again, so it is for logs and not for decisions.
        pid: Option<u32>,
    },
    /// A user of this machine, as Windows names them.
    WindowsUser {
        /// Security identifier, in the form `S-1-5-21-…`.
        sid: String,
        /// The process; for logs alone, as in Unix.
        pid: u32,
    },
    /// The holder of a certificate that was verified.
    Certificate {
        /// The certificate's subject as a distinguished name, in the form of RFC 4514: `CN=alice,O=Example`.
        subject: String,
        /// The names of hosts and users for which the certificate was issued (subject alternative names).
        names: Vec<String>,
        /// The certificate itself, in DER.
        certificate: Bytes,
    },
}

/// For people: of a certificate its names and how long it is, not a thousand bytes of DER in each line of a log.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixUser { uid, gid, pid } => {
                f.debug_struct("UnixUser").field("uid", uid).field("gid", gid).field("pid", pid).finish()
            }
            Self::WindowsUser { sid, pid } => f.debug_struct("WindowsUser").field("sid", sid).field("pid", pid).finish(),
            Self::Certificate { subject, names, certificate } => {
                let mut text = f.debug_struct("Certificate");
                text.field("subject", subject).field("names", names);
                text.field("certificate", &format_args!("{} bytes", certificate.len())).finish()
            }
        }
    }
}

impl Peer {
    /// A peer at an address.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), principal: None }
    }

    /// The same, known to be `principal`.
    pub fn with_principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }
}

/// What a context asks of whoever runs the call: implemented by the transport's sessions and by direct calls.
pub trait CallHost: Send + Sync + 'static {
    /// Who calls.
    fn peer(&self) -> &Peer;

    /// The host itself, for the transport that it belongs to.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;

    /// Ready once nobody waits for the exchange any more.
    fn poll_abandoned(&self, key: ExchangeKey, cx: &mut task::Context<'_>) -> Poll<()>;
}

/// The context of a call. Cheap to clone; usable outside of the handler too.
#[derive(Clone, Default)]
pub struct Context {
    deadline: Option<Instant>,
    call: Option<(Arc<dyn CallHost>, ExchangeKey)>,
    metadata: Option<Arc<Metadata>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

impl Context {
    /// The context of a call that `host` runs.
    #[inline]
    pub fn new(host: Arc<dyn CallHost>, key: ExchangeKey, deadline: Option<Instant>) -> Self {
        Self { deadline, call: Some((host, key)), metadata: None }
    }

    /// A context of no call, with a deadline: for tests, and for work that nobody called for.
    pub fn with_deadline(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), call: None, metadata: None }
    }

    /// The same context with other metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Arc<Metadata>>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }

    /// The context of the handler that is being polled; empty outside of one.
    pub fn current() -> Self {
        CURRENT.with_borrow(Clone::clone).unwrap_or_default()
    }

    /// The deadline of the handler that is being polled, without a copy of its context.
    #[inline]
    pub fn current_deadline() -> Option<Instant> {
        CURRENT.with_borrow(|current| current.as_ref()?.deadline)
    }

    /// When the caller stops waiting; `None` where it waits for as long as it takes.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Who calls; `None` outside of a call.
    pub fn peer(&self) -> Option<&Peer> {
        self.call.as_ref().map(|(host, _)| host.peer())
    }

    /// Who runs the call, for transports: it leads from a context to the session.
    #[doc(hidden)]
    pub fn host(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.call.as_ref().map(|(host, _)| Arc::clone(host).into_any())
    }

    /// What the caller sent beside the arguments, and what layers on this side made of it. Calls that the handler makes
    /// do not inherit it: a token is for the service that it was given to.
    pub fn metadata(&self) -> &Metadata {
        static NONE: Metadata = Metadata::new();
        self.metadata.as_deref().unwrap_or(&NONE)
    }

    /// Completes once nobody waits for the answer any more: the call was cancelled, its deadline passed, or its session
    /// was lost. The handler itself is dropped then; this is for work that it spawned.
    pub async fn cancelled(&self) {
        match &self.call {
            Some((host, key)) => poll_fn(|cx| host.poll_abandoned(*key, cx)).await,
            None => std::future::pending().await,
        }
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        let mut cx = task::Context::from_waker(task::Waker::noop());
        self.call.as_ref().is_some_and(|(host, key)| host.poll_abandoned(*key, &mut cx).is_ready())
    }

    /// Runs `future` with this context as the ambient one, for example in a task that a handler spawns.
    pub fn scope<F: Future>(&self, future: F) -> Scope<F> {
        Scope { context: Some(self.clone()), future: Box::pin(future) }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("deadline", &self.deadline).field("peer", &self.peer()).finish_non_exhaustive()
    }
}

/// Puts the context back where it came from, also when what runs under it panics.
struct Restore<'a> {
    current: &'a RefCell<Option<Context>>,
    slot: &'a mut Option<Context>,
}

impl Drop for Restore<'_> {
    #[inline]
    fn drop(&mut self) {
        std::mem::swap(self.slot, &mut self.current.borrow_mut());
    }
}

/// Runs `run` with the context in `slot` as the ambient one. The context is moved, not cloned: this is on the path of
/// every call.
#[inline]
pub fn enter<R>(slot: &mut Option<Context>, run: impl FnOnce() -> R) -> R {
    CURRENT.with(|current| {
        std::mem::swap(slot, &mut current.borrow_mut());
        let _restore = Restore { current, slot };
        run()
    })
}

/// A future that runs under a context; see [`Context::scope`].
pub struct Scope<F> {
    context: Option<Context>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let Self { context, future } = &mut *self;
        enter(context, || future.as_mut().poll(cx))
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("context", &self.context).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn far() -> Instant {
        // Any instant does; the crate itself never reads a clock.
        #[allow(clippy::disallowed_methods)]
        Instant::now().checked_add(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn the_ambient_context_ends_with_its_scope_and_nests() {
        let (outer, inner) = (far(), far() + Duration::from_secs(1));
        let mut slot = Some(Context::with_deadline(outer));
        enter(&mut slot, || {
            assert_eq!(Context::current().deadline(), Some(outer));
            let mut nested = Some(Context::with_deadline(inner));
            enter(&mut nested, || assert_eq!(Context::current().deadline(), Some(inner)));
            assert_eq!(Context::current().deadline(), Some(outer));
        });
        assert_eq!(Context::current().deadline(), None);
        assert_eq!(slot.and_then(|context| context.deadline()), Some(outer));
    }

    #[test]
    fn a_principal_is_printed_by_its_names_and_not_by_the_bytes_of_its_certificate() {
        let certificate = Bytes::from(vec![0x30; 1234]);
        let names = vec!["alice.example".to_owned()];
        let principal = Principal::Certificate { subject: "CN=alice".to_owned(), names, certificate };
        let peer = Peer::new("tls://192.0.2.7:1").with_principal(principal);
        let text = r#"Certificate { subject: "CN=alice", names: ["alice.example"], certificate: 1234 bytes }"#;
        assert_eq!(format!("{peer:?}"), format!(r#"Peer {{ endpoint: "tls://192.0.2.7:1", principal: Some({text}) }}"#));
        let user = Principal::UnixUser { uid: 7, gid: 8, pid: Some(9) };
        assert_eq!(format!("{user:?}"), "UnixUser { uid: 7, gid: 8, pid: Some(9) }");
        let user = Principal::WindowsUser { sid: "S-1-5-21-1".to_owned(), pid: 9 };
        assert_eq!(format!("{user:?}"), r#"WindowsUser { sid: "S-1-5-21-1", pid: 9 }"#);
    }

    struct Host(std::sync::atomic::AtomicBool);

    impl CallHost for Host {
        fn peer(&self) -> &Peer {
            unreachable!("nobody asks")
        }

        fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
            self
        }

        fn poll_abandoned(&self, _: ExchangeKey, _: &mut task::Context<'_>) -> Poll<()> {
            if self.0.load(std::sync::atomic::Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    #[test]
    fn a_context_tells_whether_anybody_still_waits() {
        let host = Arc::new(Host(false.into()));
        let context = Context::new(host.clone(), ExchangeKey::LOCAL, None);
        assert!(!context.is_cancelled());
        host.0.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(context.is_cancelled());
        assert!(!Context::default().is_cancelled(), "outside of a call nobody cancels");
    }

    #[test]
    fn metadata_are_ambient_and_none_where_none_were_sent() {
        assert!(Context::current().metadata().is_empty());
        let mut metadata = Metadata::new();
        metadata.insert("tenant", "a").unwrap();
        let mut slot = Some(Context::default().with_metadata(metadata));
        enter(&mut slot, || assert_eq!(Context::current().metadata().get_text("tenant"), Some("a")));
        assert!(Context::current().metadata().is_empty());
    }

    #[test]
    fn a_panic_leaves_no_context_behind() {
        let mut slot = Some(Context::with_deadline(far()));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| enter(&mut slot, || panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(Context::current().deadline(), None);
        assert!(slot.is_some());
    }
}
