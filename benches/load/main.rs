//! Both sides of the workloads as processes of their own, to be counted from outside: `serve` and `drive`; `serve-mux` and
//! `drive-mux` are those of the neighbour. See benches/README.md; `benches/count.sh` runs it under callgrind and strace,
//! `benches/ratio.sh` runs both systems side by side.
#![allow(clippy::print_stdout, reason = "it is a program")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/mux.rs"]
mod mux;

use std::time::Instant;

use bytes::Bytes;
use common::{EchoClient, EchoServer, Echoes, echo_calls, nested_calls, runtime};
use tokio::net::TcpListener;

const USAGE: &str = "usage: load serve [THREADS [ENDPOINT]] | load drive ENDPOINT WORKLOAD COUNT [THREADS]
       load serve-mux [THREADS] | load drive-mux ENDPOINT w1|w2|w3|w4 COUNT [THREADS]
workloads: w1 w2 w3 (echo of 64 bytes, 1, 64, 1024 in flight), w4 (echo of 1 MiB, 8 in flight),
           w5 (items of 64 bytes down), up (items up), w6 (nested struct, 64 in flight), note (one-way)";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let threads = |at: usize| args.get(at).and_then(|threads| threads.parse().ok()).unwrap_or(1);
    match args.first() {
        Some(&"serve") => runtime(threads(1)).block_on(serve(args.get(2).unwrap_or(&"tcp://127.0.0.1:0"))),
        Some(&"serve-mux") => runtime(threads(1)).block_on(serve_mux()),
        Some(&side @ ("drive" | "drive-mux")) if args.len() >= 4 => {
            let (endpoint, workload) = (args[1].to_owned(), args[2].to_owned());
            let count = args[3].parse().expect(USAGE);
            runtime(threads(4))
                .block_on(async {
                    match side {
                        "drive" => tokio::spawn(drive(endpoint, workload, count)).await,
                        _ => tokio::spawn(drive_mux(endpoint, workload, count)).await,
                    }
                })
                .expect(USAGE);
        }
        _ => println!("{USAGE}"),
    }
}

async fn serve(endpoint: &str) {
    let server = rpc::Server::builder().service(EchoServer::new(Echoes)).listen(endpoint).await.expect("it can be listened on");
    println!("{}", server.endpoint());
    until_done().await;
    server.shutdown().await;
}

async fn serve_mux() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback listens");
    println!("tcp://{}", listener.local_addr().expect("it is bound"));
    tokio::select! {
        ended = mux::serve(listener) => ended.expect("loopback accepts"),
        () = until_done() => {}
    }
}

/// The driver of a measurement closes our standard input when it is done.
async fn until_done() {
    let mut line = String::new();
    let _ = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await;
}

async fn drive(endpoint: String, workload: String, count: u64) {
    let connection = rpc::Connection::open(&endpoint).await.expect("the server answers");
    let client: EchoClient = connection.session().open().await.expect("the session opens");
    let start = Instant::now();
    match workload.as_str() {
        "w1" => {
            let body = Bytes::from(vec![7; 64]);
            for _ in 0..count {
                client.echo(body.clone()).await.expect("the echo answers");
            }
        }
        "w2" => echo_calls(&client, count, 64, 64).await,
        "w3" => echo_calls(&client, count, 1024, 64).await,
        "w4" => echo_calls(&client, count, 8, 1 << 20).await,
        "w5" => {
            let mut items = client.items(count, 64).await.expect("the stream opens");
            let mut seen = 0;
            while let Some(item) = items.next().await {
                seen += u64::from(item.expect("the stream holds").len() == 64);
            }
            assert_eq!(seen, count);
        }
        "up" => {
            let item = Bytes::from(vec![7; 64]);
            let items = futures::stream::iter((0..count).map(move |_| item.clone()));
            assert_eq!(client.collect(items).await.expect("the stream is taken"), count * 64);
        }
        "w6" => nested_calls(&client, count).await,
        "note" => {
            let body = Bytes::from(vec![7; 64]);
            for _ in 0..count {
                client.note(body.clone()).await.expect("it is sent");
            }
            client.echo(body).await.expect("the echo answers");
        }
        other => panic!("no workload {other}; {USAGE}"),
    }
    report(&workload, count, start);
}

async fn drive_mux(endpoint: String, workload: String, count: u64) {
    let address = endpoint.strip_prefix("tcp://").expect(USAGE);
    let (client, running) = mux::Client::connect(address).await.expect("the server answers");
    let (in_flight, size) = match workload.as_str() {
        "w1" => (1, 64),
        "w2" => (64, 64),
        "w3" => (1024, 64),
        "w4" => (8, 1 << 20),
        other => panic!("no workload {other} of the multiplexer; {USAGE}"),
    };
    let start = Instant::now();
    tokio::select! {
        () = mux_calls(&client, count, in_flight, size) => {}
        ended = running => panic!("the connection ended: {ended:?}"),
    }
    report(&workload, count, start);
}

/// What `echo_calls` is to `rpc`.
async fn mux_calls(client: &mux::Client, calls: u64, in_flight: u64, size: usize) {
    let body = Bytes::from(vec![7; size]);
    let callers: Vec<_> = (0..in_flight)
        .map(|caller| {
            let (client, body) = (client.clone(), body.clone());
            let share = calls / in_flight + u64::from(caller < calls % in_flight);
            tokio::spawn(async move {
                for _ in 0..share {
                    assert_eq!(client.echo(&body).await.len(), body.len());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
}

fn report(workload: &str, count: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{workload}: {count} in {seconds:.3} s, {:.0}/s", count as f64 / seconds);
}
