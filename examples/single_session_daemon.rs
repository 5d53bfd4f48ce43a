//! A daemon of the machine and its clients, each alone on its connection: nothing is shared between them, so one that floods
//! or dies takes nobody along, and the system itself says who each is. This program starts itself as the daemon.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rpc::{Code, Connection, ConnectionError, OpenError, Server};

#[rpc::service]
trait Counter {
    /// Adds, and tells the sum.
    async fn add(&self, n: u64) -> rpc::Result<u64>;
    /// Which process answers.
    async fn process(&self) -> rpc::Result<u32>;
}

#[derive(Default)]
struct Sum(AtomicU64);

impl Counter for Sum {
    async fn add(&self, n: u64) -> rpc::Result<u64> {
        Ok(self.0.fetch_add(n, Ordering::Relaxed) + n)
    }

    async fn process(&self) -> rpc::Result<u32> {
        Ok(std::process::id())
    }
}

/// Serves until its standard input ends: the daemon goes when the program that started it goes.
async fn daemon(endpoint: &str) -> Result<(), Box<dyn Error>> {
    let counter = CounterServer::new(Sum::default());
    let server = Server::builder().service(counter).single_session_only().listen(endpoint).await?;
    writeln!(std::io::stdout(), "{}", server.endpoint())?;
    server.drain_on(async { drop(tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await) }).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(endpoint) = std::env::args().nth(1) {
        return daemon(&endpoint).await;
    }
    // A named pipe on Windows, a Unix socket in a private directory elsewhere.
    let endpoint = format!("local://rpc-daemon-{}", std::process::id());
    let mut command = Command::new(std::env::current_exe()?);
    let mut daemon = command.arg(&endpoint).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut listening = String::new();
    BufReader::new(daemon.stdout.take().expect("it is piped")).read_line(&mut listening)?;
    assert_eq!(listening.trim(), endpoint);

    // Each client has a connection of its own, and no session id on the wire.
    let (one, two): (CounterClient, CounterClient) = (rpc::connect(&*endpoint).await?, rpc::connect(&*endpoint).await?);
    assert_eq!(one.process().await?, daemon.id());
    assert_eq!((one.add(2).await?, two.add(3).await?), (2, 5));

    // The daemon wants it so: a client that would share a connection is told.
    match Connection::open(&*endpoint).await {
        Err(OpenError::Connection(ConnectionError::Rejected { reason, .. })) => {
            println!("refused: {reason}");
            assert_eq!(reason.code, Code::MODE);
        }
        other => panic!("{other:?}"),
    }

    // One that ends leaves the other where it was.
    drop(one);
    assert_eq!(two.add(1).await?, 6);
    println!("the daemon, process {}, counted to 6", daemon.id());

    drop(daemon.stdin.take());
    assert!(daemon.wait()?.success());
    Ok(())
}
