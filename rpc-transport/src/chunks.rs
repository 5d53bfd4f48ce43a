//! A byte stream within this process: two lanes of chunks. What the driver holds by reference goes over by reference.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use rpc_core::proto::outbox::{Output, Piece};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::{Arc, Mutex, MutexGuard};

/// Bytes under way in one direction after which the writer waits: a batch and a large frame. What it hands over while there
/// is less goes whole, so that a batch is one step.
const ENOUGH: usize = 512 * 1024;

/// Small pieces are gathered in buffers between these sizes: a call's, and a batch's.
const LEAST: usize = 2 * 1024;
const GATHER: usize = 64 * 1024;

/// One end of a stream within this process.
#[derive(Debug)]
pub(crate) struct Chunks {
    incoming: Arc<Mutex<Lane>>,
    outgoing: Arc<Mutex<Lane>>,
}

/// Two ends of one stream.
pub(crate) fn pair() -> (Chunks, Chunks) {
    let (there, back) = (Arc::<Mutex<Lane>>::default(), Arc::<Mutex<Lane>>::default());
    (Chunks { incoming: Arc::clone(&back), outgoing: Arc::clone(&there) }, Chunks { incoming: there, outgoing: back })
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// What was handed over before `tail`, oldest first.
    chunks: VecDeque<Bytes>,
    /// Small pieces, gathered.
    tail: BytesMut,
    /// Bytes in all of them.
    len: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Nothing more is written.
    ended: bool,
    /// Nothing more is read.
    deaf: bool,
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    fn copy(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.seal();
            // The memory of chunks that have been read is used again.
            self.tail.reserve(bytes.len().max(bytes.len().next_power_of_two().clamp(LEAST, GATHER)));
        }
        self.tail.extend_from_slice(bytes);
    }

    fn share(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.seal();
        self.chunks.push_back(bytes);
    }

    /// What was gathered is a chunk.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    fn read(&mut self, buffer: &mut ReadBuf<'_>) {
        while buffer.remaining() > 0
            && let Some(first) = self.chunks.front_mut()
        {
            self.len -= read(first, buffer);
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.len -= read(&mut self.tail, buffer);
    }
}

/// Reads from the front of `bytes`, and tells how many.
fn read(bytes: &mut (impl Buf + AsRef<[u8]>), buffer: &mut ReadBuf<'_>) -> usize {
    let n = bytes.remaining().min(buffer.remaining());
    buffer.put_slice(&bytes.as_ref()[..n]);
    bytes.advance(n);
    n
}

impl Chunks {
    /// Hands over what `write` writes, if the other end still reads and there is room.
    fn hand_over(&self, cx: &Context<'_>, write: impl FnOnce(&mut Lane) -> usize) -> Poll<io::Result<usize>> {
        let mut lane = lock(&self.outgoing);
        if lane.deaf || lane.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if lane.len >= ENOUGH {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = write(&mut lane);
        let reader = lane.reader.take();
        drop(lane);
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(n))
    }

    /// Hands over all of a batch behind its first `written` bytes, large messages by reference.
    pub(crate) fn poll_write_output(&self, cx: &Context<'_>, output: &Output, written: usize) -> Poll<io::Result<usize>> {
        self.hand_over(cx, |lane| {
            output.pieces(written, usize::MAX, |piece| match piece {
                Piece::Copied(bytes) => lane.copy(bytes),
                Piece::Shared(bytes, skipped) => lane.share(bytes.slice(skipped..)),
            });
            output.len() - written
        })
    }
}

impl AsyncRead for Chunks {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut lane = lock(&self.incoming);
        if lane.len == 0 && !lane.ended {
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        lane.read(buffer);
        let writer = if lane.len < ENOUGH { lane.writer.take() } else { None };
        drop(lane);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chunks {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hand_over(cx, |lane| {
            let n = bytes.len().min(ENOUGH);
            lane.copy(&bytes[..n]);
            n
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Chunks {
    fn end(&self) {
        let mut lane = lock(&self.outgoing);
        lane.ended = true;
        let reader = lane.reader.take();
        drop(lane);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.end();
        let mut lane = lock(&self.incoming);
        lane.deaf = true;
        // Nobody will read it.
        let (left, writer) = (std::mem::take(&mut lane.chunks), lane.writer.take());
        (lane.tail, lane.len) = (BytesMut::new(), 0);
        drop(lane);
        drop(left);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use rpc_core::proto::Outbox;
    use rpc_core::wire::HeadBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A batch with `sizes` messages, by reference or copied as the outbox does it, and its bytes.
    fn batch(sizes: &[usize]) -> (Output, Vec<u8>) {
        let mut out = Outbox::new(1 << 20);
        out.open(1 << 30, 1 << 20);
        for (n, &size) in sizes.iter().enumerate() {
            let message = Bytes::from(vec![n as u8; size]);
            out.frame_shared(HeadBuf::new(0xA1, 0), message, size as u64);
        }
        let (mut output, mut all) = (Output::default(), Vec::new());
        out.swap(&mut output);
        output.slices(0, usize::MAX, |slice| all.extend_from_slice(slice));
        (output, all)
    }

    async fn send(chunks: &Chunks, output: &Output, from: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| chunks.poll_write_output(cx, output, from)).await
    }

    #[tokio::test]
    async fn what_is_handed_over_arrives_in_order_whatever_way_it_went() {
        let (mut ours, mut theirs) = pair();
        let (output, bytes) = batch(&[10, 40_000, 0, 100_000, 9_000, 5]);
        for (from, read) in [(0, 1), (7, 13), (9_999, 4096), (60_000, 70_000), (bytes.len() - 1, 8)] {
            ours.write_all(b"before ").await.unwrap();
            assert_eq!(send(&ours, &output, from).await.unwrap(), bytes.len() - from);
            ours.write_all(b" behind").await.unwrap();
            let expected = [b"before ", &bytes[from..], b" behind"].concat();
            let mut got = Vec::new();
            let mut buffer = vec![0; read];
            while got.len() < expected.len() {
                let n = theirs.read(&mut buffer).await.unwrap();
                got.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(got, expected);
            let lane = lock(&theirs.incoming);
            assert_eq!((lane.len, lane.chunks.len(), lane.tail.len()), (0, 0, 0));
        }
    }

    #[tokio::test]
    async fn large_messages_are_not_copied() {
        let (ours, theirs) = pair();
        let (output, _) = batch(&[100_000]);
        let mut there = None;
        output.pieces(0, usize::MAX, |piece| {
            if let Piece::Shared(bytes, _) = piece {
                there = Some(bytes.as_ptr())
            }
        });
        send(&ours, &output, 0).await.unwrap();
        assert_eq!(Some(lock(&theirs.incoming).chunks.back().unwrap().as_ptr()), there);
    }

    #[tokio::test]
    async fn a_writer_waits_for_the_reader() {
        let (mut ours, mut theirs) = pair();
        let writing = tokio::spawn(async move {
            for n in 0..64u32 {
                ours.write_all(&[n as u8; 64 * 1024]).await.unwrap();
                assert!(lock(&ours.outgoing).len < ENOUGH + 64 * 1024);
            }
        });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        writing.await.unwrap();
        assert!(all.chunks(64 * 1024).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8)));
        assert_eq!(all.len(), 64 * 64 * 1024);
    }

    #[tokio::test]
    async fn an_end_is_seen_on_both_sides() {
        let (mut ours, mut theirs) = pair();
        ours.write_all(b"last").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(ours.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");
        theirs.write_all(&vec![0; ENOUGH]).await.unwrap();
        let blocked = tokio::spawn(async move { theirs.write(b"one too many").await });
        tokio::task::yield_now().await;
        drop(ours);
        assert_eq!(blocked.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
