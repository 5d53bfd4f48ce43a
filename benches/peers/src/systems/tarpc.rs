//! tarpc: the service macro over its serde transport, length-delimited TCP with bincode, which its documentation names for
//! use over a network. A task for each request, as its README has it. Set beyond the defaults: nodelay on both sides, which
//! its own `listen` and `connect` leave off; room for all calls of W3 (`max_in_flight_requests` is said to be safe at any
//! value where the load is bounded, and buffers that are too small are said to cost throughput); `serde_bytes`, without
//! which bytes go one by one.

use std::any::Any;
use std::convert::Infallible;

use bytes::Bytes;
use futures::StreamExt;
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context, serde_transport, server};
use tokio::net::{TcpListener, TcpStream};

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};
use crate::workload::Workload;

/// Of W3.
const IN_FLIGHT: usize = 1024;

#[tarpc::service]
trait Echo {
    async fn echo(bytes: ByteBuf) -> ByteBuf;
    async fn nested(value: Nested) -> Nested;
}

#[derive(Clone)]
struct Echoes;

impl Echo for Echoes {
    async fn echo(self, _: context::Context, bytes: ByteBuf) -> ByteBuf {
        bytes
    }

    async fn nested(self, _: context::Context, value: Nested) -> Nested {
        value
    }
}

pub(crate) struct Tarpc(EchoClient);

impl Tarpc {
    async fn open(address: &str) -> Outcome<EchoClient> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let transport = serde_transport::new(LengthDelimitedCodec::builder().new_framed(stream), Bincode::default());
        let mut config = client::Config::default();
        config.max_in_flight_requests = 2 * IN_FLIGHT;
        config.pending_request_buffer = IN_FLIGHT;
        Ok(EchoClient::new(config, transport).spawn())
    }
}

impl Neighbour for Tarpc {
    const NAME: &'static str = "tarpc";
    const UNIT: &'static str = "a connection";
    const LACKS: &'static [(Workload, &'static str)] = &[(Workload::W5, "it has no streams")];
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let transport = serde_transport::new(LengthDelimitedCodec::builder().new_framed(stream), Bincode::default());
            let config = server::Config { pending_response_buffer: IN_FLIGHT };
            let requests = BaseChannel::new(config, transport).execute(Echoes.serve());
            tokio::spawn(requests.for_each(|request| async {
                tokio::spawn(request);
            }));
        }
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client = Self::open(address).await?;
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        see(&self.0.echo(context::current(), ByteBuf::from(body.to_vec())).await?);
        Ok(())
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        Ok(self.0.nested(context::current(), value.clone()).await?)
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Self::open(address).await?);
        }
        Ok(Box::new(clients))
    }
}
