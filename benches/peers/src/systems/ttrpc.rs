//! ttrpc: the asynchronous server and client with generated code and rust-protobuf, as its README has it. TCP, for the
//! others have that too, with a socket of our own: its TCP has no nodelay unless an environment variable asks for it.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use tokio::net::{TcpListener, TcpStream};
use ttrpc::r#async::transport::{Listener, Socket};
use ttrpc::r#async::{Client, Server, ServerStream, ServerStreamSender, TtrpcContext};
use ttrpc::context::Context;

use crate::common;
use crate::neighbour::{Neighbour, Outcome};

// `mod schema`, by the path that the build has written it to.
include!(concat!(env!("OUT_DIR"), "/ttrpc.rs"));

use schema::echo::{Body, Nested, Wanted};
use schema::echo_ttrpc::{Echo, EchoClient, create_echo};

struct Echoes;

#[async_trait]
impl Echo for Echoes {
    async fn echo(&self, _: &TtrpcContext, body: Body) -> ttrpc::Result<Body> {
        Ok(body)
    }

    async fn nested(&self, _: &TtrpcContext, value: Nested) -> ttrpc::Result<Nested> {
        Ok(value)
    }

    async fn items(&self, _: &TtrpcContext, wanted: Wanted, items: ServerStreamSender<Body>) -> ttrpc::Result<()> {
        let item = Body { bytes: vec![7; wanted.size as usize], ..Default::default() };
        for _ in 0..wanted.count {
            items.send(&item).await?;
        }
        Ok(())
    }

    async fn idle(&self, _: &TtrpcContext, mut up: ServerStream<Body, Body>) -> ttrpc::Result<()> {
        while up.recv().await?.is_some() {}
        Ok(())
    }
}

impl From<common::Nested> for Nested {
    fn from(value: common::Nested) -> Self {
        let common::Nested { id, name, tags, points, map } = value;
        Self { id, name, tags, points, map: map.into_iter().collect(), ..Default::default() }
    }
}

pub(crate) struct Ttrpc(EchoClient);

impl Ttrpc {
    async fn open(address: &str) -> Outcome<EchoClient> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(EchoClient::new(Client::new(Socket::new(stream))))
    }
}

impl Neighbour for Ttrpc {
    const NAME: &'static str = "ttrpc";
    const UNIT: &'static str = "a stream in both directions";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        let accepted = stream::unfold(listener, |listener| async {
            let stream = async {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            };
            Some((stream.await, listener))
        });
        let mut server = Server::new().add_listener(Listener::new(accepted)).register_service(create_echo(Arc::new(Echoes)));
        server.start().await?;
        std::future::pending().await
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client = Self::open(address).await?;
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        let body = Body { bytes: body.to_vec(), ..Default::default() };
        see(&self.0.echo(Context::default(), &body).await?.bytes);
        Ok(())
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        Ok(self.0.nested(Context::default(), value).await?)
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let wanted = Wanted { count, size, ..Default::default() };
        let mut items = self.0.items(Context::default(), &wanted).await?;
        let mut seen = 0;
        while let Some(item) = items.recv().await? {
            seen += u64::from(item.bytes.len() == size as usize);
        }
        Ok(seen)
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let client = Self::open(address).await?;
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(client.idle(Context::default()).await?);
        }
        Ok(Box::new((client, streams)))
    }
}
