//! W4: echoes of 1 MiB, 8 in flight, and the sizes between. How many bytes a second, in one direction?

mod common;

use common::{client_at, echo_calls, runtime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn payload(c: &mut Criterion) {
    let runtime = runtime(1);
    let mut group = c.benchmark_group("payload, echo, 8 in flight");
    group.sample_size(10);
    for endpoint in ["tcp://127.0.0.1:0", "mem://payload"] {
        let (_server, client) = runtime.block_on(client_at(endpoint));
        for size in [4 << 10, 64 << 10, 1 << 20] {
            let calls = ((64 << 20) / size as u64).min(4096);
            group.throughput(Throughput::Bytes(calls * size as u64));
            group.bench_with_input(BenchmarkId::new(&endpoint[..3], size), &size, |b, size| {
                b.iter(|| runtime.block_on(echo_calls(&client, calls, 8, *size)));
            });
        }
    }
}

criterion_group!(benches, payload);
criterion_main!(benches);
