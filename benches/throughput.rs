//! W2 and W3: 64 and 1024 echoes of 64 bytes in flight; W6: a nested struct; one-way calls. How many a second, with both
//! sides on one thread and on two?

mod common;

use bytes::Bytes;
use common::{EchoClient, echo_calls, nested_calls, runtime, tcp_client};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CALLS: u64 = 20_000;

fn throughput(c: &mut Criterion) {
    let mut group = c.benchmark_group("throughput");
    group.throughput(Throughput::Elements(CALLS)).sample_size(10);
    for threads in [1, 2] {
        let runtime = runtime(threads);
        let (_server, client) = runtime.block_on(tcp_client());
        for (name, in_flight) in [("W2", 64), ("W3", 1024)] {
            group.bench_function(format!("{name}, threads {threads}"), |b| {
                b.iter(|| runtime.block_on(echo_calls(&client, CALLS, in_flight, 64)));
            });
        }
        group.bench_function(format!("W6, threads {threads}"), |b| b.iter(|| runtime.block_on(nested_calls(&client, CALLS))));
        group.bench_function(format!("one-way, threads {threads}"), |b| b.iter(|| runtime.block_on(notes(&client))));
    }
}

async fn notes(client: &EchoClient) {
    let body = Bytes::from(vec![7; 64]);
    for _ in 0..CALLS {
        client.note(body.clone()).await.expect("it is sent");
    }
    // Calls of one session are handled in order: this one comes behind all of them.
    client.echo(body).await.expect("the echo answers");
}

criterion_group!(benches, throughput);
criterion_main!(benches);
