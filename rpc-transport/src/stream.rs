//! The seam to byte transports: anything that reads and writes.

use tokio::io::{AsyncRead, AsyncWrite};

/// A connected byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connected byte stream of any backend. One virtual call a system call is not worth a type parameter on everything.
pub(crate) type BoxIo = Box<dyn Io>;

/// A connected byte stream with the address of its other end, in the form of an endpoint.
pub(crate) struct Connected {
    pub(crate) io: BoxIo,
    pub(crate) peer: String,
}
