//! remoc: a remote trait over TCP with nodelay, its shared server, which runs calls at the same time, and its default
//! codec. Methods and arguments have numbers for names, which its documentation offers for small messages; the
//! configuration is the default one, which it recommends, with ports for the channels of W7.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use remoc::prelude::*;
use remoc::rch::mpsc;
use remoc::rtc::CallError;
use tokio::net::{TcpListener, TcpStream};

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};

#[rtc::remote]
pub(crate) trait Echo {
    #[serde(rename = "_0")]
    async fn echo(&self, #[serde(rename = "_0")] bytes: Bytes) -> Result<Bytes, CallError>;

    #[serde(rename = "_1")]
    async fn nested(&self, #[serde(rename = "_0")] value: Nested) -> Result<Nested, CallError>;

    #[serde(rename = "_2")]
    async fn items(
        &self,
        #[serde(rename = "_0")] count: u64,
        #[serde(rename = "_1")] size: u32,
    ) -> Result<mpsc::Receiver<Bytes>, CallError>;

    #[serde(rename = "_3")]
    async fn idle(&self) -> Result<mpsc::Receiver<Bytes>, CallError>;
}

struct Echoes;

impl Echo for Echoes {
    async fn echo(&self, bytes: Bytes) -> Result<Bytes, CallError> {
        Ok(bytes)
    }

    async fn nested(&self, value: Nested) -> Result<Nested, CallError> {
        Ok(value)
    }

    async fn items(&self, count: u64, size: u32) -> Result<mpsc::Receiver<Bytes>, CallError> {
        let (items, taken) = mpsc::channel();
        tokio::spawn(async move {
            let item = Bytes::from(vec![7; size as usize]);
            for _ in 0..count {
                if items.send(item.clone()).await.is_err() {
                    break;
                }
            }
        });
        Ok(taken)
    }

    async fn idle(&self) -> Result<mpsc::Receiver<Bytes>, CallError> {
        let (items, taken) = mpsc::channel::<Bytes, _>();
        tokio::spawn(async move { items.closed().await });
        Ok(taken)
    }
}

/// More than W7 has: a channel is a port or two.
fn config() -> remoc::Cfg {
    remoc::Cfg { max_ports: 40_000, ..Default::default() }
}

pub(crate) struct Remoc(EchoClient);

impl Remoc {
    async fn open(address: &str) -> Outcome<EchoClient> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(remoc::Connect::io(config(), reader, writer).consume().await?)
    }
}

impl Neighbour for Remoc {
    const NAME: &'static str = "remoc";
    const UNIT: &'static str = "a channel";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            let (server, client) = EchoServerShared::<_, remoc::codec::Default>::new(Arc::new(Echoes));
            remoc::Connect::io(config(), reader, writer).provide(client).await?;
            tokio::spawn(server.serve());
        }
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client = Self::open(address).await?;
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        see(&self.0.echo(body.clone()).await?);
        Ok(())
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        Ok(self.0.nested(value.clone()).await?)
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let mut items = self.0.items(count, size).await?;
        let mut seen = 0;
        while let Some(item) = items.recv().await? {
            seen += u64::from(item.len() == size as usize);
        }
        Ok(seen)
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let client = Self::open(address).await?;
        let mut channels = Vec::new();
        for _ in 0..count {
            channels.push(client.idle().await?);
        }
        Ok(Box::new((client, channels)))
    }
}
