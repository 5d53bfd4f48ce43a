//! `rpc`, as it is: one session on one connection over TCP, the default codec and the default limits. The one setting is for
//! W7: a connection has 128 sessions unless its server says otherwise.

use std::any::Any;
use std::convert::Infallible;

use bytes::Bytes;
use rpc::{Connection, Limits, Server};

use crate::common::{EchoClient, EchoServer, Echoes, Nested};
use crate::neighbour::{Neighbour, Outcome};

/// More than W7 opens.
const SESSIONS: u64 = 20_000;

pub(crate) struct Ours(EchoClient);

impl Neighbour for Ours {
    const NAME: &'static str = "rpc";
    const UNIT: &'static str = "a session";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let limits = Limits::default().sessions(SESSIONS);
        let server = Server::builder().service(EchoServer::new(Echoes)).limits(limits).listen("tcp://127.0.0.1:0").await?;
        announce(server.endpoint().to_string());
        std::future::pending().await
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client: EchoClient = Connection::open(address).await?.session().open().await?;
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
        while let Some(item) = items.next().await {
            seen += u64::from(item?.len() == size as usize);
        }
        Ok(seen)
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let connection = Connection::open(address).await?;
        let mut sessions: Vec<EchoClient> = Vec::new();
        for _ in 0..count {
            sessions.push(connection.session().open().await?);
        }
        Ok(Box::new(sessions))
    }
}
