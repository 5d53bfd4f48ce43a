//! W1: one echo of 64 bytes at a time. How long is a call, beside a bare round trip over the same kind of socket?

mod common;

use bytes::Bytes;
use common::{client_at, runtime, tcp_client};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn latency(c: &mut Criterion) {
    let runtime = runtime(1);
    let body = Bytes::from(vec![7; 64]);
    let mut group = c.benchmark_group("latency");

    let mut raw = runtime.block_on(raw_echo());
    group.bench_function("raw tokio TCP", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let mut answer = [0; 64];
                raw.write_all(&body).await.expect("loopback writes");
                raw.read_exact(&mut answer).await.expect("loopback reads");
            });
        });
    });

    let (_server, client) = runtime.block_on(tcp_client());
    group.bench_function("W1, TCP", |b| {
        b.iter(|| runtime.block_on(client.echo(body.clone())).expect("the echo answers"));
    });

    let (_memory, client) = runtime.block_on(client_at("mem://latency"));
    group.bench_function("W1, mem", |b| {
        b.iter(|| runtime.block_on(client.echo(body.clone())).expect("the echo answers"));
    });
}

async fn raw_echo() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback listens");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("loopback accepts");
        stream.set_nodelay(true).expect("TCP has the option");
        let mut bytes = [0; 64];
        while stream.read_exact(&mut bytes).await.is_ok() {
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let stream = TcpStream::connect(address).await.expect("loopback connects");
    stream.set_nodelay(true).expect("TCP has the option");
    stream
}

criterion_group!(benches, latency);
criterion_main!(benches);
