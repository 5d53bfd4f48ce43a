//! A server in a process of its own, to be looked at from outside, and a client that has done nothing wrong.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rpc::{Endpoint, Limits, Server, Streaming};
use serde::{Deserialize, Serialize};

/// What recurses as deep as its bytes say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tree(Vec<Self>);

/// One byte on the wire where it is absent, a kilobyte in memory.
type Wide = Option<[[u64; 16]; 8]>;

#[rpc::service]
pub(crate) trait Target {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes>;
    async fn hang(&self) -> rpc::Result<()>;
    async fn large(&self, size: u64) -> rpc::Result<Bytes>;
    async fn tree(&self, tree: Tree) -> rpc::Result<u64>;
    async fn units(&self, units: BTreeSet<()>) -> rpc::Result<u64>;
    async fn wide(&self, wide: Vec<Wide>) -> rpc::Result<u64>;
    async fn endless(&self) -> rpc::Result<Streaming<u64>>;
    async fn hold(&self, items: Streaming<Bytes>) -> rpc::Result<()>;
    async fn panics(&self) -> rpc::Result<()>;
    #[rpc(oneway)]
    async fn stay(&self) -> rpc::Result<()>;
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// A handler that runs.
struct Alive;

impl Alive {
    fn new() -> Self {
        PEAK.fetch_max(LIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) struct Victim;

impl Target for Victim {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes> {
        Ok(bytes)
    }

    async fn hang(&self) -> rpc::Result<()> {
        let _alive = Alive::new();
        std::future::pending().await
    }

    async fn large(&self, size: u64) -> rpc::Result<Bytes> {
        Ok(vec![7; size as usize].into())
    }

    async fn tree(&self, tree: Tree) -> rpc::Result<u64> {
        Ok(tree.0.len() as u64)
    }

    async fn units(&self, units: BTreeSet<()>) -> rpc::Result<u64> {
        Ok(units.len() as u64)
    }

    async fn wide(&self, wide: Vec<Wide>) -> rpc::Result<u64> {
        Ok(wide.len() as u64)
    }

    async fn endless(&self) -> rpc::Result<Streaming<u64>> {
        Ok(Streaming::new(futures::stream::iter((0..).map(|n| n + 1))))
    }

    async fn hold(&self, items: Streaming<Bytes>) -> rpc::Result<()> {
        let (_alive, _items) = (Alive::new(), items);
        std::future::pending().await
    }

    async fn panics(&self) -> rpc::Result<()> {
        panic!("on purpose")
    }

    async fn stay(&self) -> rpc::Result<()> {
        let _alive = Alive::new();
        std::future::pending().await
    }
}

/// Longer than anything takes.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// The limits that are tried out: the defaults, with a patience that tests have.
fn limits() -> Limits {
    // Attackers send on without looking at credit: that of the connection is not to end what aims at a session or a call.
    let limits = Limits::default().connection_window(4 << 20);
    limits.handshake(Duration::from_secs(2)).write_stall(Duration::from_secs(2))
}

/// A server within this process, at an endpoint.
pub(crate) async fn serve(endpoint: &str) -> Server {
    Server::builder().service(TargetServer::new(Victim)).limits(limits()).listen(endpoint).await.expect("it listens")
}

/// The server's role. It tells what it holds for each line that it reads, and ends with its input.
pub(crate) fn role() {
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let server = serve("tcp://127.0.0.1:0").await;
        writeln!(std::io::stdout(), "LISTENS {}", server.endpoint()).expect("the test reads on");
        let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).all(|_| asked.send(()).is_ok()));
        while questions.recv().await.is_some() {
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let (live, peak) = (LIVE.load(Ordering::SeqCst), PEAK.load(Ordering::SeqCst));
            writeln!(std::io::stdout(), "HOLDS {live} {peak} {tasks} {}", server.budget().held()).expect("the test reads on");
        }
    });
}

/// What the server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) handlers: u64,
    /// The most that there ever were.
    pub(crate) peak: u64,
    pub(crate) tasks: u64,
    /// Bytes by the server's own account.
    pub(crate) held: u64,
    pub(crate) descriptors: u64,
    /// Bytes of the process that are in memory.
    pub(crate) resident: u64,
    /// Hundredths of a second.
    pub(crate) cpu: u64,
}

/// The process.
pub(crate) struct Stand {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) endpoint: Endpoint,
}

impl Stand {
    /// Starts a command that has the server's role.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("this program starts");
        let questions = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let endpoint = told(&mut answers, "LISTENS ").parse().expect("it tells an endpoint");
        Self { child, questions, answers, endpoint }
    }

    pub(crate) fn look(&mut self) -> Look {
        writeln!(self.questions, "?").expect("the server lives");
        let line = told(&mut self.answers, "HOLDS ");
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let proc = |name: &str| format!("/proc/{}/{name}", self.child.id());
        let read = |name| std::fs::read_to_string(proc(name)).expect("the server lives");
        let pages: u64 = read("statm").split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has seven numbers");
        let stat = read("stat");
        let times = stat.rsplit(") ").next().expect("the name stands in parentheses").split(' ').skip(11).take(2);
        Look {
            handlers: numbers[0],
            peak: numbers[1],
            tasks: numbers[2],
            held: numbers[3],
            descriptors: std::fs::read_dir(proc("fd")).expect("the server lives").count() as u64,
            resident: pages * 4096,
            cpu: times.map(|ticks| ticks.parse::<u64>().expect("a number")).sum(),
        }
    }

    /// Waits until as little is left as there was, and tells how long that took.
    pub(crate) async fn residue(&mut self, before: Look) -> Duration {
        let start = Instant::now();
        loop {
            let now = self.look();
            let left = [now.handlers, now.tasks, now.held, now.descriptors];
            if left == [before.handlers, before.tasks, before.held, before.descriptors] {
                return start.elapsed();
            }
            assert!(start.elapsed() < HANG, "what is left: {now:?}, and before: {before:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rest of the next line that has these words.
fn told(answers: &mut impl BufRead, words: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(answers.read_line(&mut line).expect("the server writes text") > 0, "the server has ended");
        // A test's name may stand in front of it.
        if let Some((_, rest)) = line.split_once(words) {
            return rest.trim().to_owned();
        }
    }
}

/// A client that calls without a pause, and checks each answer.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    calls: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Bystander {
    pub(crate) async fn start(endpoint: &Endpoint) -> Self {
        let client: TargetClient = rpc::connect(endpoint).await.expect("the server listens");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let calls = tokio::spawn(async move {
            let mut times = Vec::new();
            while times.is_empty() || !stopped.load(Ordering::Relaxed) {
                let tag = Bytes::from(format!("call {}", times.len()));
                let start = Instant::now();
                assert_eq!(client.echo(tag.clone()).await.expect("the victim is served"), tag);
                times.push(start.elapsed());
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            times
        });
        Self { stop, calls }
    }

    /// The times of its calls. All were answered rightly.
    pub(crate) async fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.calls.await.expect("the victim was served")
    }
}
