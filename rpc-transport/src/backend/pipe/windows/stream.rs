//! A pipe as the driver's stream, with an end that loses nothing.

use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use interprocess::os::windows::named_pipe::pipe_mode::Bytes;
use interprocess::os::windows::named_pipe::tokio::DuplexPipeStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, oneshot};

/// Connections that wait at once for their peer to take the last bytes; each has a thread. A peer that neither reads nor
/// goes away keeps its thread. Where there are as many, a further connection waits for its peer's end as it does over a
/// socket, up to the driver's limit.
const WAITING: usize = 128;

static PLACES: Semaphore = Semaphore::const_new(WAITING);

/// One end of a pipe.
pub(super) struct PipeStream {
    pipe: DuplexPipeStream<Bytes>,
    ending: Ending,
}

enum Ending {
    /// Both directions are open.
    Open,
    /// A thread waits until the peer has taken everything.
    Waiting(oneshot::Receiver<()>),
    /// Nothing more is written.
    Written {
        /// Everything has been taken, so that nothing needs to be read to keep it from being lost.
        taken: bool,
    },
}

impl PipeStream {
    pub(super) fn new(pipe: DuplexPipeStream<Bytes>) -> Self {
        pipe.assume_flushed();
        Self { pipe, ending: Ending::Open }
    }

    /// Starts to wait. There is no asynchronous form of it, and none that can be ended early; a thread of the runtime's
    /// would keep the runtime from shutting down.
    fn wait_for_peer(&self) -> io::Result<oneshot::Receiver<()>> {
        let place = PLACES.try_acquire().map_err(io::Error::other)?;
        let pipe = File::from(self.pipe.as_handle().try_clone_to_owned()?);
        let (taken, waiting) = oneshot::channel();
        std::thread::Builder::new().name("rpc-pipe-end".to_owned()).stack_size(64 * 1024).spawn(move || {
            // FlushFileBuffers. Where it fails the peer is gone.
            let _ = pipe.sync_all();
            drop((pipe, place));
            let _ = taken.send(());
        })?;
        Ok(waiting)
    }
}

impl AsyncRead for PipeStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.ending {
            Ending::Written { taken: true } => Poll::Ready(Ok(())),
            _ => Pin::new(&mut &self.pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PipeStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut &self.pipe).poll_write(cx, buf);
        // Its destructor would wait for the peer in a queue of its own, behind every peer that does not read.
        self.pipe.assume_flushed();
        written
    }

    /// What is written is with the system already. Waiting until it is read would be a round trip for each batch.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has taken everything. What comes meanwhile is read and forgotten: two sides that end at once
    /// would otherwise wait for each other.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.ending {
                Ending::Open => {
                    self.ending = match self.wait_for_peer() {
                        Ok(waiting) => Ending::Waiting(waiting),
                        Err(_) => Ending::Written { taken: false },
                    };
                }
                Ending::Waiting(waiting) => {
                    if Pin::new(waiting).poll(cx).is_pending() {
                        let mut scratch = [0; 4096];
                        let mut scratch = ReadBuf::new(&mut scratch);
                        let read = ready!(Pin::new(&mut &self.pipe).poll_read(cx, &mut scratch));
                        if read.is_ok() && !scratch.filled().is_empty() {
                            continue;
                        }
                    }
                    // It has taken everything, or is gone.
                    self.ending = Ending::Written { taken: true };
                }
                Ending::Written { .. } => return Poll::Ready(Ok(())),
            }
        }
    }
}
