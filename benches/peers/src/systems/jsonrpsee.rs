//! jsonrpsee: the macro over WebSockets, which is the transport that its documentation has for many calls and for
//! subscriptions. JSON has no bytes, so they travel as base64. Set beyond the defaults: as many concurrent requests and
//! subscriptions as W3 and W7 have; a larger buffer of messages on the server; and room for all items of W5 on the client,
//! which ends a subscription whose reader falls behind, for nothing holds the server back. Nodelay is its default, methods
//! that wait for nothing are not `async`, as its documentation prefers.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jsonrpsee::core::client::Subscription;
use jsonrpsee::core::{RpcResult, SubscriptionResult, async_trait, to_json_raw_value};
use jsonrpsee::proc_macros::rpc;
use jsonrpsee::server::{PendingSubscriptionSink, Server, ServerConfig};
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};

/// More than W3 and W7 have.
const AT_ONCE: u32 = 20_000;
const MESSAGES: u32 = 16_384;
/// More than W5 has; what is not needed is not allocated.
const ITEMS: usize = 1 << 26;

#[rpc(client, server)]
trait Echo {
    #[method(name = "echo")]
    fn echo(&self, bytes: String) -> RpcResult<String>;

    #[method(name = "nested")]
    fn nested(&self, value: Nested) -> RpcResult<Nested>;

    #[subscription(name = "subscribe_items", item = String)]
    async fn items(&self, count: u64, size: u32) -> SubscriptionResult;
}

struct Echoes;

#[async_trait]
impl EchoServer for Echoes {
    fn echo(&self, bytes: String) -> RpcResult<String> {
        let bytes = STANDARD.decode(bytes).map_err(|error| ErrorObjectOwned::owned(1, error.to_string(), None::<()>))?;
        Ok(STANDARD.encode(bytes))
    }

    fn nested(&self, value: Nested) -> RpcResult<Nested> {
        Ok(value)
    }

    async fn items(&self, pending: PendingSubscriptionSink, count: u64, size: u32) -> SubscriptionResult {
        let sink = pending.accept().await?;
        let item = vec![7; size as usize];
        for _ in 0..count {
            sink.send(to_json_raw_value(&STANDARD.encode(&item))?).await?;
        }
        // It is there for as long as the client wants it.
        sink.closed().await;
        Ok(())
    }
}

pub(crate) struct Jsonrpsee(Arc<WsClient>);

impl Jsonrpsee {
    async fn open(address: &str) -> Outcome<Arc<WsClient>> {
        let builder =
            WsClientBuilder::default().max_concurrent_requests(AT_ONCE as usize).max_buffer_capacity_per_subscription(ITEMS);
        Ok(Arc::new(builder.build(format!("ws://{address}")).await?))
    }
}

impl Neighbour for Jsonrpsee {
    const NAME: &'static str = "jsonrpsee";
    const UNIT: &'static str = "a subscription";
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let config = ServerConfig::builder()
            .ws_only()
            .max_subscriptions_per_connection(AT_ONCE)
            .set_message_buffer_capacity(MESSAGES)
            .build();
        let server = Server::builder().set_config(config).build("127.0.0.1:0").await?;
        announce(server.local_addr()?.to_string());
        server.start(Echoes.into_rpc()).stopped().await;
        Err("the server has stopped".into())
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let client = Self::open(address).await?;
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        see(&STANDARD.decode(self.0.echo(STANDARD.encode(body)).await?)?);
        Ok(())
    }

    async fn nested(&mut self, value: &Nested) -> Outcome<Nested> {
        Ok(self.0.nested(value.clone()).await?)
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let mut items: Subscription<String> = self.0.items(count, size).await?;
        let mut seen = 0;
        while seen < count {
            let item = items.next().await.ok_or_else(|| format!("the subscription ended after {seen} items"))??;
            if STANDARD.decode(item)?.len() != size as usize {
                return Err("an item has another length".into());
            }
            seen += 1;
        }
        Ok(seen)
    }

    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let client = Self::open(address).await?;
        let mut subscriptions = Vec::new();
        for _ in 0..count {
            subscriptions.push(client.items(0, 0).await?);
        }
        Ok(Box::new((client, subscriptions)))
    }
}
