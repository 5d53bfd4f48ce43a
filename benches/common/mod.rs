//! What all benches share: the echo service of the workloads W1 to W6 and the runtimes they run on.
#![allow(dead_code, missing_docs, reason = "each bench uses its part")]

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream;
use serde::{Deserialize, Serialize};

/// W6: a nested struct.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Nested {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) points: Vec<f64>,
    pub(crate) map: BTreeMap<String, u64>,
}

impl Nested {
    pub(crate) fn sample() -> Self {
        Self {
            id: 42,
            name: "sixteen letters!".into(),
            tags: (0..8).map(|tag| format!("tag-{tag:04}")).collect(),
            points: (0..16).map(f64::from).collect(),
            map: (0..8).map(|key| (format!("key-{key}"), key)).collect(),
        }
    }
}

#[rpc::service]
pub(crate) trait Echo {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes>;
    async fn nested(&self, value: Nested) -> rpc::Result<Nested>;
    async fn items(&self, count: u64, size: u32) -> rpc::Result<rpc::Streaming<Bytes>>;
    async fn collect(&self, items: rpc::Streaming<Bytes>) -> rpc::Result<u64>;
    #[rpc(oneway)]
    async fn note(&self, bytes: Bytes) -> rpc::Result<()>;
}

#[derive(Debug, Default)]
pub(crate) struct Echoes;

impl Echo for Echoes {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes> {
        Ok(bytes)
    }

    async fn nested(&self, value: Nested) -> rpc::Result<Nested> {
        Ok(value)
    }

    async fn items(&self, count: u64, size: u32) -> rpc::Result<rpc::Streaming<Bytes>> {
        let item = Bytes::from(vec![7; size as usize]);
        Ok(rpc::Streaming::new(stream::iter((0..count).map(move |_| item.clone()))))
    }

    async fn collect(&self, mut items: rpc::Streaming<Bytes>) -> rpc::Result<u64> {
        let mut bytes = 0;
        while let Some(item) = items.next().await {
            bytes += item?.len() as u64;
        }
        Ok(bytes)
    }

    async fn note(&self, _: Bytes) -> rpc::Result<()> {
        Ok(())
    }
}

/// A runtime with one thread, or with `threads` workers.
pub(crate) fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let mut builder =
        if threads > 1 { tokio::runtime::Builder::new_multi_thread() } else { tokio::runtime::Builder::new_current_thread() };
    builder.worker_threads(threads.max(1)).enable_all().build().expect("a runtime starts")
}

/// Makes `calls` echo calls of `size` bytes, `in_flight` at a time.
pub(crate) async fn echo_calls(client: &EchoClient, calls: u64, in_flight: u64, size: usize) {
    let body = Bytes::from(vec![7; size]);
    let callers: Vec<_> = (0..in_flight)
        .map(|caller| {
            let (client, body) = (client.clone(), body.clone());
            let share = calls / in_flight + u64::from(caller < calls % in_flight);
            tokio::spawn(async move {
                for _ in 0..share {
                    let answer = client.echo(body.clone()).await.expect("the echo answers");
                    assert_eq!(answer.len(), body.len());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
}

/// Makes `calls` echo calls of a nested struct, 64 at a time.
pub(crate) async fn nested_calls(client: &EchoClient, calls: u64) {
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let value = Nested::sample();
                for _ in 0..calls / 64 {
                    assert_eq!(client.nested(value.clone()).await.expect("the echo answers").id, 42);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
}

/// A server over TCP in this process, and a client of it.
pub(crate) async fn tcp_client() -> (rpc::Server, EchoClient) {
    client_at("tcp://127.0.0.1:0").await
}

/// The same anywhere.
pub(crate) async fn client_at(endpoint: &str) -> (rpc::Server, EchoClient) {
    let server = rpc::Server::builder().service(EchoServer::new(Echoes)).listen(endpoint).await.expect("the endpoint is free");
    let connection = rpc::Connection::open(server.endpoint()).await.expect("the server answers");
    (server, connection.session().open().await.expect("the session opens"))
}
