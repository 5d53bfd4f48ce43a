//! Many sessions on one connection: two services behind one listener, fifty sessions side by side, and one whose reader
//! is slow, which holds up nobody but itself.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::stream;
use rpc::{Connection, Server, Streaming};
use tokio::time::sleep;

#[rpc::service]
trait Adder {
    async fn add(&self, a: u64, b: u64) -> rpc::Result<u64>;
}

#[rpc::service]
trait Logs {
    async fn follow(&self) -> rpc::Result<Streaming<String>>;
}

struct Sums;

impl Adder for Sums {
    async fn add(&self, a: u64, b: u64) -> rpc::Result<u64> {
        Ok(a + b)
    }
}

/// An endless log that counts what it handed out.
struct Endless {
    handed_out: Arc<AtomicU64>,
}

impl Logs for Endless {
    async fn follow(&self) -> rpc::Result<Streaming<String>> {
        let handed_out = Arc::clone(&self.handed_out);
        let line = move |_| format!("line {:>1000}", handed_out.fetch_add(1, Relaxed));
        Ok(Streaming::new(stream::iter((0u64..).map(line))))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let handed_out = Arc::new(AtomicU64::new(0));
    let logs = Endless { handed_out: Arc::clone(&handed_out) };
    let server =
        Server::builder().service(AdderServer::new(Sums)).service(LogsServer::new(logs)).listen("tcp://127.0.0.1:0").await?;
    let connection = Connection::open(server.endpoint()).await?;

    // A session that takes one line and no more. Its window, 64 KiB here, is all that the server sends it ahead.
    let logs: LogsClient = connection.session().window(64 * 1024).open().await?;
    let mut slow = logs.follow().await?;
    assert!(slow.next().await.expect("the log is endless")?.ends_with(" 0"));
    let ahead = settled(&handed_out).await;
    println!("the server made {ahead} lines of 1 kB for the slow reader, and waits");
    assert!(ahead < 300);

    // Meanwhile fifty other sessions on the same connection work undisturbed.
    let start = Instant::now();
    let sessions = (0..50).map(|session| {
        let connection = connection.clone();
        async move {
            let adder: AdderClient = connection.session().open().await?;
            let mut sum = 0;
            for step in 0..100 {
                sum = adder.add(sum, session * step).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(sum)
        }
    });
    let sums = try_join_all(sessions).await?;
    println!("fifty sessions made 100 calls each in {:.0?}", start.elapsed());
    assert_eq!(sums[49], 49 * (0..100).sum::<u64>());
    assert_eq!(handed_out.load(Relaxed), ahead);

    // The slow reader goes on where it stopped, and nothing was lost.
    for number in 1..1000 {
        assert!(slow.next().await.expect("the log is endless")?.ends_with(&format!(" {number}")));
    }
    Ok(())
}

/// The count once it stands still.
async fn settled(count: &AtomicU64) -> u64 {
    loop {
        let before = count.load(Relaxed);
        sleep(Duration::from_millis(100)).await;
        if count.load(Relaxed) == before {
            return before;
        }
    }
}
