//! yamux: streams over one TCP connection, without TLS; a stream for each caller, which stays (`framed` says what is on
//! it). It is a transport and no framework: calls are what its user writes. Set beyond the defaults: as many streams as W3
//! and W7 have, for which the window of the whole connection has to have no limit; frames of 256 KiB instead of 16 KiB, as
//! long as a window, for one large body does not wait for others here. Nodelay on both sides.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use futures::AsyncReadExt;
use futures::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode, Stream};

use super::framed;
use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};

/// More than W3 and W7 have.
const STREAMS: usize = 20_000;

fn connection(stream: TcpStream, mode: Mode) -> Outcome<Connection<Compat<TcpStream>>> {
    stream.set_nodelay(true)?;
    let mut config = Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(STREAMS);
    config.set_split_send_size(yamux::DEFAULT_CREDIT as usize);
    Ok(Connection::new(stream.compat(), config, mode))
}

type Halves = (Compat<ReadHalf<Stream>>, Compat<WriteHalf<Stream>>);

fn halves(stream: Stream) -> Halves {
    let (reader, writer) = stream.split();
    (reader.compat(), writer.compat_write())
}

pub(crate) struct Yamux(framed::Caller<Compat<ReadHalf<Stream>>, Compat<WriteHalf<Stream>>>);

impl Yamux {
    async fn open(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let mut connection = connection(TcpStream::connect(address).await?, Mode::Client)?;
        let (asks, mut asked) = mpsc::channel::<oneshot::Sender<Stream>>(1);
        // Somebody has to poll the connection for its streams to move, and that one alone can open them.
        tokio::spawn(async move {
            let mut waiting: Option<oneshot::Sender<Stream>> = None;
            poll_fn(|cx| {
                loop {
                    if waiting.is_none() {
                        match asked.poll_recv(cx) {
                            Poll::Ready(Some(ask)) => waiting = Some(ask),
                            Poll::Ready(None) | Poll::Pending => break,
                        }
                    }
                    match connection.poll_new_outbound(cx) {
                        Poll::Ready(Ok(stream)) => drop(waiting.take().map(|ask| ask.send(stream))),
                        Poll::Ready(Err(error)) => return Poll::Ready(Some(error.to_string())),
                        Poll::Pending => break,
                    }
                }
                loop {
                    match connection.poll_next_inbound(cx) {
                        Poll::Ready(Some(Ok(stream))) => drop(stream),
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(error.to_string())),
                        Poll::Ready(None) => return Poll::Ready(None),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await
        });
        let mut all = Vec::new();
        for _ in 0..callers {
            let (ask, answer) = oneshot::channel();
            asks.send(ask).await?;
            let (reader, writer) = halves(answer.await?);
            let mut caller = framed::Caller::new(reader, writer);
            // The other side learns of a stream by what comes on it, and takes no more than 256 of which it knows nothing.
            caller.echo(&Bytes::new(), |_| ()).await?;
            all.push(Self(caller));
        }
        Ok(all)
    }
}

impl Neighbour for Yamux {
    const NAME: &'static str = "yamux";
    const UNIT: &'static str = "a stream in both directions";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        loop {
            let mut connection = connection(listener.accept().await?.0, Mode::Server)?;
            tokio::spawn(async move {
                while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
                    let (reader, writer) = halves(stream);
                    tokio::spawn(framed::answer(reader, writer));
                }
            });
        }
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        Self::open(address, callers).await
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        self.0.echo(body, see).await
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        self.0.nested(value).await
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        self.0.items(count, size).await
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        Ok(Box::new(Self::open(address, count).await?))
    }
}
