//! How fast is each backend beside TCP on loopback? One call at a time, 64 at a time, and 1 MiB at a time, both sides in one
//! process on one thread. `cargo bench --bench backends`; the ratios within a group are what README's table has.

mod common;

use bytes::Bytes;
use common::{EchoClient, EchoServer, Echoes, echo_calls, runtime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rpc::tls::{Authorities, ClientTls, Identity, ServerTls};
use rpc::{Connection, Server};

const ENDPOINTS: [&str; 5] =
    ["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "local://rpc-backends", "pipe://rpc-backends", "mem://rpc-backends"];

async fn client(endpoint: &str) -> (Server, EchoClient) {
    let (server, connection) = (Server::builder().service(EchoServer::new(Echoes)), Connection::builder());
    let (server, connection) = if endpoint.starts_with("tls") {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("it signs");
        let identity = Identity::pem(cert.pem(), signing_key.serialize_pem());
        let trusted = ClientTls::new().authorities(Authorities::pem(cert.pem()));
        (server.tls(ServerTls::new().identity(identity)), connection.tls(trusted))
    } else {
        (server, connection)
    };
    let server = server.listen(endpoint).await.expect("the endpoint is free");
    let connection = connection.open(server.endpoint()).await.expect("the server answers");
    let client = connection.session().open().await.expect("the session opens");
    (server, client)
}

fn backends(c: &mut Criterion) {
    let clients = ENDPOINTS.map(|endpoint| {
        let runtime = runtime(1);
        let (server, client) = runtime.block_on(client(endpoint));
        (endpoint.split(':').next().unwrap_or_default(), runtime, server, client)
    });
    let body = Bytes::from(vec![7; 64]);
    let mut group = c.benchmark_group("backends, one call at a time");
    for (name, runtime, _server, client) in &clients {
        group.bench_function(*name, |b| b.iter(|| runtime.block_on(client.echo(body.clone())).expect("the echo answers")));
    }
    group.finish();
    let mut group = c.benchmark_group("backends, 64 calls at a time");
    group.throughput(Throughput::Elements(6400)).sample_size(20);
    for (name, runtime, _server, client) in &clients {
        group.bench_function(*name, |b| b.iter(|| runtime.block_on(echo_calls(client, 6400, 64, 64))));
    }
    group.finish();
    let mut group = c.benchmark_group("backends, 1 MiB, 8 at a time");
    group.throughput(Throughput::Bytes(64 << 20)).sample_size(10);
    for (name, runtime, _server, client) in &clients {
        group.bench_function(*name, |b| b.iter(|| runtime.block_on(echo_calls(client, 64, 8, 1 << 20))));
    }
}

criterion_group!(benches, backends);
criterion_main!(benches);
