//! Many callers on many threads: is a connection slower on a runtime with several threads than on one with a single one, and
//! do several connections make use of several cores? Echoes of 64 bytes over TCP, client and server each with a runtime of so
//! many threads.

mod common;

use common::{EchoClient, EchoServer, Echoes, echo_calls, runtime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;

const CALLS: u64 = 20_000;

fn contention(c: &mut Criterion) {
    let mut group = c.benchmark_group("contention");
    group.throughput(Throughput::Elements(CALLS)).sample_size(10);
    for threads in [1, 2, 4] {
        let (serving, calling) = (runtime(threads), runtime(threads));
        // A runtime of a single thread runs only while somebody waits in it.
        let (tell, endpoint) = std::sync::mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            serving.block_on(async {
                let server = rpc::Server::builder().service(EchoServer::new(Echoes)).listen("tcp://127.0.0.1:0").await;
                let server = server.expect("the endpoint is free");
                tell.send(server.endpoint().clone()).expect("somebody listens");
                let _ = ended.await;
            });
        });
        let endpoint = endpoint.recv().expect("the server listens");
        for connections in [1, 2, 4] {
            let clients = calling.block_on(join_all((0..connections).map(|_| async {
                let connection = rpc::Connection::open(&endpoint).await.expect("the server answers");
                connection.session().open::<EchoClient>().await.expect("the session opens")
            })));
            for callers in [64, 1024] {
                group.bench_function(format!("threads {threads}, connections {connections}, callers {callers}"), |b| {
                    b.iter(|| calling.block_on(share(&clients, callers)));
                });
            }
        }
        drop(end);
        server.join().expect("the server ends");
    }
}

/// Shares the calls and the callers among the connections.
async fn share(clients: &[EchoClient], callers: u64) {
    let n = clients.len() as u64;
    let shares = clients.iter().map(|client| {
        let client = client.clone();
        tokio::spawn(async move { echo_calls(&client, CALLS / n, callers / n, 64).await })
    });
    for share in join_all(shares).await {
        share.expect("no caller panics");
    }
}

criterion_group!(benches, contention);
criterion_main!(benches);
