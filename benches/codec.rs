//! What do the codecs cost: a nested struct, 64 bytes and 1 MiB, encoded and decoded, with decode limits and without, beside
//! postcard as it comes?

mod common;

use bytes::Bytes;
use common::Nested;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rpc_core::codec::{Codec, DecodeLimits};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn codecs(c: &mut Criterion) {
    value(c, "nested struct", &Nested::sample());
    value(c, "64 bytes", &Bytes::from(vec![7; 64]));
    value(c, "1 MiB", &Bytes::from(vec![7; 1 << 20]));
}

fn value<T: Serialize + DeserializeOwned>(c: &mut Criterion, name: &str, value: &T) {
    let mut group = c.benchmark_group(format!("codec, {name}"));
    for codec in [Codec::Postcard, Codec::Json] {
        let mut bytes = Vec::new();
        codec.encode(value, &mut bytes).expect("it is encoded");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{}, encode", codec.name()), |b| {
            b.iter_batched_ref(
                // A buffer that is used again, as those of calls are.
                || Vec::with_capacity(bytes.len()),
                |out| {
                    out.clear();
                    codec.encode(value, out)
                },
                BatchSize::LargeInput,
            );
        });
        for (limits, with) in [(Some(DecodeLimits::DEFAULT), "limits"), (None, "no limits")] {
            group.bench_function(format!("{}, decode with {with}", codec.name()), |b| {
                b.iter(|| codec.decode::<T>(&bytes, limits).expect("it is decoded"));
            });
        }
    }
    let bytes = postcard::to_stdvec(value).expect("it is encoded");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("postcard as it comes, encode", |b| b.iter(|| postcard::to_stdvec(value)));
    group
        .bench_function("postcard as it comes, decode", |b| b.iter(|| postcard::from_bytes::<T>(&bytes).expect("it is decoded")));
}

criterion_group!(benches, codecs);
criterion_main!(benches);
