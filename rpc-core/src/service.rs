//! The seam between generated code and whoever runs it: a service is a function from a request's bytes to a reply's.
//! One dispatch function a service, one boxed future a call; nothing here is generic over the transport.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::context::Context;
use crate::metadata::Metadata;
use crate::pool;
use crate::proto::ExchangeFault;
use crate::proto::error::Origin;
use crate::status::{AppError, Error, Fault, FaultKind, Never};
use crate::streaming::{Decoding, ItemEncoder, ItemSource, StreamEncoder, Streaming, broken};
use crate::wire::frame::Reason;

/// A service as it is known at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    /// The name that sessions are opened with.
    pub name: &'static str,
    /// The methods, sorted by hash: a method's place here is what travels.
    pub methods: &'static [MethodInfo],
    /// A hash over the sorted method hashes: equal on both sides if the methods are.
    pub fingerprint: u64,
}

/// A method as it is known at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodInfo {
    /// The method's name.
    pub name: &'static str,
    /// The 64-bit hash of service and method.
    pub hash: u64,
    /// What travels in which direction.
    pub kind: MethodKind,
    /// Whether a call may be run twice: `#[rpc(idempotent)]`. It is recorded for whoever repeats calls; nothing is
    /// repeated because of it, and it does not travel.
    pub idempotent: bool,
    /// Whether each call has a task of its own from its start: `#[rpc(spawn)]`. It does not travel.
    pub spawn: bool,
}

/// What travels in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// One message each way.
    Unary,
    /// Items down.
    ServerStream,
    /// Items up, one answer.
    ClientStream,
    /// Items both ways.
    BidiStream,
    /// One message up, no answer.
    OneWay,
}

impl MethodKind {
    /// Whether items travel: such calls have no deadline by default.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::ServerStream | Self::ClientStream | Self::BidiStream)
    }
}

/// A running call.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What serves calls: implemented by the generated servers.
pub trait Service: Send + Sync + 'static {
    /// Name and methods.
    fn info(&self) -> &'static ServiceInfo;

    /// Starts a call. The future owns the request's bytes before its first poll, so that arguments can borrow from them.
    fn call(&self, request: Request) -> ReplyFuture;
}

/// A call, encoded: on its way to a service, or on its way out. The same on both sides, so that a layer serves either.
pub struct Request {
    service: &'static ServiceInfo,
    method: u32,
    body: Vec<u8>,
    decoding: Decoding,
    /// What most calls have not. Behind a box, because every call is moved.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    /// The items that the peer sends.
    input: Option<Box<dyn ItemSource>>,
    metadata: Option<Arc<Metadata>>,
    metadata_changed: bool,
    urgency: Option<u8>,
    deadline: Option<Instant>,
    /// The items that this side sends. Not a lock, for it is never taken: it makes sharable what is only `Send`.
    output: Mutex<Option<Box<dyn ItemEncoder>>>,
    attempts: Option<Attempts>,
    /// The encoded arguments, where the handler may get a part of them.
    lent: Option<Bytes>,
}

impl Request {
    /// A call of method number `method` with encoded arguments. `input` yields the items where the caller streams. For
    /// transports.
    #[doc(hidden)]
    #[inline]
    pub fn new(
        service: &'static ServiceInfo,
        method: u32,
        body: Vec<u8>,
        decoding: Decoding,
        input: Option<Box<dyn ItemSource>>,
    ) -> Self {
        let more = input.map(|input| Box::new(More { input: Some(input), ..More::default() }));
        Self { service, method, body, decoding, more }
    }

    /// The service that is called.
    pub fn service(&self) -> &'static ServiceInfo {
        self.service
    }

    /// The method that is called.
    ///
    /// # Panics
    /// For a method number that the service does not have; transports refuse such calls.
    pub fn info(&self) -> &'static MethodInfo {
        &self.service.methods[self.method as usize]
    }

    /// The method's place in [`ServiceInfo::methods`].
    #[inline]
    pub fn method(&self) -> u32 {
        self.method
    }

    /// The context of the call: the ambient one of its handler, which is who asks.
    #[doc(hidden)]
    pub fn context(&self) -> Context {
        Context::current()
    }

    /// The encoded arguments.
    pub fn body(&self) -> &[u8] {
        self.lent().map_or(&self.body, |message| message)
    }

    /// Lets the handler have large arguments as parts of the message that they came in. For transports.
    #[doc(hidden)]
    pub fn lend(&mut self) {
        let body = std::mem::take(&mut self.body);
        self.more().lent = Some(pool::lend(body));
    }

    #[inline]
    fn lent(&self) -> Option<&Bytes> {
        self.more.as_ref()?.lent.as_ref()
    }

    /// What travels beside the arguments.
    pub fn metadata(&self) -> &Metadata {
        static NONE: Metadata = Metadata::new();
        self.more.as_ref().and_then(|more| more.metadata.as_deref()).unwrap_or(&NONE)
    }

    /// The same to be changed: before the call is sent, or before its handler looks for them in its context.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        let more = self.more();
        more.metadata_changed = true;
        Arc::make_mut(more.metadata.get_or_insert_default())
    }

    /// When the caller stops waiting; `None` where it waits for as long as it takes.
    pub fn deadline(&self) -> Option<Instant> {
        self.more.as_ref().and_then(|more| more.deadline).or_else(Context::current_deadline)
    }

    /// The same call once more, for layers that try again. `None` where the caller streams items: there is one stream of
    /// them.
    pub fn try_clone(&self) -> Option<Self> {
        if matches!(self.info().kind, MethodKind::ClientStream | MethodKind::BidiStream) {
            return None;
        }
        let copy = |more: &More| More {
            input: None,
            metadata: more.metadata.clone(),
            metadata_changed: more.metadata_changed,
            urgency: more.urgency,
            deadline: more.deadline,
            output: Mutex::default(),
            attempts: more.attempts.clone(),
            lent: more.lent.clone(),
        };
        let more = self.more.as_deref().map(|more| Box::new(copy(more)));
        Some(Self { body: self.body.clone(), more, ..*self })
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Puts metadata beside the arguments. For transports.
    #[doc(hidden)]
    pub fn set_metadata(&mut self, metadata: Arc<Metadata>) {
        self.more().metadata = Some(metadata);
    }

    /// The metadata, if there are any. For transports.
    #[doc(hidden)]
    pub fn shared_metadata(&self) -> Option<Arc<Metadata>> {
        self.more.as_ref()?.metadata.clone().filter(|metadata| !metadata.is_empty())
    }

    /// Whether a layer had its hand on the metadata. For transports.
    #[doc(hidden)]
    pub fn has_changed_metadata(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.metadata_changed)
    }

    /// Gives the call an urgency. For transports.
    #[doc(hidden)]
    pub fn set_urgency(&mut self, urgency: u8) {
        self.more().urgency = Some(urgency);
    }

    /// The urgency, where it was given one. For transports.
    #[doc(hidden)]
    pub fn urgency(&self) -> Option<u8> {
        self.more.as_ref()?.urgency
    }

    /// Gives the call a deadline. For transports.
    #[doc(hidden)]
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.more().deadline = deadline;
    }

    /// The items that this side sends behind the arguments. For transports.
    #[doc(hidden)]
    pub fn set_output(&mut self, items: Box<dyn ItemEncoder>) {
        self.more().output = Mutex::new(Some(items));
    }

    /// The items that this side sends, if there are any. For transports.
    #[doc(hidden)]
    pub fn take_output(&mut self) -> Option<Box<dyn ItemEncoder>> {
        self.more.as_mut()?.output.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Who counts what is tried of this call, made where there is none yet. For transports.
    #[doc(hidden)]
    pub fn attempts(&mut self) -> &Attempts {
        self.more().attempts.get_or_insert_default()
    }

    /// The same, taken away: what this call is handed on to counts by itself. For transports.
    #[doc(hidden)]
    pub fn take_attempts(&mut self) -> Attempts {
        self.more().attempts.take().unwrap_or_default()
    }

    /// The encoded arguments, when nothing else of the call is needed any more. For transports.
    #[doc(hidden)]
    pub fn into_body(self) -> Vec<u8> {
        match self.lent() {
            Some(message) => message.to_vec(),
            None => self.body,
        }
    }

    /// Decodes the arguments, which may borrow from the request.
    ///
    /// # Errors
    /// [`FaultKind::Incompatible`]; the handler is not started then.
    #[inline]
    pub fn decode<'a, A: Deserialize<'a>>(&'a self) -> Result<A, Fault> {
        match self.lent() {
            None => self.decoding.decode(&self.body).map_err(Fault::not_run),
            Some(message) => self.decoding.decode_lent(message).map_err(Fault::not_run),
        }
    }

    /// The items that the caller streams. For generated code, as is all below.
    #[doc(hidden)]
    pub fn take_stream<W, T>(&mut self) -> Streaming<T>
    where
        W: DeserializeOwned + Into<T>,
    {
        let input = self.more.as_mut().and_then(|more| more.input.take());
        let source = input.unwrap_or_else(|| {
            let reason = Reason::new(Code::BAD_ARGUMENTS, "the caller sent no stream of items");
            broken(ExchangeFault { reason, origin: Origin::Local, sent: true })
        });
        Streaming::remote::<W>(source, self.decoding)
    }

    /// The reply of a method with a single answer. The request's buffer becomes the answer's.
    #[doc(hidden)]
    #[inline]
    pub fn reply<T: Serialize, E: AppError>(self, result: Result<T, Error<E>>) -> Reply {
        match result {
            Ok(value) => self.encode(&value).map_or_else(Reply::fault, Reply::Message),
            Err(error) => self.reply_error(error),
        }
    }

    /// The reply of a method with a stream of items as its answer.
    #[doc(hidden)]
    pub fn reply_stream<T, W, E2, E>(self, result: Result<Streaming<T, E2>, Error<E>>) -> Reply
    where
        T: 'static,
        W: Serialize + From<T> + 'static,
        E2: AppError,
        E: AppError,
    {
        match result {
            Ok(items) => {
                let items = StreamEncoder::<_, W, E2>::new(items, self.decoding.codec);
                Reply::Stream(ReplyItems::produced(Box::new(items)))
            }
            Err(error) => self.reply_error(error),
        }
    }

    /// The end of a one-way call. Nobody hears of its fault.
    #[doc(hidden)]
    pub fn done(self, result: Result<(), Error<Never>>) -> Reply {
        pool::give(self.body);
        match result {
            Ok(()) | Err(Error::App(_)) => Reply::Done,
            Err(Error::Fault(fault)) => Reply::Fault(fault.run()),
        }
    }

    /// The reply to a method number that the service does not have.
    #[doc(hidden)]
    pub fn unknown_method(self) -> Reply {
        Reply::Fault(Fault::from_code(Code::UNKNOWN_METHOD, format!("the service has no method number {}", self.method), false))
    }

    fn reply_error<E: AppError>(self, error: Error<E>) -> Reply {
        match error {
            Error::App(error) => self.encode(&error).map_or_else(Reply::fault, Reply::AppError),
            Error::Fault(fault) => Reply::Fault(fault.run()),
        }
    }

    #[inline]
    fn encode<T: Serialize>(self, value: &T) -> Result<Vec<u8>, Fault> {
        let mut body = self.body;
        body.clear();
        match self.decoding.codec.encode(value, &mut body) {
            Ok(()) => Ok(body),
            Err(error) => Err(Fault::new(FaultKind::Internal, error.to_string())),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.service.methods.get(self.method as usize).map_or("?", |method| method.name);
        f.debug_struct("Request")
            .field("service", &self.service.name)
            .field("method", &method)
            .field("bytes", &self.body.len())
            .field("metadata", self.metadata())
            .finish_non_exhaustive()
    }
}

/// How often a call was tried in a way that may have run its handler. Layers may try it twice, or not at all; this is
/// what keeps [`Fault::may_have_run`] a promise where they do.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<AtomicU32>);

impl Attempts {
    /// The call was tried.
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The last try is over. Where it came to a fault that promises that nothing was started, it does not count.
    pub fn end(&self, reply: &Reply) {
        if reply.as_fault().is_some_and(|fault| !fault.may_have_run()) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether no handler can have been started.
    pub fn none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// What a call came to, encoded. The same on both sides.
pub enum Reply {
    /// The answer.
    Message(Vec<u8>),
    /// The application's error.
    AppError(Vec<u8>),
    /// The call failed otherwise.
    Fault(Fault),
    /// Items follow.
    Stream(ReplyItems),
    /// A one-way call is done.
    Done,
}

impl Reply {
    /// The reply of a call that failed.
    pub fn fault(fault: Fault) -> Self {
        Self::Fault(fault)
    }

    /// The fault, if it is one.
    pub fn as_fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

/// The items of a [`Reply`]: those that a handler makes, or those that come from the peer.
pub struct ReplyItems(Way);

enum Way {
    Out(Box<dyn ItemEncoder>),
    In(Box<dyn ItemSource>),
}

impl ReplyItems {
    /// Items on their way to the caller. For transports.
    #[doc(hidden)]
    pub fn produced(items: Box<dyn ItemEncoder>) -> Self {
        Self(Way::Out(items))
    }

    /// Items on their way from the peer. For transports.
    #[doc(hidden)]
    pub fn received(items: Box<dyn ItemSource>) -> Self {
        Self(Way::In(items))
    }

    /// The items to be sent. For transports.
    ///
    /// # Errors
    /// If they are those of a peer: a stream is answered on the side that it was opened on.
    #[doc(hidden)]
    pub fn into_produced(self) -> Result<Box<dyn ItemEncoder>, Fault> {
        match self.0 {
            Way::Out(items) => Ok(items),
            Way::In(_) => Err(Fault::new(FaultKind::Internal, "a layer answered with the stream of another call")),
        }
    }

    /// The items to be read. For transports.
    ///
    /// # Errors
    /// If they are those of a handler on this side.
    #[doc(hidden)]
    pub fn into_received(self) -> Result<Box<dyn ItemSource>, Fault> {
        match self.0 {
            Way::In(items) => Ok(items),
            Way::Out(_) => Err(Fault::new(FaultKind::Internal, "a layer answered with the stream of another call")),
        }
    }
}

impl fmt::Debug for ReplyItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyItems")
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(f, "Message of {} bytes", bytes.len()),
            Self::AppError(bytes) => write!(f, "AppError of {} bytes", bytes.len()),
            Self::Fault(fault) => write!(f, "Fault({fault})"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Done => f.write_str("Done"),
        }
    }
}
