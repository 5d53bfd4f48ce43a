//! The seam to byte transports: anything that reads and writes.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rpc_core::context::Peer;
use rpc_core::proto::outbox::Output;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::chunks::Chunks;
use crate::endpoint::Endpoint;

/// A byte stream in both directions.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connected byte stream of any backend. One virtual call a system call is not worth a type parameter on everything.
pub(crate) enum Stream {
    Any(Box<dyn Io>),
    /// Within this process: batches are handed over.
    Chunks(Chunks),
}

/// The pieces of a vectored write.
const SLICES: usize = 16;

impl Stream {
    /// Whatever it is, to read and write.
    pub(crate) fn io(&mut self) -> Pin<&mut dyn Io> {
        match self {
            Self::Any(io) => Pin::new(&mut **io),
            Self::Chunks(chunks) => Pin::new(chunks),
        }
    }

    /// Writes what it can of a batch, behind its first `written` bytes.
    pub(crate) fn poll_write_output(&mut self, cx: &mut Context<'_>, output: &Output, written: usize) -> Poll<io::Result<usize>> {
        let io = match self {
            Self::Chunks(chunks) => return chunks.poll_write_output(cx, output, written),
            Self::Any(io) => Pin::new(io),
        };
        if let Some(bytes) = output.single() {
            return io.poll_write(cx, &bytes[written..]);
        }
        let (mut slices, mut count) = ([IoSlice::new(&[]); SLICES], 0);
        output.slices(written, SLICES, |slice| {
            slices[count] = IoSlice::new(slice);
            count += 1;
        });
        io.poll_write_vectored(cx, &slices[..count])
    }
}

/// A connected byte stream, and who is on its other end.
///
/// The protocol runs over every stream that is reliable and ordered. Vectored writes should be real ones
/// ([`AsyncWrite::is_write_vectored`]): large messages rely on them.
pub struct Connected {
    pub(crate) io: Stream,
    pub(crate) peer: Peer,
}

impl Connected {
    /// A stream, for example of a transport that is not built in.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer) -> Self {
        Self { io: Stream::Any(Box::new(io)), peer }
    }
}

impl Connected {
    /// Who is on the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for Connected {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io.io().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io.io().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.io().poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.io.io().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Stream::Any(io) => io.is_write_vectored(),
            Stream::Chunks(chunks) => chunks.is_write_vectored(),
        }
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A client that has come, and may not be there yet: what takes time before the first byte of the protocol, such as the
/// handshake of TLS, runs in the connection's own task, and no longer than [`Limits::handshake`](rpc_core::proto::Limits::handshake).
pub struct Incoming(BoxFuture<'static, io::Result<Connected>>);

impl Incoming {
    /// One that is there.
    pub fn ready(connected: Connected) -> Self {
        Self::new(std::future::ready(Ok(connected)))
    }

    /// One that is there when `setting_up` is ready. Its error ends this connection alone.
    pub fn new(setting_up: impl Future<Output = io::Result<Connected>> + Send + 'static) -> Self {
        Self(Box::pin(setting_up))
    }

    /// Waits until it is there.
    pub fn connected(self) -> BoxFuture<'static, io::Result<Connected>> {
        self.0
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// Where clients come from; see [`ServerBuilder::serve`](crate::ServerBuilder::serve).
pub trait Listener: Send + 'static {
    /// The next client. It must not wait for anything that this client does: see [`Incoming`].
    ///
    /// # Errors
    /// An error does not end the server: it pauses for 10 ms to 1 s and asks again.
    ///
    /// # Cancel safety
    /// Dropping the future must lose no client: the server does so whenever something else happens.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>>;

    /// Where it listens, with the port that was bound.
    fn endpoint(&self) -> Endpoint;
}

impl Listener for Box<dyn Listener> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        (**self).accept()
    }

    fn endpoint(&self) -> Endpoint {
        (**self).endpoint()
    }
}
