//! tonic: prost messages over HTTP/2 on TCP, one channel, generated client and server. Set beyond the defaults, as the
//! documentation of `Endpoint` and `Server` offers it: windows of 1 MiB a stream and 16 MiB a connection (64 KiB by
//! default, of which a body of 1 MiB needs many round trips) and frames of 1 MiB (16 KiB by default); as many concurrent
//! streams as W3 and W7 have; `Bytes` for `bytes` and an ordered map, which prost's generator offers. Nodelay is its
//! default.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::common;
use crate::neighbour::{Neighbour, Outcome};

#[allow(clippy::all, reason = "it is generated")]
mod schema {
    include!(concat!(env!("OUT_DIR"), "/peers.rs"));
}

use schema::echo_client::EchoClient;
use schema::echo_server::{Echo, EchoServer};
use schema::{Body, Nested, Wanted};

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME: u32 = 1 << 20;
/// More than W3 and W7 have.
const STREAMS: u32 = 20_000;

struct Echoes;

#[tonic::async_trait]
impl Echo for Echoes {
    async fn echo(&self, body: Request<Body>) -> Result<Response<Body>, Status> {
        Ok(Response::new(body.into_inner()))
    }

    async fn nested(&self, value: Request<Nested>) -> Result<Response<Nested>, Status> {
        Ok(Response::new(value.into_inner()))
    }

    type ItemsStream = Pin<Box<dyn Stream<Item = Result<Body, Status>> + Send>>;

    async fn items(&self, wanted: Request<Wanted>) -> Result<Response<Self::ItemsStream>, Status> {
        let Wanted { count, size } = wanted.into_inner();
        let item = Body { bytes: Bytes::from(vec![7; size as usize]) };
        Ok(Response::new(Box::pin(stream::iter((0..count).map(move |_| Ok(item.clone()))))))
    }

    type IdleStream = Pin<Box<dyn Stream<Item = Result<Body, Status>> + Send>>;

    async fn idle(&self, up: Request<Streaming<Body>>) -> Result<Response<Self::IdleStream>, Status> {
        Ok(Response::new(Box::pin(up.into_inner())))
    }
}

pub(crate) struct Tonic(EchoClient<Channel>);

impl Tonic {
    async fn open(address: &str) -> Outcome<EchoClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME);
        Ok(EchoClient::new(endpoint.connect().await?))
    }
}

impl From<common::Nested> for Nested {
    fn from(value: common::Nested) -> Self {
        let common::Nested { id, name, tags, points, map } = value;
        Self { id, name, tags, points, map }
    }
}

impl Neighbour for Tonic {
    const NAME: &'static str = "tonic";
    const UNIT: &'static str = "a stream in both directions";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_concurrent_streams(STREAMS)
            .add_service(EchoServer::new(Echoes))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await?;
        Err("the server has stopped".into())
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client = Self::open(address).await?;
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        see(&self.0.echo(Body { bytes: body.clone() }).await?.into_inner().bytes);
        Ok(())
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        Ok(self.0.nested(value.clone()).await?.into_inner())
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let mut items = self.0.items(Wanted { count, size }).await?.into_inner();
        let mut seen = 0;
        while let Some(item) = items.message().await? {
            seen += u64::from(item.bytes.len() == size as usize);
        }
        Ok(seen)
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let mut client = Self::open(address).await?;
        let mut sessions = Vec::new();
        for _ in 0..count {
            let (items, mut taken) = mpsc::channel::<Body>(1);
            let up = stream::poll_fn(move |cx| taken.poll_recv(cx)).boxed();
            sessions.push((items, client.idle(up).await?.into_inner()));
        }
        Ok(Box::new(sessions))
    }
}
