//! Streams of items, in both directions and from wherever they come: the wire, or a stream of this process.
//!
//! Items travel by the batch. What crosses between here and the transport is a [`Batch`] of encoded messages, so that
//! a lock is taken for a batch and not for an item.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::shared::{self, Shared};
use crate::codec::{Codec, DecodeLimits};
use crate::pool;
use crate::proto::{Batch, ExchangeFault, Items};
use crate::status::{AppError, Error, Fault, FaultKind, Never};

/// How bytes become values on a session.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    /// The session's codec.
    pub codec: Codec,
    /// The limits for messages of a peer that is not trusted.
    pub limits: Option<&'static DecodeLimits>,
}

impl Decoding {
    /// Decodes a value.
    ///
    /// # Errors
    /// [`FaultKind::Incompatible`] with the codec's words.
    #[inline]
    pub fn decode<'de, T: serde::Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, Fault> {
        self.codec.decode(bytes, self.limits).map_err(|error| Fault::new(FaultKind::Incompatible, error.to_string()))
    }

    /// Decodes a value of which large bytes may stay where they are: as parts of `message`, whose buffer is kept for others
    /// when nobody needs it any more.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    #[inline]
    pub fn decode_whole<T: DeserializeOwned + 'static>(&self, message: Vec<u8>) -> Result<T, Fault> {
        if message.len() >= pool::LARGE_FROM {
            return self.decode_lent::<Shared<T>>(&pool::lend(message)).map(Shared::into_inner);
        }
        let value = self.decode::<Shared<T>>(&message);
        pool::give(message);
        value.map(Shared::into_inner)
    }

    /// Decodes a value of which some bytes may be parts of `message`.
    #[cold]
    pub(crate) fn decode_lent<'de, T: serde::Deserialize<'de>>(&self, message: &'de Bytes) -> Result<T, Fault> {
        shared::lend(message, || self.decode(message))
    }
}

/// Where the encoded items of a stream come from: implemented by the transport. Dropping it tells the peer to stop.
pub trait ItemSource: Send + Sync {
    /// Fills `batch` with the items that have arrived, or says how the stream ended.
    fn poll_items(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<Items>;
}

/// A stream of items: what streaming methods take and return.
///
/// Yields `Ok(item)` for every item. `None` comes only after the sender's orderly end; a stream that breaks yields one
/// `Err` first, so that half of a stream is never taken for the whole. Dropping it tells the sender to stop.
///
/// ```
/// use rpc_core::streaming::Streaming;
/// let words: Streaming<String> = ["one", "two"].into_iter().map(String::from).collect();
/// # let _ = words;
/// ```
pub struct Streaming<T, E = Never> {
    inner: Inner<T, E>,
}

enum Inner<T, E> {
    Remote(Remote<T, E>),
    Local(Pin<Box<dyn Stream<Item = Result<T, Error<E>>> + Send>>),
    Over,
}

/// What asking for an item comes to. Decoding yields it whole, so that no item is moved from form to form.
type Polled<T, E> = Poll<Option<Result<T, Error<E>>>>;

struct Remote<T, E> {
    source: Box<dyn ItemSource>,
    batch: Batch,
    decoding: Decoding,
    decode: fn(&Decoding, &[u8]) -> Polled<T, E>,
    decode_error: fn(&Decoding, &[u8]) -> Result<E, Fault>,
}

impl<T, E> Streaming<T, E> {
    /// A stream of items that cannot fail.
    ///
    /// It outlives the call that made it, so it borrows nothing from the service ("borrowed data escapes outside of
    /// method"): keep what it reads in an `Arc`, and move a clone of that into the stream.
    pub fn new(items: impl Stream<Item = T> + Send + 'static) -> Self
    where
        T: 'static,
        E: 'static,
    {
        Self::from_results(Wrap::<_, E> { items: Box::pin(items), error: PhantomData })
    }

    /// A stream whose items can be errors; the first one ends it. It borrows nothing, as with [`new`](Self::new).
    pub fn from_results(items: impl Stream<Item = Result<T, Error<E>>> + Send + 'static) -> Self {
        Self { inner: Inner::Local(Box::pin(items)) }
    }

    /// The items that `source` yields in encoded form. For transports.
    pub fn remote<W>(source: Box<dyn ItemSource>, decoding: Decoding) -> Self
    where
        W: DeserializeOwned + Into<T>,
        E: DeserializeOwned,
    {
        let decode: fn(&Decoding, &[u8]) -> Polled<T, E> = |decoding, bytes| match decoding.decode::<W>(bytes) {
            Ok(item) => Poll::Ready(Some(Ok(item.into()))),
            Err(fault) => Poll::Ready(Some(Err(Error::Fault(fault)))),
        };
        let decode_error: fn(&Decoding, &[u8]) -> Result<E, Fault> = |decoding, bytes| decoding.decode::<E>(bytes);
        Self { inner: Inner::Remote(Remote { source, batch: Batch::new(), decoding, decode, decode_error }) }
    }

    /// The next item; `None` after the sender's orderly end.
    ///
    /// # Errors
    /// The sender's own error, or a fault if the stream broke. After an error the stream is over.
    ///
    /// # Cancel safety
    /// Dropping the future loses no item.
    pub async fn next(&mut self) -> Option<Result<T, Error<E>>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Polled<T, E> {
        let polled = match &mut self.inner {
            Inner::Remote(remote) => remote.poll_item(cx),
            Inner::Local(items) => {
                // A stream of this process that panics breaks as one from elsewhere does: with a fault.
                let polled = catch_unwind(AssertUnwindSafe(|| items.as_mut().poll_next(cx)));
                let panicked = || Poll::Ready(Some(Err(Fault::new(FaultKind::Internal, "the stream panicked").into())));
                Poll::Ready(ready!(polled.unwrap_or_else(|_| panicked())))
            }
            Inner::Over => Poll::Ready(None),
        };
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            // Whatever comes behind an end or an error is not part of the stream, and its source can go.
            self.inner = Inner::Over;
        }
        polled
    }
}

impl<T, E> Remote<T, E> {
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Polled<T, E> {
        loop {
            if let Some(bytes) = self.batch.front() {
                let item = (self.decode)(&self.decoding, bytes);
                self.batch.pop();
                return item;
            }
            match ready!(self.source.poll_items(cx, &mut self.batch)) {
                Items::Ready | Items::Pending => {}
                Items::Ended => return Poll::Ready(None),
                Items::AppError(bytes) => {
                    let error = (self.decode_error)(&self.decoding, &bytes).map_or_else(Error::Fault, Error::App);
                    return Poll::Ready(Some(Err(error)));
                }
                Items::Fault(fault) => return Poll::Ready(Some(Err(Error::Fault(fault.into())))),
            }
        }
    }
}

// Nothing in it is pinned in place: the sources are behind boxes.
impl<T, E> Unpin for Streaming<T, E> {}

impl<T, E> Stream for Streaming<T, E> {
    type Item = Result<T, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl<T: Send + 'static, E: Send + 'static> FromIterator<T> for Streaming<T, E> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let items: Vec<T> = items.into_iter().collect();
        Self::from_results(Iter { items: items.into_iter(), error: PhantomData })
    }
}

impl<T, E> fmt::Debug for Streaming<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match &self.inner {
            Inner::Remote(_) => "remote",
            Inner::Local(_) => "local",
            Inner::Over => "over",
        };
        f.debug_struct("Streaming").field("from", &from).finish_non_exhaustive()
    }
}

/// Items that cannot fail.
struct Wrap<S, E> {
    items: Pin<Box<S>>,
    error: PhantomData<fn() -> E>,
}

impl<S: Stream, E> Stream for Wrap<S, E> {
    type Item = Result<S::Item, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.as_mut().poll_next(cx).map(|item| item.map(Ok))
    }
}

struct Iter<T, E> {
    items: std::vec::IntoIter<T>,
    error: PhantomData<fn() -> E>,
}

impl<T, E> Unpin for Iter<T, E> {}

impl<T, E> Stream for Iter<T, E> {
    type Item = Result<T, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.items.next().map(Ok))
    }
}

/// How a round of [`ItemEncoder::poll_fill`] ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    /// There may be more items.
    More,
    /// These were the last.
    Ended,
    /// The stream ended with the application's error, encoded.
    AppError(Vec<u8>),
    /// The stream broke.
    Fault(Fault),
}

/// Encodes the items of a stream into batches; what the transport drives.
pub trait ItemEncoder: Send {
    /// Appends ready items to `batch` until it holds `budget` bytes. Pending only if none was appended.
    fn poll_fill(&mut self, cx: &mut Context<'_>, batch: &mut Batch, budget: usize) -> Poll<Filled>;
}

/// Encodes the items of `S` as `W`.
pub struct StreamEncoder<S, W, E> {
    items: Pin<Box<S>>,
    codec: Codec,
    wire: PhantomData<fn() -> (W, E)>,
}

impl<S, W, E> StreamEncoder<S, W, E> {
    /// An encoder of `items`.
    pub fn new(items: S, codec: Codec) -> Self {
        Self { items: Box::pin(items), codec, wire: PhantomData }
    }
}

impl<S, W, E> fmt::Debug for StreamEncoder<S, W, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamEncoder").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl<S, T, W, E> ItemEncoder for StreamEncoder<S, W, E>
where
    S: Stream<Item = Result<T, Error<E>>> + Send,
    W: Serialize + From<T>,
    E: AppError,
{
    fn poll_fill(&mut self, cx: &mut Context<'_>, batch: &mut Batch, budget: usize) -> Poll<Filled> {
        while batch.bytes() < budget {
            match self.items.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => {
                    let item = W::from(item);
                    if let Err(error) = batch.push_with(|bytes| self.codec.encode(&item, bytes)) {
                        return Poll::Ready(Filled::Fault(Fault::new(FaultKind::Internal, error.to_string())));
                    }
                }
                Poll::Ready(Some(Err(Error::App(error)))) => {
                    let mut bytes = Vec::new();
                    return Poll::Ready(match self.codec.encode(&error, &mut bytes) {
                        Ok(()) => Filled::AppError(bytes),
                        Err(error) => Filled::Fault(Fault::new(FaultKind::Internal, error.to_string())),
                    });
                }
                Poll::Ready(Some(Err(Error::Fault(fault)))) => return Poll::Ready(Filled::Fault(fault)),
                Poll::Ready(None) => return Poll::Ready(Filled::Ended),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Filled::More),
            }
        }
        Poll::Ready(Filled::More)
    }
}

/// A source for an exchange that is no more: one fault, then nothing.
pub fn broken(fault: ExchangeFault) -> Box<dyn ItemSource> {
    Box::new(Broken(fault))
}

struct Broken(ExchangeFault);

impl ItemSource for Broken {
    fn poll_items(&mut self, _: &mut Context<'_>, _: &mut Batch) -> Poll<Items> {
        Poll::Ready(Items::Fault(self.0.clone()))
    }
}
