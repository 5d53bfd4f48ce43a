//! The tokio half over a simulated network: a server that is restarted, a client that calls on, and between them links that
//! break in one direction or both, or hold what is under way. A run is a function of its seed; each has a process of its
//! own. `RPC_SEEDS=n` sets how many there are, and `RPC_SEED=n cargo test --test turmoil -- --exact one_seed --ignored
//! --nocapture` repeats one.

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use rpc::{BoxFuture, Connected, Connection, Endpoint, Fault, Incoming, Limits, Listener, Peer, Server, Streaming};
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

#[rpc::service]
trait Counter {
    /// Counts the ticket, after a while.
    async fn redeem(&self, ticket: u64, after_ms: u64) -> rpc::Result<u64>;
    /// The same, in items.
    async fn redeem_slowly(&self, ticket: u64, items: u64) -> rpc::Result<Streaming<u64>>;
    /// So many items of 16 KiB, as fast as they are taken.
    async fn read(&self, items: u64) -> rpc::Result<Streaming<Bytes>>;
    /// Takes items as fast as they come, and yields how many came.
    async fn write(&self, items: Streaming<Bytes>) -> rpc::Result<u64>;
}

/// How often each ticket was counted: it outlives the server's restarts.
type Counted = Arc<Mutex<BTreeMap<u64, u32>>>;

struct Desk(Counted);

impl Desk {
    fn count(&self, ticket: u64) {
        *self.0.lock().unwrap().entry(ticket).or_default() += 1;
    }
}

impl Counter for Desk {
    async fn redeem(&self, ticket: u64, after_ms: u64) -> rpc::Result<u64> {
        self.count(ticket);
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        Ok(ticket)
    }

    async fn redeem_slowly(&self, ticket: u64, items: u64) -> rpc::Result<Streaming<u64>> {
        self.count(ticket);
        let slowly = stream::iter(0..items).then(|n| async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            n
        });
        Ok(Streaming::new(slowly))
    }

    async fn read(&self, items: u64) -> rpc::Result<Streaming<Bytes>> {
        Ok(Streaming::new(blocks(items)))
    }

    async fn write(&self, items: Streaming<Bytes>) -> rpc::Result<u64> {
        Ok(items.fold(0, |count, _| async move { count + 1 }).await)
    }
}

fn blocks(items: u64) -> impl Stream<Item = Bytes> {
    let block = Bytes::from(vec![7; 16 * 1024]);
    stream::iter((0..items).map(move |_| block.clone()))
}

/// Where clients of the simulated network come in.
struct Door(TcpListener);

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            Ok(Incoming::ready(Connected::new(stream, Peer::new(format!("tcp://{peer}")))))
        })
    }

    fn endpoint(&self) -> Endpoint {
        "tcp://192.168.0.1:7000".parse().expect("it is an endpoint")
    }
}

fn limits() -> Limits {
    let quick = Duration::from_millis(300);
    Limits::default().keepalive_interval(quick).keepalive_timeout(quick).handshake(quick).write_stall(quick)
}

async fn serve(counted: Counted, limits: Limits) -> Result<(), Box<dyn Error>> {
    let door = Door(TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), 7000)).await?);
    let server = Server::builder().service(CounterServer::new(Desk(counted))).limits(limits).serve(door)?;
    server.wait().await;
    Ok(())
}

async fn dial(limits: Limits) -> Result<CounterClient, Box<dyn Error>> {
    let stream = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect("server:7000")).await??;
    let connected = Connected::new(stream, Peer::new("tcp://server:7000"));
    let connection = Connection::builder().limits(limits).open_over(connected).await?;
    Ok(connection.session().open().await?)
}

/// What a caller knows of its ticket in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Known {
    Answered,
    NotRun,
    Unknown,
}

/// What happened, and when, in milliseconds of the simulated time.
#[derive(Default)]
struct Trace {
    known: BTreeMap<u64, Known>,
    hash: DefaultHasher,
    tries: u64,
}

/// A caller's way of trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// What is known not to have run.
    NotRun,
    /// Whatever failed: the mistake that the runs must notice.
    Blindly,
}

fn kind_of(ticket: u64) -> u64 {
    ticket % 4
}

async fn try_ticket(client: &CounterClient, ticket: u64) -> Result<(), Fault> {
    let fault = |error: rpc::Error| error.fault().cloned().expect("the methods have no errors of their own");
    if kind_of(ticket) == 0 {
        let mut items = client.redeem_slowly(ticket, 20).timeout(Duration::from_millis(900)).await.map_err(fault)?;
        let mut next = 0;
        while let Some(item) = items.next().await {
            assert_eq!(item.map_err(fault)?, next, "items come in order, and none twice");
            next += 1;
        }
        assert_eq!(next, 20, "no item is lost behind an orderly end");
        return Ok(());
    }
    let answer = client.redeem(ticket, ticket * 7 % 60).timeout(Duration::from_millis(900)).await.map_err(fault)?;
    assert_eq!(answer, ticket, "the answer is that of this call");
    Ok(())
}

/// Redeems every ticket of one caller, over as many connections as it takes.
async fn redeem_all(caller: u64, tickets: u64, retry: Retry, trace: Arc<Mutex<Trace>>) {
    let mut client = None;
    for ticket in (0..tickets).map(|n| n * 10 + caller) {
        loop {
            let Some(open) = client.take() else {
                client = dial(limits()).await.ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let result = tokio::time::timeout(Duration::from_secs(5), try_ticket(&open, ticket)).await;
            let result = result.unwrap_or_else(|_| panic!("call {ticket} did not end"));
            let known = match &result {
                Ok(()) => Known::Answered,
                Err(fault) if fault.may_have_run() => Known::Unknown,
                Err(_) => Known::NotRun,
            };
            let at = turmoil::sim_elapsed().expect("it is simulated");
            let mut trace = trace.lock().unwrap();
            (ticket, known, result.as_ref().map_err(Fault::kind), at).hash(&mut trace.hash);
            trace.tries += 1;
            trace.known.insert(ticket, known);
            drop(trace);
            if result.is_ok() {
                client = Some(open);
            }
            let again = retry == Retry::Blindly && known == Known::Unknown || known == Known::NotRun;
            if !again {
                break;
            }
        }
    }
}

/// A small generator (splitmix64), so that what befalls the network is a function of the seed too.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// What befalls the network for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Partition,
    /// The link goes silent in one direction.
    HalfOpen(&'static str, &'static str),
    Hold,
    /// The server's process is gone, and another one comes.
    Restart,
}

impl Trouble {
    fn any(rng: &mut Rng) -> Self {
        match rng.below(5) {
            0 => Self::Partition,
            1 => Self::HalfOpen("client", "server"),
            2 => Self::HalfOpen("server", "client"),
            3 => Self::Hold,
            _ => Self::Restart,
        }
    }

    fn begin(self, sim: &mut Sim<'_>) {
        match self {
            Self::Partition => sim.partition("client", "server"),
            Self::HalfOpen(from, to) => sim.partition_oneway(from, to),
            Self::Hold => sim.hold("client", "server"),
            Self::Restart => sim.crash("server"),
        }
    }

    fn end(self, sim: &mut Sim<'_>) {
        match self {
            Self::Partition => sim.repair("client", "server"),
            Self::HalfOpen(from, to) => sim.repair_oneway(from, to),
            Self::Hold => sim.release("client", "server"),
            Self::Restart => sim.bounce("server"),
        }
    }
}

/// Tickets of each of three callers.
const TICKETS: u64 = 40;

/// Runs a seed, and yields the hash of its trace, or what is wrong.
fn run(seed: u64, retry: Retry) -> Result<u64, String> {
    let mut builder = Builder::new();
    builder.rng_seed(seed).tick_duration(Duration::from_millis(1)).simulation_duration(Duration::from_secs(300));
    builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(10));
    // More than a window: turmoil ends a connection whose receiver is behind by as many segments.
    builder.tcp_capacity(4096);
    let mut sim = builder.build();
    let (counted, trace) = (Counted::default(), Arc::<Mutex<Trace>>::default());
    let counting = Arc::clone(&counted);
    sim.host("server", move || serve(Arc::clone(&counting), limits()));
    let tracing = Arc::clone(&trace);
    sim.client("client", async move {
        let callers = (0..3).map(|caller| tokio::spawn(redeem_all(caller, TICKETS, retry, Arc::clone(&tracing))));
        for caller in callers.collect::<Vec<_>>() {
            caller.await?;
        }
        Ok(())
    });

    let mut rng = Rng(seed);
    let mut troubles = 0;
    loop {
        let quiet = 50 + rng.below(400);
        if steps(&mut sim, quiet)? {
            break;
        }
        if troubles < 12 {
            troubles += 1;
            let trouble = Trouble::any(&mut rng);
            trouble.begin(&mut sim);
            let over = steps(&mut sim, 50 + rng.below(1500))?;
            trouble.end(&mut sim);
            if over {
                break;
            }
        }
    }
    let trace = trace.lock().unwrap();
    let counted = counted.lock().unwrap();
    if trace.known.len() as u64 != 3 * TICKETS {
        return Err(format!("{} tickets have an outcome", trace.known.len()));
    }
    for (ticket, known) in &trace.known {
        let times = counted.get(ticket).copied().unwrap_or_default();
        let right = match known {
            Known::Answered => times == 1,
            Known::NotRun => times == 0,
            Known::Unknown => times <= 1,
        };
        if !right {
            return Err(format!("ticket {ticket} is {known:?} and was counted {times} times"));
        }
    }
    if trace.tries == 3 * TICKETS && trace.known.values().all(|known| *known == Known::Answered) {
        return Err("nothing went wrong in this run, so it shows nothing".to_owned());
    }
    let mut hash = trace.hash.clone();
    counted.hash(&mut hash);
    Ok(hash.finish())
}

/// Whether the client is done.
fn steps(sim: &mut Sim<'_>, n: u64) -> Result<bool, String> {
    for _ in 0..n {
        if sim.step().map_err(|error| error.to_string())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// One seed, in a process of its own; its trace's hash is the last line.
#[test]
#[ignore = "the others run it, each time in a process of its own"]
fn one_seed() {
    let seed = number("RPC_SEED").unwrap_or(0);
    let retry = if std::env::var_os("RPC_RETRY_BLINDLY").is_some() { Retry::Blindly } else { Retry::NotRun };
    match run(seed, retry) {
        Ok(hash) => eprintln!("\ntrace {hash:016x}"),
        Err(fault) => panic!("RPC_SEED={seed}: {fault}"),
    }
}

/// Starts a seed in a process of its own, with this variable set, and waits for the hash of its trace, or its last words.
fn in_a_process(seed: u64, variable: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.args(["--exact", "one_seed", "--ignored", "--nocapture"]).env("RPC_SEED", seed.to_string());
    if let Some(variable) = variable {
        command.env(variable, "1");
    }
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("trace ")) {
        Some(hash) if output.status.success() => Ok(hash.to_owned()),
        _ => Err(text),
    }
}

#[test]
fn whatever_befalls_the_network_each_call_has_one_right_outcome_and_runs_at_most_once() {
    for seed in 0..number("RPC_SEEDS").unwrap_or(6) {
        in_a_process(seed, None).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

#[test]
fn the_same_seed_runs_the_same_way_in_another_process() {
    let [first, second, other] = [100, 100, 101].map(|seed| in_a_process(seed, None).unwrap_or_else(|fault| panic!("{fault}")));
    assert_eq!(first, second);
    assert_ne!(first, other, "the trace depends on the seed");
}

/// A test of the test: a caller that tries again whatever failed is noticed.
#[test]
fn calls_that_are_made_again_blindly_are_noticed() {
    let noticed = |seed| in_a_process(seed, Some("RPC_RETRY_BLINDLY")).is_err_and(|fault| fault.contains("was counted"));
    assert!((0..6).any(noticed));
}

/// How long it takes to move 16 MiB down and then up over a path whose round trip is 100 ms, with these limits at the server
/// and these at the client, in simulated milliseconds.
fn long_path(server: Limits, client: Limits) -> [u128; 2] {
    const ITEMS: u64 = 1024;
    let mut builder = Builder::new();
    builder.tick_duration(Duration::from_millis(1)).simulation_duration(Duration::from_secs(600)).tcp_capacity(1 << 20);
    builder.min_message_latency(Duration::from_millis(50)).max_message_latency(Duration::from_millis(50));
    let mut sim = builder.build();
    sim.host("server", move || serve(Counted::default(), server.clone()));
    let took = Arc::new(Mutex::new([0; 2]));
    let taken = Arc::clone(&took);
    sim.client("client", async move {
        let client = dial(client).await?;
        let start = tokio::time::Instant::now();
        let items = client.read(ITEMS).await?.fold(0, |count, item| async move { count + u64::from(item.is_ok()) }).await;
        assert_eq!(items, ITEMS);
        let down = start.elapsed().as_millis();
        assert_eq!(client.write(blocks(ITEMS)).await?, ITEMS);
        *taken.lock().unwrap() = [down, start.elapsed().as_millis() - down];
        Ok(())
    });
    sim.run().expect("the client has its items");
    *took.lock().unwrap()
}

#[test]
fn windows_grow_with_the_path_on_either_side_as_far_as_the_budget_of_the_server_lets_them() {
    let fixed = |limits: Limits| {
        let windows = (limits.stream_window, limits.session_window, limits.connection_window);
        limits.max_stream_window(windows.0).max_session_window(windows.1).max_connection_window(windows.2)
    };
    let [held_down, held_up] = long_path(fixed(Limits::default()), fixed(Limits::default()));
    let [down, up] = long_path(Limits::default(), Limits::default());
    // 16 MiB are 64 windows of a stream, so 64 round trips; windows that double each time need eight or so.
    assert!(held_down > 5000 && held_up > 5000, "{held_down} and {held_up} ms with windows that do not grow");
    assert!(down * 3 < held_down && up * 3 < held_up, "{down} and {up} ms, and {held_down} and {held_up} without growth");
    // A server whose budget has room for one doubling and no more.
    let [_, up_bounded] = long_path(Limits::default().memory(1 << 20), Limits::default());
    assert!(up_bounded > 2 * up, "{up_bounded} ms where the server has no memory to spare, {up} where it has");
}
