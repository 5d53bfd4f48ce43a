//! What do the small calls of a session suffer while another session of the same connection misbehaves? Each scene beside an
//! idle connection in the same round, so that what else the machine does is in both.
//!
//! Calls have a rate: each has a time at which it is meant to start, whatever became of those before, and is measured from
//! then on. So a stall is counted for all calls that fall into it. The thread that starts them tells how late it was itself:
//! where that is as much as the calls took, the machine was short of cores. See benches/README.md.
#![allow(clippy::print_stdout, reason = "it is a bench")]

#[allow(dead_code, reason = "of its attacks two are used")]
#[path = "../tests/attacks/attackers.rs"]
mod attackers;
#[allow(dead_code, reason = "it is not looked at from outside")]
#[path = "../tests/attacks/stand.rs"]
mod stand;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use rpc::{Connection, Endpoint, Server, Streaming};
use stand::{Stand, TargetServer, Victim};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

const USAGE: &str =
    "usage: neighbour [SCENE ...] [ENDPOINT] [--rounds N] [--seconds S] [--rate CALLS] [--pace MIB] [--threads N] [--apart]
scenes by parts of their names; --pace holds what the neighbour moves to so many MiB/s, --apart gives it a connection of its own";

/// The body of a small call, in bytes.
const SMALL: usize = 64;

/// An item of a bulk stream, in bytes: four turns of the scheduler.
const ITEM: usize = 64 * 1024;

/// A large message, in bytes, and how many are in flight.
const LARGE: usize = 1024 * 1024;
const LARGE_CALLS: u64 = 8;

/// Streams that nobody reads: with the default windows, twice what their session has credit for.
const STALLED: usize = 16;

/// One call in so many is slow, where some are.
const SLOW: u64 = 100;
const NAP: Duration = Duration::from_millis(50);
const BUSY: Duration = Duration::from_micros(200);

/// What a quiet moment lasts: of the 99th percentiles of each, the median is not moved by what befalls less than half of them.
const MOMENT: Duration = Duration::from_millis(100);

/// Calls before this are made and not counted: buffers, batches and windows have come to their sizes then.
const WARM: Duration = Duration::from_millis(300);

#[rpc::service]
trait Street {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes>;
    async fn nap(&self) -> rpc::Result<()>;
    async fn busy(&self) -> rpc::Result<()>;
    async fn down(&self, pace: u64) -> rpc::Result<Streaming<Bytes>>;
    async fn up(&self, items: Streaming<Bytes>) -> rpc::Result<u64>;
    async fn hold(&self, items: Streaming<Bytes>) -> rpc::Result<()>;
}

struct Houses;

impl Street for Houses {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes> {
        Ok(bytes)
    }

    async fn nap(&self) -> rpc::Result<()> {
        tokio::time::sleep(NAP).await;
        Ok(())
    }

    async fn busy(&self) -> rpc::Result<()> {
        let start = Instant::now();
        while start.elapsed() < BUSY {
            std::hint::spin_loop();
        }
        Ok(())
    }

    async fn down(&self, pace: u64) -> rpc::Result<Streaming<Bytes>> {
        Ok(Streaming::new(bulk(pace)))
    }

    async fn up(&self, mut items: Streaming<Bytes>) -> rpc::Result<u64> {
        let mut bytes = 0;
        while let Some(item) = items.next().await {
            bytes += item?.len() as u64;
        }
        Ok(bytes)
    }

    async fn hold(&self, items: Streaming<Bytes>) -> rpc::Result<()> {
        let _items = items;
        std::future::pending().await
    }
}

/// Waits until `bytes` were to be moved, at `pace` bytes a second; 0: at once.
async fn pause(start: Instant, bytes: u64, pace: u64) {
    if pace > 0 {
        tokio::time::sleep_until((start + Duration::from_secs_f64(bytes as f64 / pace as f64)).into()).await;
    }
}

/// Items without end, as fast as they are taken, or at a pace.
fn bulk(pace: u64) -> impl futures::Stream<Item = Bytes> + Send {
    let (item, start) = (Bytes::from(vec![7; ITEM]), Instant::now());
    futures::stream::unfold(0, move |sent| {
        let item = item.clone();
        async move {
            pause(start, sent, pace).await;
            Some((item, sent + ITEM as u64))
        }
    })
}

/// Who lives beside the victim.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Nobody,
    Down,
    Up,
    Large,
    Stalled,
    /// By its name in `tests/attacks`, on a connection of its own.
    Attacker(&'static str),
}

/// Which of the victim's own calls are slow.
#[derive(Debug, Clone, Copy)]
enum Slow {
    Never,
    Nap,
    Busy,
}

#[derive(Debug, Clone, Copy)]
struct Scene {
    name: &'static str,
    beside: Beside,
    slow: Slow,
    weight: Option<u16>,
    urgency: Option<u8>,
}

const IDLE: Scene = Scene { name: "idle", beside: Beside::Nobody, slow: Slow::Never, weight: None, urgency: None };

/// The rows. A weight of 64 is the most that a server grants by default: four times what others have.
const SCENES: [Scene; 12] = [
    IDLE,
    Scene { name: "bulk down", beside: Beside::Down, ..IDLE },
    Scene { name: "bulk down, victim of weight 64", beside: Beside::Down, weight: Some(64), ..IDLE },
    Scene { name: "bulk down, victim of urgency 0", beside: Beside::Down, urgency: Some(0), ..IDLE },
    Scene { name: "bulk up", beside: Beside::Up, ..IDLE },
    Scene { name: "messages of 1 MiB", beside: Beside::Large, ..IDLE },
    Scene { name: "messages of 1 MiB, victim of urgency 0", beside: Beside::Large, urgency: Some(0), ..IDLE },
    Scene { name: "stalled reader", beside: Beside::Stalled, ..IDLE },
    Scene { name: "own calls that wait", slow: Slow::Nap, ..IDLE },
    Scene { name: "own calls that compute", slow: Slow::Busy, ..IDLE },
    Scene { name: "attack: rapid reset", beside: Beside::Attacker("rapid reset"), ..IDLE },
    Scene { name: "attack: PING flood", beside: Beside::Attacker("PING flood"), ..IDLE },
];

/// What the command line says.
struct Plan {
    scenes: Vec<Scene>,
    endpoint: String,
    rounds: usize,
    seconds: f64,
    rate: f64,
    /// Bytes a second.
    pace: u64,
    threads: usize,
    apart: bool,
}

impl Plan {
    fn parse() -> Self {
        let mut plan = Self {
            scenes: Vec::new(),
            endpoint: "tcp://127.0.0.1:0".into(),
            rounds: 5,
            seconds: 3.0,
            rate: 2000.0,
            pace: 0,
            threads: 1,
            apart: false,
        };
        let mut wanted: Vec<String> = Vec::new();
        let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|number| number.parse::<f64>().ok()).expect(USAGE);
            match &arg[..] {
                "--rounds" => plan.rounds = (number() as usize).max(1),
                "--seconds" => plan.seconds = number().max(0.1),
                "--rate" => plan.rate = number().max(100.0),
                "--pace" => plan.pace = (number() * f64::from(1 << 20)) as u64,
                "--threads" => plan.threads = (number() as usize).max(1),
                "--apart" => plan.apart = true,
                _ if arg.contains("://") => plan.endpoint = arg,
                _ if arg.starts_with("--") => panic!("{USAGE}"),
                _ => wanted.push(arg),
            }
        }
        let asked = |scene: &&Scene| wanted.is_empty() || wanted.iter().any(|name| scene.name.contains(&name[..]));
        plan.scenes = SCENES.iter().filter(asked).copied().collect();
        plan
    }
}

/// The variables by which a process is told to be the server: where it listens, and on how many threads.
const ROLE: &str = "RPC_NEIGHBOUR_SERVER";
const THREADS: &str = "RPC_NEIGHBOUR_THREADS";

fn main() {
    if let Ok(endpoint) = std::env::var(ROLE) {
        let threads = std::env::var(THREADS).ok().and_then(|threads| threads.parse().ok()).expect("it is set below");
        return workers(threads).block_on(serve(&endpoint));
    }
    let plan = Plan::parse();
    let program = std::env::current_exe().expect("a bench is a program");
    let stand = Stand::start(Command::new(program).env(ROLE, &plan.endpoint).env(THREADS, plan.threads.to_string()));
    println!(
        "| scene | p50, µs | p99 | p99.9 | p99 to idle | of moments | p50 to idle | the neighbour moved | the clock's p99 |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut rounds: Vec<Vec<[Figures; 2]>> = plan.scenes.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (scene, rounds) in plan.scenes.iter().zip(&mut rounds) {
            rounds.push([measure(&plan, &stand.endpoint, IDLE), measure(&plan, &stand.endpoint, *scene)]);
        }
    }
    for (scene, rounds) in plan.scenes.iter().zip(&rounds) {
        row(scene, rounds);
    }
}

/// A runtime with so many workers. One is a thread of its own too, so that who starts the calls is not who serves them.
fn workers(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime starts")
}

async fn serve(endpoint: &str) {
    let server = Server::builder().service(StreetServer::new(Houses)).service(TargetServer::new(Victim));
    let server = server.listen(endpoint).await.expect("it can be listened on");
    println!("LISTENS {}", server.endpoint());
    // Whoever measures ends this process.
    std::future::pending().await
}

/// What came of a measurement.
struct Figures {
    /// Microseconds: the median, the 99th percentile, the 999th of a thousand.
    calls: [f64; 3],
    /// The median of the 99th percentiles of all [`MOMENT`]s.
    moment: f64,
    /// The 99th percentile of how late the calls were started.
    late: f64,
    /// MiB a second; of an attacker, thousands of frames.
    moved: f64,
}

fn row(scene: &Scene, rounds: &[[Figures; 2]]) {
    let over = |each: &dyn Fn(&[Figures; 2]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(each).collect();
        values.sort_by(f64::total_cmp);
        (values[(values.len() - 1) / 2], values[0], values[values.len() - 1])
    };
    let middle = |each: &dyn Fn(&[Figures; 2]) -> f64| over(each).0;
    let ratio = |of: fn(&Figures) -> f64| {
        let (ratio, lowest, highest) = over(&|[idle, scene]| of(scene) / of(idle));
        format!("{ratio:.2} ({lowest:.2} to {highest:.2})")
    };
    let moved = middle(&|[_, scene]| scene.moved);
    let moved = match scene.beside {
        Beside::Nobody | Beside::Stalled => "–".into(),
        Beside::Attacker(_) => format!("{:.0} thousand frames/s", moved),
        Beside::Down | Beside::Up => format!("{moved:.0} MiB/s"),
        Beside::Large => format!("{moved:.0} MiB/s each way"),
    };
    println!(
        "| {} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {moved} | {:.0} |",
        scene.name,
        middle(&|[_, scene]| scene.calls[0]),
        middle(&|[_, scene]| scene.calls[1]),
        middle(&|[_, scene]| scene.calls[2]),
        ratio(|figures| figures.calls[1]),
        ratio(|figures| figures.moment),
        ratio(|figures| figures.calls[0]),
        middle(&|[_, scene]| scene.late),
    );
}

/// The value below which so much of them is, in microseconds.
fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6
}

/// A scene, on a connection and a runtime of its own.
fn measure(plan: &Plan, endpoint: &Endpoint, scene: Scene) -> Figures {
    let runtime = workers(plan.threads);
    let moved = Arc::new(AtomicU64::new(0));
    let (client, _connection, mut neighbour) = runtime.block_on(async {
        let connection = Connection::open(endpoint).await.expect("the server answers");
        let session = connection.session();
        let session = if let Some(weight) = scene.weight { session.weight(weight) } else { session };
        let client: StreetClient = session.open().await.expect("the session opens");
        let other = if plan.apart { Connection::open(endpoint).await.expect("the server answers") } else { connection.clone() };
        let beside: StreetClient = other.session().open().await.expect("the session opens");
        let neighbour = move_in(scene.beside, &beside, plan.pace, &moved).await;
        (client, connection, neighbour)
    });
    let attacker = Attacker::start(scene.beside, endpoint, &moved);
    let (mut calls, mut late, elapsed) = victim(plan, runtime.handle(), &client, scene, &moved);
    let moved = moved.load(Ordering::Relaxed);
    drop(attacker);
    // Awaited: what is still polled must not find the connection gone.
    runtime.block_on(neighbour.shutdown());
    runtime.shutdown_timeout(Duration::from_secs(1));
    calls.sort_unstable();
    let mut times: Vec<Duration> = calls.into_iter().map(|(_, took)| took).collect();
    let moment = ((plan.rate * MOMENT.as_secs_f64()) as usize).max(1);
    let mut moments: Vec<f64> = times.chunks_mut(moment).map(|moment| quantile(moment, 0.99)).collect();
    moments.sort_by(f64::total_cmp);
    let unit = if matches!(scene.beside, Beside::Attacker(_)) { 1e3 } else { f64::from(1 << 20) };
    Figures {
        calls: [0.5, 0.99, 0.999].map(|part| quantile(&mut times, part)),
        moment: moments[(moments.len() - 1) / 2],
        late: quantile(&mut late, 0.99),
        moved: moved as f64 / unit / elapsed.as_secs_f64(),
    }
}

/// The victim's calls, each at its time: which it was and how long it took, and how late the thread here started them. What
/// the neighbour moved is counted for as long as they are.
fn victim(
    plan: &Plan,
    runtime: &Handle,
    client: &StreetClient,
    scene: Scene,
    moved: &AtomicU64,
) -> (Vec<(u64, Duration)>, Vec<Duration>, Duration) {
    let count = |time: Duration| (time.as_secs_f64() * plan.rate) as u64;
    let (warm, all) = (count(WARM), count(WARM + Duration::from_secs_f64(plan.seconds)));
    let body = Bytes::from(vec![7; SMALL]);
    let (mut calls, mut late) = (JoinSet::new(), Vec::new());
    let start = Instant::now();
    for n in 0..all {
        let due = start + Duration::from_secs_f64(n as f64 / plan.rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if n == warm {
            moved.store(0, Ordering::Relaxed);
        }
        let (client, body) = (client.clone(), body.clone());
        calls.spawn_on(
            async move {
                match scene.slow {
                    Slow::Nap if n % SLOW == 0 => client.nap().await.expect("the nap ends"),
                    Slow::Busy if n % SLOW == 0 => client.busy().await.expect("the work ends"),
                    _ => {
                        let call = client.echo(body);
                        let call = if let Some(urgency) = scene.urgency { call.urgency(urgency) } else { call };
                        assert_eq!(call.await.expect("the echo answers").len(), SMALL);
                        return (n >= warm).then(|| (n, due.elapsed()));
                    }
                }
                None
            },
            runtime,
        );
        if n >= warm {
            late.push(due.elapsed());
        }
    }
    let elapsed = start.elapsed() - WARM;
    let times = runtime.block_on(calls.join_all());
    (times.into_iter().flatten().collect(), late, elapsed)
}

/// Lets the neighbour do what it does until the handle is dropped, and counts the bytes.
async fn move_in(beside: Beside, client: &StreetClient, pace: u64, moved: &Arc<AtomicU64>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (client, moved) = (client.clone(), Arc::clone(moved));
    match beside {
        Beside::Nobody | Beside::Attacker(_) => {}
        Beside::Down => {
            let mut items = client.down(pace).await.expect("the stream opens");
            tasks.spawn(async move {
                while let Some(item) = items.next().await {
                    moved.fetch_add(item.expect("the stream holds").len() as u64, Ordering::Relaxed);
                }
            });
        }
        Beside::Up => {
            let items = bulk(pace).inspect(move |item| {
                moved.fetch_add(item.len() as u64, Ordering::Relaxed);
            });
            tasks.spawn(async move { drop(client.up(items).await) });
        }
        Beside::Large => {
            for _ in 0..LARGE_CALLS {
                let (client, moved) = (client.clone(), Arc::clone(&moved));
                tasks.spawn(async move {
                    let (body, start) = (Bytes::from(vec![7; LARGE]), Instant::now());
                    for calls in 0.. {
                        pause(start, calls * LARGE as u64, pace / LARGE_CALLS).await;
                        let answer = client.echo(body.clone()).await.expect("the echo answers");
                        moved.fetch_add(answer.len() as u64, Ordering::Relaxed);
                    }
                });
            }
        }
        Beside::Stalled => {
            let mut streams = Vec::new();
            for _ in 0..STALLED {
                streams.push(client.down(0).await.expect("the stream opens"));
            }
            tasks.spawn(async move {
                let held = client.hold(bulk(0)).await;
                drop((held, streams));
            });
        }
    }
    tasks
}

/// An attack that is begun again as soon as it is over, on a thread of its own, until this is dropped.
struct Attacker {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Attacker {
    fn start(beside: Beside, endpoint: &Endpoint, moved: &Arc<AtomicU64>) -> Option<Self> {
        let Beside::Attacker(name) = beside else { return None };
        let attack = attackers::all().into_iter().find(|attack| attack.name == name).expect("it is among them");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, endpoint, moved) = (Arc::clone(&stop), endpoint.clone(), Arc::clone(moved));
        let run = async move {
            while !stopped.load(Ordering::Relaxed) {
                let (ended, frames) = (attack.run)(endpoint.clone()).await;
                assert_eq!(ended, attack.ends, "{}", attack.name);
                moved.fetch_add(frames, Ordering::Relaxed);
            }
        };
        Some(Self { stop, thread: Some(std::thread::spawn(move || workers(1).block_on(run))) })
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))), "an attack went otherwise than it is written");
    }
}
