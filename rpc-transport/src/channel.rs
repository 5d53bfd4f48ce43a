//! A session as a generated client sees it: arguments in, calls out.

use std::fmt;
use std::sync::Arc;

use futures_core::Stream;
use rpc_core::pool;
use rpc_core::proto::AnswerKind;
use rpc_core::service::{Reply, Request, Service, ServiceInfo};
use rpc_core::status::{AppError, Error, Fault, FaultKind, Never};
use rpc_core::streaming::{Decoding, ItemEncoder, StreamEncoder, Streaming};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::handle::SessionHandle;

/// What generated clients are made from. Implemented by the macro.
pub trait Client: Sized {
    /// The service that the client speaks to.
    fn info() -> &'static ServiceInfo;

    /// A client over a session.
    fn from_channel(channel: Channel) -> Self;

    /// Where the client's calls go; `None`: to a service in this process.
    fn channel(&self) -> Option<&Channel>;
}

/// What a client's service is at compile time: its name, its methods in the order of the wire, and their keys.
pub fn describe<C: Client>() -> &'static ServiceInfo {
    C::info()
}

/// Where a client's calls go. Used by generated code.
#[derive(Debug)]
pub enum Backend<D: ?Sized> {
    /// Over a session.
    Remote(Channel),
    /// Straight to a service in this process.
    Local(Arc<D>),
}

impl<D: ?Sized> Backend<D> {
    /// The session, if it is one.
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Remote(channel) => Some(channel),
            Self::Local(_) => None,
        }
    }
}

impl<D: ?Sized> Clone for Backend<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Remote(channel) => Self::Remote(channel.clone()),
            Self::Local(service) => Self::Local(Arc::clone(service)),
        }
    }
}

/// A session with a service. Clones share it; when the last one is gone, with the calls and streams made from it, the
/// session closes.
#[derive(Clone)]
pub struct Channel {
    session: Arc<SessionHandle>,
    /// What every call goes through, where there are layers. It holds the session too.
    layers: Option<Arc<dyn Service>>,
}

impl Channel {
    pub(crate) fn new(session: Arc<SessionHandle>, layers: Option<Arc<dyn Service>>) -> Self {
        Self { session, layers }
    }

    pub(crate) fn handle(&self) -> &Arc<SessionHandle> {
        &self.session
    }

    #[inline]
    fn encode<A: Serialize>(&self, args: &A) -> Result<Vec<u8>, Fault> {
        let mut body = pool::take();
        match self.session.decoding.codec.encode(args, &mut body) {
            Ok(()) => Ok(body),
            Err(error) => Err(Fault::new(FaultKind::Incompatible, format!("the arguments cannot be encoded: {error}")).not_run()),
        }
    }

    #[inline]
    fn call<A: Serialize, T, E>(
        &self,
        method: u32,
        args: &A,
        items: Option<Box<dyn ItemEncoder>>,
        answer: AnswerKind,
        finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
    ) -> Call<T, E> {
        let body = match self.encode(args) {
            Ok(body) => body,
            Err(fault) => return Call::failed(fault),
        };
        if let Some(layers) = &self.layers {
            return self.call_through(layers, method, body, items, finish);
        }
        match self.session.method(method) {
            Ok(method) => Call::remote(&self.session, method, body, items, answer, finish),
            Err(fault) => Call::failed(fault),
        }
    }

    #[cold]
    fn call_through<T, E>(
        &self,
        layers: &Arc<dyn Service>,
        method: u32,
        body: Vec<u8>,
        items: Option<Box<dyn ItemEncoder>>,
        finish: fn(&Decoding, Reply) -> Result<T, Error<E>>,
    ) -> Call<T, E> {
        let SessionHandle { info, decoding, default_deadline, .. } = &*self.session;
        let mut request = Request::new(info, method, body, *decoding, None);
        if let Some(items) = items {
            request.set_output(items);
        }
        Call::layered(Arc::clone(layers), request, *decoding, *default_deadline, finish)
    }

    fn encoder<WI, I, S>(&self, items: S) -> Option<Box<dyn ItemEncoder>>
    where
        S: Stream<Item = Result<I, Error<Never>>> + Send + 'static,
        WI: Serialize + From<I> + 'static,
    {
        Some(Box::new(StreamEncoder::<S, WI, Never>::new(items, self.session.decoding.codec)))
    }

    /// One message each way.
    #[inline]
    pub fn unary<A, W, T, E>(&self, method: u32, args: &A) -> Call<T, E>
    where
        A: Serialize,
        W: DeserializeOwned + Into<T> + 'static,
        E: AppError,
    {
        self.call(method, args, None, AnswerKind::One, message::<W, T, E>)
    }

    /// One message, no answer.
    pub fn one_way<A: Serialize>(&self, method: u32, args: &A) -> Call<(), Never> {
        self.call(method, args, None, AnswerKind::None, |_, reply| match reply {
            Reply::Fault(fault) => Err(fault.into()),
            _ => Ok(()),
        })
    }

    /// One message up, items down.
    pub fn server_stream<A, W, T, E2, E>(&self, method: u32, args: &A) -> Call<Streaming<T, E2>, E>
    where
        A: Serialize,
        W: DeserializeOwned + Into<T>,
        E2: AppError,
        E: AppError,
    {
        self.call(method, args, None, AnswerKind::Many, stream::<W, T, E2, E>)
    }

    /// Items up, one answer.
    pub fn client_stream<A, WI, I, S, W, T, E>(&self, method: u32, args: &A, items: S) -> Call<T, E>
    where
        A: Serialize,
        WI: Serialize + From<I> + 'static,
        I: 'static,
        S: Stream<Item = I> + Send + 'static,
        W: DeserializeOwned + Into<T> + 'static,
        E: AppError,
    {
        self.client_stream_of::<A, WI, I, W, T, E>(method, args, Streaming::new(items))
    }

    /// The same with a stream that can break.
    pub fn client_stream_of<A, WI, I, W, T, E>(&self, method: u32, args: &A, items: Streaming<I>) -> Call<T, E>
    where
        A: Serialize,
        WI: Serialize + From<I> + 'static,
        I: 'static,
        W: DeserializeOwned + Into<T> + 'static,
        E: AppError,
    {
        self.call(method, args, self.encoder::<WI, I, _>(items), AnswerKind::One, message::<W, T, E>)
    }

    /// Items both ways.
    pub fn bidi_stream<A, WI, I, S, W, T, E2, E>(&self, method: u32, args: &A, items: S) -> Call<Streaming<T, E2>, E>
    where
        A: Serialize,
        WI: Serialize + From<I> + 'static,
        I: 'static,
        S: Stream<Item = I> + Send + 'static,
        W: DeserializeOwned + Into<T>,
        E2: AppError,
        E: AppError,
    {
        self.bidi_stream_of::<A, WI, I, W, T, E2, E>(method, args, Streaming::new(items))
    }

    /// The same with a stream that can break.
    pub fn bidi_stream_of<A, WI, I, W, T, E2, E>(&self, method: u32, args: &A, items: Streaming<I>) -> Call<Streaming<T, E2>, E>
    where
        A: Serialize,
        WI: Serialize + From<I> + 'static,
        I: 'static,
        W: DeserializeOwned + Into<T>,
        E2: AppError,
        E: AppError,
    {
        self.call(method, args, self.encoder::<WI, I, _>(items), AnswerKind::Many, stream::<W, T, E2, E>)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("service", &self.session.info.name).finish_non_exhaustive()
    }
}

fn app_error<T, E: AppError>(decoding: &Decoding, bytes: &[u8]) -> Result<T, Error<E>> {
    Err(Error::App(decoding.decode(bytes)?))
}

fn unexpected<T, E>() -> Result<T, Error<E>> {
    Err(Fault::new(FaultKind::Incompatible, "the peer answered in another form than the method has").into())
}

fn message<W, T, E>(decoding: &Decoding, reply: Reply) -> Result<T, Error<E>>
where
    W: DeserializeOwned + Into<T> + 'static,
    E: AppError,
{
    match reply {
        Reply::Message(bytes) => Ok(decoding.decode_whole::<W>(bytes)?.into()),
        Reply::AppError(bytes) => app_error(decoding, &bytes),
        Reply::Fault(fault) => Err(fault.into()),
        Reply::Stream(_) | Reply::Done => unexpected(),
    }
}

fn stream<W, T, E2, E>(decoding: &Decoding, reply: Reply) -> Result<Streaming<T, E2>, Error<E>>
where
    W: DeserializeOwned + Into<T>,
    E2: AppError,
    E: AppError,
{
    match reply {
        Reply::Stream(items) => Ok(Streaming::remote::<W>(items.into_received()?, *decoding)),
        Reply::AppError(bytes) => app_error(decoding, &bytes),
        Reply::Fault(fault) => Err(fault.into()),
        Reply::Message(_) | Reply::Done => unexpected(),
    }
}
