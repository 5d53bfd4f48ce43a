//! Layers around a call. What does the adapter cost, on each side, and what the layers that stand in it?

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{EchoClient, EchoServer, Echoes, echo_calls, runtime};
use criterion::{Criterion, criterion_group, criterion_main};
use rpc::tower::{Inner, Stack, layered};
use tower::Layer;
use tower::ServiceBuilder;
use tower::layer::util::Identity;

/// A server over memory and a client of it, with what stands around each of them.
async fn client(
    name: &str,
    server: impl FnOnce(rpc::ServerBuilder) -> rpc::ServerBuilder,
    session: impl FnOnce(rpc::SessionBuilder) -> rpc::SessionBuilder,
) -> (rpc::Server, EchoClient) {
    let server = server(rpc::Server::builder()).listen(format!("mem://{name}")).await.expect("the name is free");
    let connection = rpc::Connection::open(server.endpoint()).await.expect("the server answers");
    let client = session(connection.session()).open().await.expect("the session opens");
    (server, client)
}

fn echo() -> EchoServer<Echoes> {
    EchoServer::new(Echoes)
}

/// What a service would have: a bound of time and one of calls, and no queue.
fn three() -> impl Layer<Inner, Service: Stack> + Clone + Send + Sync + 'static {
    ServiceBuilder::new().timeout(Duration::from_secs(10)).load_shed().concurrency_limit(1024)
}

fn tower(c: &mut Criterion) {
    let runtime = runtime(1);
    let clients = runtime.block_on(async {
        [
            ("plain", client("plain", |server| server.service(echo()), |session| session).await),
            (
                "adapter, server",
                client("server", |server| server.service(layered(echo(), Identity::new())), |session| session).await,
            ),
            (
                "adapter, client",
                client("client", |server| server.service(echo()), |session| session.layer(Identity::new())).await,
            ),
            (
                "three layers, server",
                client("server-3", |server| server.service(layered(echo(), three())), |session| session).await,
            ),
            ("three layers, client", client("client-3", |server| server.service(echo()), |session| session.layer(three())).await),
        ]
    });
    let body = Bytes::from(vec![7; 64]);
    let mut group = c.benchmark_group("tower, W1 over mem");
    for (name, (_, client)) in &clients {
        group.bench_function(*name, |b| {
            b.iter(|| runtime.block_on(client.echo(body.clone())).expect("the echo answers"));
        });
    }
    group.bench_function("plain, with metadata", |b| {
        let client = &clients[0].1.1;
        b.iter(|| {
            let call = client.echo(body.clone()).metadata("authorization", "sixteen letters!");
            runtime.block_on(call).expect("the echo answers")
        });
    });
    group.finish();
    let mut group = c.benchmark_group("tower, W2 over mem");
    for (name, (_, client)) in &clients {
        group.bench_function(*name, |b| {
            b.iter_custom(|n| {
                runtime.block_on(async {
                    let start = std::time::Instant::now();
                    echo_calls(client, n, 64, 64).await;
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tower);
criterion_main!(benches);
