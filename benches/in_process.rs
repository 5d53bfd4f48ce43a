//! Calls within the process. What does the service boundary itself cost beside a plain method call?

mod common;

use bytes::Bytes;
use common::{Echo, EchoClient, EchoServer, Echoes, runtime};
use criterion::{Criterion, criterion_group, criterion_main};

fn in_process(c: &mut Criterion) {
    let runtime = runtime(1);
    let body = Bytes::from(vec![7; 64]);
    let mut group = c.benchmark_group("in_process");
    let calls = |n: u64| n;
    group.bench_function("a method call", |b| {
        b.iter_custom(|n| {
            runtime.block_on(async {
                let start = std::time::Instant::now();
                for _ in 0..calls(n) {
                    std::hint::black_box(Echo::echo(&Echoes, body.clone()).await.expect("the echo answers"));
                }
                start.elapsed()
            })
        });
    });
    let client: EchoClient = rpc::local(EchoServer::new(Echoes));
    group.bench_function("rpc::local, inherent method", |b| {
        b.iter_custom(|n| {
            runtime.block_on(async {
                let start = std::time::Instant::now();
                for _ in 0..calls(n) {
                    std::hint::black_box(client.echo(body.clone()).await.expect("the echo answers"));
                }
                start.elapsed()
            })
        });
    });
    group.bench_function("rpc::local, trait method", |b| {
        b.iter_custom(|n| {
            runtime.block_on(async {
                let start = std::time::Instant::now();
                for _ in 0..calls(n) {
                    std::hint::black_box(Echo::echo(&client, body.clone()).await.expect("the echo answers"));
                }
                start.elapsed()
            })
        });
    });
}

criterion_group!(benches, in_process);
criterion_main!(benches);
