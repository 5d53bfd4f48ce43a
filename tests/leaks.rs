//! Nothing is left of connections: tasks, open files and memory are back where they were after many cycles of connecting,
//! calling and killing. 1,000 cycles unless `RPC_LEAK_CYCLES` says otherwise; for 100,000 build with `--release`. It has a
//! process of its own, because it counts what the process has.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use rpc::{Connection, Server, Streaming};
use tokio::runtime::Handle;

#[rpc::service]
trait Work {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes>;
    async fn hang(&self) -> rpc::Result<()>;
    async fn count(&self) -> rpc::Result<Streaming<u64>>;
}

struct Worker;

impl Work for Worker {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes> {
        Ok(bytes)
    }

    async fn hang(&self) -> rpc::Result<()> {
        std::future::pending().await
    }

    async fn count(&self) -> rpc::Result<Streaming<u64>> {
        Ok(Streaming::new(stream::iter(0..)))
    }
}

/// What the process has.
#[derive(Debug, Clone, Copy)]
struct Held {
    tasks: usize,
    files: usize,
    /// Bytes of memory.
    memory: usize,
}

impl Held {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("it is Linux");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is told");
        let kib: usize = resident.trim().trim_end_matches(" kB").trim().parse().expect("a number");
        let files = fs::read_dir("/proc/self/fd").expect("it is Linux").count();
        Self { tasks: Handle::current().metrics().num_alive_tasks(), files, memory: kib * 1024 }
    }

    /// What is there once tasks and files are down to those of `level`, or have not become so.
    async fn settled(level: Self) -> Self {
        let start = Instant::now();
        loop {
            let held = Self::now();
            if (held.tasks <= level.tasks && held.files <= level.files) || start.elapsed() > Duration::from_secs(20) {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Connects, calls, and ends in one of the ways in which it may end.
async fn cycle(server: &Server, n: u64) {
    let connection = Connection::open(server.endpoint()).await.expect("the server is there");
    let client: WorkClient = connection.session().open().await.expect("it has the service");
    let size = if n.is_multiple_of(50) { 200_000 } else { 100 };
    assert_eq!(client.echo(vec![n as u8; size].into()).await.expect("it answers").len(), size);
    match n % 5 {
        // In good order.
        0 => connection.close().await,
        // In the middle of a call.
        1 => {
            let hanging = client.hang();
            let _ = tokio::time::timeout(Duration::from_millis(1), hanging).await;
        }
        // In the middle of a stream that nobody reads.
        2 => {
            let mut items = client.count().await.expect("it streams");
            assert_eq!(items.next().await, Some(Ok(0)));
        }
        // With a call that is made, and nobody there for its answer.
        3 => {
            let call = tokio::spawn(async move { client.hang().await });
            tokio::task::yield_now().await;
            call.abort();
        }
        // Many sessions, one aborted.
        _ => {
            let other: WorkClient = connection.session().open().await.expect("there may be more");
            rpc::Session::of(&other).expect("it is on a connection").abort("enough");
        }
    }
}

/// One test at a time: they count what the process has.
static ALONE: Mutex<()> = Mutex::new(());

/// Memory that an allocator may keep for itself, and does not give back.
const SLACK: usize = 8 << 20;

/// Cycles before the level is taken: pools and buffers are filled by then.
const WARM_UP: u64 = 300;

#[test]
fn nothing_is_left_of_connections_that_came_and_went() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cycles: u64 = std::env::var("RPC_LEAK_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let server = Server::builder().service(WorkServer::new(Worker)).listen("tcp://127.0.0.1:0").await.expect("it listens");
        let alone = Held::now();
        for n in 0..WARM_UP {
            cycle(&server, n).await;
        }
        let level = Held::settled(alone).await;
        let mut at = vec![level];
        for part in 0..4 {
            for n in 0..cycles / 4 {
                cycle(&server, part * (cycles / 4) + n).await;
            }
            at.push(Held::settled(alone).await);
            eprintln!("{} of {cycles} cycles: {:?}; before: {alone:?}", (part + 1) * (cycles / 4), at.last());
        }
        for held in &at {
            assert_eq!((held.tasks, held.files), (alone.tasks, alone.files), "tasks and files are back: {at:?}");
        }
        let last = at[at.len() - 1];
        assert!(last.memory <= level.memory + SLACK, "memory is back: {at:?}");
    });
}

/// A test of the test: what is kept is seen.
#[test]
fn a_connection_that_is_kept_is_seen() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let server = Server::builder().service(WorkServer::new(Worker)).listen("tcp://127.0.0.1:0").await.expect("it listens");
        let alone = Handle::current().metrics().num_alive_tasks();
        let kept = Connection::open(server.endpoint()).await.expect("the server is there");
        // The driver of each side.
        assert_eq!(Handle::current().metrics().num_alive_tasks(), alone + 2);
        kept.close().await;
    });
}
