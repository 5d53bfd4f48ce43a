//! What the sockets themselves allow: bytes that go round over tokio's TCP and Unix sockets, with nothing around them. All
//! calls that are in flight are one buffer, written at once and read back, so this is the cost of the system calls and the
//! wake-ups.

use std::any::Any;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};
use crate::workload::Workload;

const BUFFER: usize = 256 << 10;

const LACKS: &[(Workload, &str)] = &[(Workload::W5, "it has no items"), (Workload::W6, "it has no types")];

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

/// Writes and reads at the same time: the other side stops reading while it cannot write.
async fn round(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), body: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
    answer.resize(body.len(), 0);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (written, read) = tokio::join!(writer.write_all(body), reader.read_exact(answer));
    written?;
    read?;
    Ok(())
}

pub(crate) struct Tcp(TcpStream, Vec<u8>);

impl Tcp {
    async fn open(address: &str) -> Outcome<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Neighbour for Tcp {
    const NAME: &'static str = "tcp";
    const UNIT: &'static str = "a connection with a task and its buffer";
    const LACKS: &'static [(Workload, &'static str)] = LACKS;
    const WHOLE_WINDOW: bool = true;
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(answer(stream));
        }
    }

    async fn connect(address: &str, _: usize) -> Outcome<Vec<Self>> {
        Ok(vec![Self(Self::open(address).await?, Vec::new())])
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        round(&mut self.0, body, &mut self.1).await?;
        see(&self.1);
        Ok(())
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(Self::open(address).await?);
        }
        Ok(Box::new(streams))
    }
}

pub(crate) struct Unix(UnixStream, Vec<u8>);

impl Unix {
    async fn open(address: &str) -> Outcome<UnixStream> {
        loop {
            match UnixStream::connect(format!("\0{address}")).await {
                // So many wait to be accepted already; unlike TCP's, this connect does not wait with them.
                Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(Duration::from_millis(1)).await,
                stream => return Ok(stream?),
            }
        }
    }
}

impl Neighbour for Unix {
    const NAME: &'static str = "unix";
    const UNIT: &'static str = "a connection with a task and its buffer";
    const LACKS: &'static [(Workload, &'static str)] = LACKS;
    const WHOLE_WINDOW: bool = true;
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        // An abstract name, which leaves no file behind.
        let name = format!("peers-{}", std::process::id());
        let listener = UnixListener::bind(format!("\0{name}"))?;
        announce(name);
        loop {
            tokio::spawn(answer(listener.accept().await?.0));
        }
    }

    async fn connect(address: &str, _: usize) -> Outcome<Vec<Self>> {
        Ok(vec![Self(Self::open(address).await?, Vec::new())])
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        round(&mut self.0, body, &mut self.1).await?;
        see(&self.1);
        Ok(())
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(Self::open(address).await?);
        }
        Ok(Box::new(streams))
    }
}
