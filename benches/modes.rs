//! One session alone on its connection, or many on one: what does it cost to come, to call, and to stay?
//!
//! `cargo bench --bench modes`. "come" is everything from nothing to the first answer; "call" an echo of 64 bytes while
//! 1,000 clients are there; "stay" is the memory that 1,000 clients take, both sides in this process and without the
//! system's buffers, printed at the end. Read the columns of one endpoint beside each other.

mod common;

use bytes::Bytes;
use common::{EchoClient, EchoServer, Echoes, runtime};
use criterion::{Criterion, criterion_group, criterion_main};
use rpc::{Connection, Limits, Server};

/// Clients that are there at once.
const CLIENTS: usize = 1000;

const ENDPOINTS: [&str; 4] = ["tcp://127.0.0.1:0", "local://rpc-modes", "pipe://rpc-modes", "mem://modes"];

async fn serve(endpoint: &str) -> Server {
    let limits = Limits::default().sessions(2 * CLIENTS as u64);
    Server::builder().service(EchoServer::new(Echoes)).limits(limits).listen(endpoint).await.expect("the endpoint is free")
}

async fn shared(server: &Server) -> Connection {
    let limits = Limits::default().sessions(2 * CLIENTS as u64);
    Connection::builder().limits(limits).open(server.endpoint()).await.expect("the server answers")
}

async fn session(connection: &Connection) -> EchoClient {
    connection.session().open().await.expect("the session opens")
}

async fn alone(server: &Server) -> EchoClient {
    rpc::connect(server.endpoint()).await.expect("the server answers")
}

async fn call(client: &EchoClient) {
    client.echo(Bytes::from_static(&[7; 64])).await.expect("the echo answers");
}

/// Memory of this process that is in use, in bytes; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// One client more, in the mode that is measured.
async fn come(single: bool, server: &Server, connection: &Connection) -> EchoClient {
    if single { alone(server).await } else { session(connection).await }
}

async fn crowd(single: bool, server: &Server, connection: &Connection) -> Vec<EchoClient> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = come(single, server, connection).await;
        call(&client).await;
        clients.push(client);
    }
    clients
}

/// What a client's stay costs, in a process of its own: memory that was freed before would be used again.
fn stay(endpoint: &str, single: bool) {
    let program = std::env::current_exe().expect("a bench is a program");
    let role = format!("{endpoint} {single}");
    let done = std::process::Command::new(program).env(STAY, role).status().expect("it starts");
    assert!(done.success());
}

/// The variable by which a process is told to measure that.
const STAY: &str = "RPC_BENCH_STAY";

fn measure_stay(role: &str) {
    let (endpoint, single) = role.split_once(' ').expect("it was written above");
    let single = single == "true";
    runtime(1).block_on(async {
        let server = serve(endpoint).await;
        let connection = shared(&server).await;
        call(&session(&connection).await).await;
        let before = resident();
        let clients = crowd(single, &server, &connection).await;
        let each = resident().saturating_sub(before) / clients.len();
        eprintln!("modes, {endpoint}, {}/stay: {each} bytes a client", name(single));
    });
}

fn name(single: bool) -> &'static str {
    if single { "one connection each" } else { "one connection for all" }
}

fn modes(c: &mut Criterion) {
    if let Ok(role) = std::env::var(STAY) {
        return measure_stay(&role);
    }
    for (endpoint, single) in ENDPOINTS.into_iter().flat_map(|endpoint| [(endpoint, true), (endpoint, false)]) {
        stay(endpoint, single);
        let runtime = runtime(1);
        let (server, connection, clients) = runtime.block_on(async {
            let server = serve(endpoint).await;
            let connection = shared(&server).await;
            let clients = crowd(single, &server, &connection).await;
            (server, connection, clients)
        });
        let mut group = c.benchmark_group(format!("modes, {endpoint}, {}", name(single)));
        group.sample_size(20);
        group.bench_function("come", |b| {
            b.iter(|| runtime.block_on(async { call(&come(single, &server, &connection).await).await }));
        });
        let mut next = 0;
        group.bench_function("call", |b| {
            b.iter(|| {
                next = (next + 1) % CLIENTS;
                runtime.block_on(call(&clients[next]));
            });
        });
    }
}

criterion_group!(benches, modes);
criterion_main!(benches);
