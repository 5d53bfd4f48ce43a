//! The seam between generated code and whoever runs it: a service is a function from a request's bytes to a reply's.
//! One dispatch function a service, one boxed future a call; nothing here is generic over the transport.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::context::Context;
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

/// A call as it arrived.
pub struct Request {
    method: u32,
    body: Vec<u8>,
    decoding: Decoding,
    input: Option<Box<dyn ItemSource>>,
}

impl Request {
    /// A call of method number `method` with encoded arguments. `input` yields the items where the caller streams.
    #[inline]
    pub fn new(method: u32, body: Vec<u8>, decoding: Decoding, input: Option<Box<dyn ItemSource>>) -> Self {
        Self { method, body, decoding, input }
    }

    /// The method's place in [`ServiceInfo::methods`].
    #[inline]
    pub fn method(&self) -> u32 {
        self.method
    }

    /// The context of the call: the ambient one of its handler, which is who asks.
    pub fn context(&self) -> Context {
        Context::current()
    }

    /// The encoded arguments.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Decodes the arguments, which may borrow from the request.
    ///
    /// # Errors
    /// [`FaultKind::Incompatible`]; the handler is not started then.
    #[inline]
    pub fn decode<'a, A: Deserialize<'a>>(&'a self) -> Result<A, Fault> {
        self.decoding.decode(&self.body).map_err(Fault::not_run)
    }

    /// The items that the caller streams.
    pub fn take_stream<W, T>(&mut self) -> Streaming<T>
    where
        W: DeserializeOwned + Into<T>,
    {
        let source = self.input.take().unwrap_or_else(|| {
            let reason = Reason::new(Code::BAD_ARGUMENTS, "the caller sent no stream of items");
            broken(ExchangeFault { reason, origin: Origin::Local, sent: true })
        });
        Streaming::remote::<W>(source, self.decoding)
    }

    /// The reply of a method with a single answer. The request's buffer becomes the answer's.
    #[inline]
    pub fn reply<T: Serialize, E: AppError>(self, result: Result<T, Error<E>>) -> Reply {
        match result {
            Ok(value) => self.encode(&value).map_or_else(Reply::fault, Reply::Message),
            Err(error) => self.reply_error(error),
        }
    }

    /// The reply of a method with a stream of items as its answer.
    pub fn reply_stream<T, W, E2, E>(self, result: Result<Streaming<T, E2>, Error<E>>) -> Reply
    where
        T: 'static,
        W: Serialize + From<T> + 'static,
        E2: AppError,
        E: AppError,
    {
        match result {
            Ok(items) => Reply::Stream(Box::new(StreamEncoder::<_, W, E2>::new(items, self.decoding.codec))),
            Err(error) => self.reply_error(error),
        }
    }

    /// The end of a one-way call. Nobody hears of its fault.
    pub fn done(self, result: Result<(), Error<Never>>) -> Reply {
        match result {
            Ok(()) | Err(Error::App(_)) => Reply::Done,
            Err(Error::Fault(fault)) => Reply::Fault(fault.run()),
        }
    }

    /// The reply to a method number that the service does not have.
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
        f.debug_struct("Request").field("method", &self.method).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// What a call came to, encoded.
pub enum Reply {
    /// The answer.
    Message(Vec<u8>),
    /// The application's error.
    AppError(Vec<u8>),
    /// The call failed otherwise.
    Fault(Fault),
    /// Items follow.
    Stream(Box<dyn ItemEncoder>),
    /// A one-way call is done.
    Done,
}

impl Reply {
    /// The reply of a call that failed.
    pub fn fault(fault: Fault) -> Self {
        Self::Fault(fault)
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
