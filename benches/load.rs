//! Both sides of the workloads as processes of their own, to be counted from outside: `serve` and `drive`. See
//! benches/README.md; `benches/count.sh` runs it under callgrind and strace.
#![allow(clippy::print_stdout, reason = "it is a program")]

mod common;

use std::time::Instant;

use bytes::Bytes;
use common::{EchoClient, EchoServer, Echoes, echo_calls, nested_calls, runtime};

const USAGE: &str = "usage: load serve [THREADS] | load drive ENDPOINT WORKLOAD COUNT [THREADS]
workloads: w1 w2 w3 (echo of 64 bytes, 1, 64, 1024 in flight), w4 (echo of 1 MiB, 8 in flight),
           w5 (items of 64 bytes down), up (items up), w6 (nested struct, 64 in flight), note (one-way)";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let threads = |at: usize| args.get(at).and_then(|threads| threads.parse().ok()).unwrap_or(1);
    match args.first() {
        Some(&"serve") => runtime(threads(1)).block_on(serve()),
        Some(&"drive") if args.len() >= 4 => {
            let count = args[3].parse().expect(USAGE);
            runtime(threads(4))
                .block_on(async { tokio::spawn(drive(args[1].to_owned(), args[2].to_owned(), count)).await })
                .expect(USAGE);
        }
        // `cargo bench` runs every bench without arguments.
        _ => println!("{USAGE}"),
    }
}

async fn serve() {
    let server =
        rpc::Server::builder().service(EchoServer::new(Echoes)).listen("tcp://127.0.0.1:0").await.expect("loopback listens");
    println!("{}", server.endpoint());
    // The driver of a measurement closes our standard input when it is done.
    let mut line = String::new();
    let _ = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await;
    server.shutdown().await;
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
    let seconds = start.elapsed().as_secs_f64();
    println!("{workload}: {count} in {seconds:.3} s, {:.0}/s", count as f64 / seconds);
}
