//! The load: a closed loop with so many calls in flight, the same for all. It warms up for a while, knows the rate by then,
//! and makes as many calls as fill the time that it was given.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};
use crate::process::{cpu_seconds, resident, runtime};
use crate::systems::Visit;
use crate::workload::Workload;

/// Sessions that are there in W7.
const IDLE: usize = 10_000;
/// What comes up with the first sessions (connections, pools) is there before the memory is looked at.
const IDLE_BEFORE: usize = 100;

/// What one run is to do.
pub(crate) struct Order {
    pub(crate) address: String,
    pub(crate) workload: Workload,
    /// So many, instead of as many as fill `seconds`.
    pub(crate) calls: Option<u64>,
    pub(crate) seconds: Duration,
    /// The server's process, whose time and memory are asked for.
    pub(crate) server: Option<u32>,
}

pub(crate) struct Drive(pub(crate) Order);

impl Visit for Drive {
    fn visit<N: Neighbour>(self) -> Outcome<()> {
        if let Some((_, reason)) = N::LACKS.iter().find(|(workload, _)| *workload == self.0.workload) {
            return Err(format!("{}: {reason}", N::NAME).into());
        }
        let run =
            async move { if self.0.workload == Workload::W7 { idle::<N>(&self.0).await } else { drive::<N>(&self.0).await } };
        // A task as any other: the future that a runtime blocks on is polled apart from the queue.
        let runtime = runtime()?;
        runtime.block_on(runtime.spawn_local(run))?
    }
}

async fn idle<N: Neighbour>(order: &Order) -> Outcome<()> {
    let server = order.server.ok_or("w7 needs --server")?;
    let count = order.calls.map_or(IDLE, |count| count as usize);
    let first = N::idle(&order.address, IDLE_BEFORE).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = resident(server)?;
    let others = N::idle(&order.address, count).await?;
    // The last ones have come when the server is at rest.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident(server)?.saturating_sub(before);
    println!("bytes={}", grown / count as u64);
    drop((first, others));
    Ok(())
}

async fn drive<N: Neighbour>(order: &Order) -> Outcome<()> {
    let workload = order.workload;
    let (in_flight, size) = (workload.in_flight(), workload.size());
    // Who writes the whole window at once is one caller, and each of its calls counts for all of them.
    let (callers, size, weight) = if N::WHOLE_WINDOW { (1, size * in_flight, in_flight as u64) } else { (in_flight, size, 1) };
    let mut load = Load::<N> {
        workload,
        callers: N::connect(&order.address, callers).await?,
        body: Bytes::from((0..size).map(|at| at as u8).collect::<Vec<_>>()),
    };
    load.verify().await?;

    let fill = |run: &Run| (run.calls as f64 / run.time.as_secs_f64() * order.seconds.as_secs_f64()) as u64;
    let warm = load.for_time(order.seconds.mul_f64(0.25)).await?;
    let mut calls = order.calls.map_or_else(|| fill(&warm), |calls| calls / weight);
    let client = std::process::id();
    let cpu = |pid: Option<u32>| pid.map_or(Ok(0.0), cpu_seconds);
    let (before, mut run, after) = loop {
        let before = (cpu(Some(client))?, cpu(order.server)?);
        let run = load.so_many(calls.max(load.callers.len() as u64)).await?;
        let after = (cpu(Some(client))?, cpu(order.server)?);
        // What the start took may have hidden the rate; it is known by now.
        if order.calls.is_some() || run.time > order.seconds / 2 {
            break (before, run, after);
        }
        calls = fill(&run);
    };

    let calls = run.calls * weight;
    let micros = |seconds: f64| seconds * 1e6 / calls as f64;
    print!("calls={calls} rate={:.3} ", calls as f64 / run.time.as_secs_f64());
    print!("client_us={:.4} server_us={:.4}", micros(after.0 - before.0), micros(after.1 - before.1));
    if let (Some(p50), Some(p99)) = (percentile(&mut run.latencies, 50), percentile(&mut run.latencies, 99)) {
        print!(" p50_us={:.3} p99_us={:.3}", p50.as_secs_f64() * 1e6, p99.as_secs_f64() * 1e6);
    }
    println!();
    Ok(())
}

fn percentile(times: &mut [Duration], percent: usize) -> Option<Duration> {
    let at = (times.len() * percent).div_ceil(100).checked_sub(1)?;
    Some(*times.select_nth_unstable(at).1)
}

/// When a loop ends.
enum End {
    Calls(Cell<u64>),
    Time(Instant),
}

impl End {
    /// Takes the right to one call more.
    fn go_on(&self) -> bool {
        match self {
            Self::Calls(left) => {
                let more = left.get() > 0;
                left.set(left.get().saturating_sub(1));
                more
            }
            Self::Time(end) => Instant::now() < *end,
        }
    }
}

#[derive(Default)]
struct Run {
    calls: u64,
    time: Duration,
    /// Of each call, in W1.
    latencies: Vec<Duration>,
}

struct Load<N> {
    workload: Workload,
    callers: Vec<N>,
    body: Bytes,
}

impl<N: Neighbour> Load<N> {
    /// That what comes back is what was sent, in full; the loops look at lengths only.
    async fn verify(&mut self) -> Outcome<()> {
        let caller = self.callers.first_mut().ok_or("there is no caller")?;
        let same = match self.workload {
            Workload::W6 => {
                let (sent, expected) = (N::Value::from(Nested::sample()), N::Value::from(Nested::sample()));
                caller.nested(&sent).await? == expected
            }
            Workload::W5 => caller.items(1000, 64).await? == 1000,
            _ => {
                let (mut same, body) = (false, self.body.clone());
                caller.echo(&body, |answer| same = answer == body).await?;
                same
            }
        };
        if same { Ok(()) } else { Err(format!("{} answers something else", N::NAME).into()) }
    }

    async fn for_time(&mut self, time: Duration) -> Outcome<Run> {
        if self.workload != Workload::W5 {
            return self.run(End::Time(Instant::now() + time)).await;
        }
        // A stream ends by its length; the next one is as long as all before it.
        let (mut count, start) = (1000, Instant::now());
        loop {
            let run = self.stream(count).await?;
            if start.elapsed() >= time {
                return Ok(run);
            }
            count *= 2;
        }
    }

    async fn so_many(&mut self, calls: u64) -> Outcome<Run> {
        if self.workload == Workload::W5 { self.stream(calls).await } else { self.run(End::Calls(Cell::new(calls))).await }
    }

    async fn stream(&mut self, count: u64) -> Outcome<Run> {
        let caller = self.callers.first_mut().ok_or("there is no caller")?;
        let start = Instant::now();
        let seen = caller.items(count, self.workload.size() as u32).await?;
        if seen != count {
            return Err(format!("{}: {seen} of {count} items came", N::NAME).into());
        }
        Ok(Run { calls: count, time: start.elapsed(), latencies: Vec::new() })
    }

    /// The closed loop: each caller makes its next call when the one before is answered.
    async fn run(&mut self, end: End) -> Outcome<Run> {
        let end = Rc::new(end);
        let start = Instant::now();
        let tasks: Vec<_> = self
            .callers
            .drain(..)
            .map(|caller| tokio::task::spawn_local(callers_loop(caller, self.workload, self.body.clone(), end.clone())))
            .collect();
        let mut run = Run::default();
        for task in tasks {
            let (caller, calls, latencies) = task.await??;
            self.callers.push(caller);
            run.calls += calls;
            run.latencies.extend(latencies);
        }
        run.time = start.elapsed();
        Ok(run)
    }
}

async fn callers_loop<N: Neighbour>(
    mut caller: N,
    workload: Workload,
    body: Bytes,
    end: Rc<End>,
) -> Outcome<(N, u64, Vec<Duration>)> {
    let (mut calls, mut latencies) = (0, Vec::new());
    let value = N::Value::from(Nested::sample());
    while end.go_on() {
        match workload {
            Workload::W6 => drop(caller.nested(&value).await?),
            Workload::W1 => {
                let start = Instant::now();
                echo(&mut caller, &body).await?;
                latencies.push(start.elapsed());
            }
            _ => echo(&mut caller, &body).await?,
        }
        calls += 1;
    }
    Ok((caller, calls, latencies))
}

async fn echo<N: Neighbour>(caller: &mut N, body: &Bytes) -> Outcome<()> {
    let mut whole = false;
    caller.echo(body, |answer| whole = answer.len() == body.len()).await?;
    if whole { Ok(()) } else { Err(format!("{}: an answer has another length", N::NAME).into()) }
}
