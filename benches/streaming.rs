//! W5: items of 64 bytes in one stream, down and up. How many a second?

mod common;

use bytes::Bytes;
use common::{EchoClient, runtime, tcp_client};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ITEMS: u64 = 200_000;

fn streaming(c: &mut Criterion) {
    let runtime = runtime(1);
    let (_server, client) = runtime.block_on(tcp_client());
    let mut group = c.benchmark_group("streaming");
    group.throughput(Throughput::Elements(ITEMS)).sample_size(10);
    group.bench_function("W5, down", |b| b.iter(|| runtime.block_on(down(&client))));
    group.bench_function("up", |b| b.iter(|| runtime.block_on(up(&client))));
}

async fn down(client: &EchoClient) {
    let mut items = client.items(ITEMS, 64).await.expect("the stream opens");
    let mut seen = 0;
    while let Some(item) = items.next().await {
        seen += u64::from(item.expect("the stream holds").len() == 64);
    }
    assert_eq!(seen, ITEMS);
}

async fn up(client: &EchoClient) {
    let item = Bytes::from(vec![7; 64]);
    let items = futures::stream::iter((0..ITEMS).map(move |_| item.clone()));
    assert_eq!(client.collect(items).await.expect("the stream is taken"), ITEMS * 64);
}

criterion_group!(benches, streaming);
criterion_main!(benches);
