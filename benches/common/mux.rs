//! A bare multiplexer, written by hand: the ceiling that `rpc` is measured against. One connection, a task a caller, a slab
//! of slots, one batching writer, the handler run inline. No sessions, deadlines, cancellation, errors or back-pressure.
//!
//! A frame is `u32 length, u32 slot, body`, and the body is an echo's `Bytes` in postcard: written by the same code as that of
//! `rpc`, straight into the batch, and read into `Bytes` of its own on both sides.

use std::future::poll_fn;
use std::io;
use std::mem::{replace, swap, take};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use rpc::Codec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Length and slot.
const HEAD: usize = 8;
/// As much of what follows a frame is read with it, and so at most as much of a large one is ever moved.
const READ_AHEAD: usize = 64 << 10;
const LONGEST: usize = 64 << 20;

// ---- frames -------------------------------------------------------------------------------------------------------------

fn append(batch: &mut Vec<u8>, slot: u32, value: &Bytes) {
    let head = batch.len();
    batch.extend_from_slice(&[0; HEAD]);
    Codec::Postcard.encode(value, batch).expect("bytes can be encoded");
    let length = u32::try_from(batch.len() - head - HEAD).expect("no workload has more");
    batch[head..head + 4].copy_from_slice(&length.to_le_bytes());
    batch[head + 4..head + HEAD].copy_from_slice(&slot.to_le_bytes());
}

/// What was read and not yet handled. The buffer grows to the longest frame, which is read straight to its place.
struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    fn new() -> Self {
        Self { buffer: vec![0; READ_AHEAD], start: 0, end: 0 }
    }

    /// Reads once. The other side has closed if that brings nothing.
    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if let Some((_, length)) = self.head()? {
            let room = HEAD + length + READ_AHEAD;
            if self.buffer.len() < room {
                self.buffer.resize(room, 0);
            }
        }
        let read = stream.read(&mut self.buffer[self.end..]).await?;
        self.end += read;
        Ok(read > 0)
    }

    fn next(&mut self) -> io::Result<Option<(u32, Bytes)>> {
        let Some((slot, length)) = self.head()? else { return Ok(None) };
        let body = self.start + HEAD;
        let Some(bytes) = self.buffer[..self.end].get(body..body + length) else { return Ok(None) };
        let value = Codec::Postcard.decode(bytes, None).map_err(io::Error::other)?;
        self.start = body + length;
        Ok(Some((slot, value)))
    }

    fn head(&self) -> io::Result<Option<(u32, usize)>> {
        let Some(&[l0, l1, l2, l3, s0, s1, s2, s3]) = self.buffer[self.start..self.end].first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > LONGEST {
            return Err(io::Error::other("a frame is too long"));
        }
        Ok(Some((u32::from_le_bytes([s0, s1, s2, s3]), length)))
    }
}

// ---- server -------------------------------------------------------------------------------------------------------------

/// Accepts for as long as it is polled; each connection has one task.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve_connection(stream));
    }
}

async fn serve_connection(mut stream: TcpStream) -> io::Result<()> {
    let (mut frames, mut batch) = (Frames::new(), Vec::new());
    while frames.fill(&mut stream).await? {
        while let Some((slot, value)) = frames.next()? {
            append(&mut batch, slot, &echo(value));
        }
        // The client's reader does not wait for its writer, so nothing stands still while this side only writes.
        stream.write_all(&batch).await?;
        batch.clear();
    }
    Ok(())
}

fn echo(value: Bytes) -> Bytes {
    value
}

// ---- client -------------------------------------------------------------------------------------------------------------

/// One connection, for any number of callers.
#[derive(Clone)]
pub(crate) struct Client(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    batch: Vec<u8>,
    /// There while the batch is empty and the writer waits for the first call in it.
    writer: Option<Waker>,
}

enum Slot {
    Free,
    Waiting(Waker),
    Answered(Bytes),
}

impl Client {
    /// Connects. The task that comes with it ends only if the connection does.
    pub(crate) async fn connect(address: &str) -> io::Result<(Self, tokio::task::JoinHandle<io::Error>)> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let client = Self(Arc::default());
        tokio::spawn(client.clone().write(writer));
        let running = tokio::spawn(client.clone().read(reader));
        Ok((client, running))
    }

    /// One call. Its slot is lost if it is dropped before it is answered.
    pub(crate) async fn echo(&self, value: &Bytes) -> Bytes {
        let mut mine = None;
        poll_fn(|cx| {
            let mut state = self.lock();
            let Some(slot) = mine else {
                let (slot, writer) = state.call(value, cx.waker());
                drop(state);
                mine = Some(slot);
                if let Some(writer) = writer {
                    writer.wake();
                }
                return Poll::Pending;
            };
            state.answer(slot, cx.waker())
        })
        .await
    }

    async fn write(self, mut stream: OwnedWriteHalf) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            poll_fn(|cx| {
                let mut state = self.lock();
                if state.batch.is_empty() {
                    state.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                swap(&mut state.batch, &mut batch);
                Poll::Ready(())
            })
            .await;
            stream.write_all(&batch).await?;
            batch.clear();
        }
    }

    async fn read(self, mut stream: OwnedReadHalf) -> io::Error {
        let (mut frames, mut answers, mut wakers) = (Frames::new(), Vec::new(), Vec::new());
        loop {
            match frames.fill(&mut stream).await {
                Ok(true) => {}
                Ok(false) => return io::ErrorKind::UnexpectedEof.into(),
                Err(error) => return error,
            }
            loop {
                match frames.next() {
                    Ok(Some(answer)) => answers.push(answer),
                    Ok(None) => break,
                    Err(error) => return error,
                }
            }
            if !answers.is_empty() {
                self.lock().answered(&mut answers, &mut wakers);
                wakers.drain(..).for_each(Waker::wake);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts a call into a slot and into the batch. The writer is to be woken if it was the first one there.
    fn call(&mut self, value: &Bytes, caller: &Waker) -> (u32, Option<Waker>) {
        let waiting = Slot::Waiting(caller.clone());
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = waiting;
            slot
        } else {
            self.slots.push(waiting);
            u32::try_from(self.slots.len() - 1).expect("no workload has more")
        };
        append(&mut self.batch, slot, value);
        (slot, take(&mut self.writer))
    }

    fn answer(&mut self, slot: u32, caller: &Waker) -> Poll<Bytes> {
        match &mut self.slots[slot as usize] {
            Slot::Waiting(waker) => {
                waker.clone_from(caller);
                Poll::Pending
            }
            answered => {
                let Slot::Answered(value) = replace(answered, Slot::Free) else { unreachable!("a slot has one caller") };
                self.free.push(slot);
                Poll::Ready(value)
            }
        }
    }

    fn answered(&mut self, answers: &mut Vec<(u32, Bytes)>, wakers: &mut Vec<Waker>) {
        for (slot, value) in answers.drain(..) {
            let Some(slot @ Slot::Waiting(_)) = self.slots.get_mut(slot as usize) else { continue };
            if let Slot::Waiting(waker) = replace(slot, Slot::Answered(value)) {
                wakers.push(waker);
            }
        }
    }
}
