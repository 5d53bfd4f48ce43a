//! The whole measurement: every system and every workload once in a round, one after the other, then the next round. What
//! else the machine does changes from minute to minute, and so it meets all of them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::neighbour::Outcome;
use crate::systems::{self, About};
use crate::table::{Cell, Results, Sample};
use crate::workload::Workload;
use crate::{Arguments, plot, table};

/// Where plots belong if they are of a full run.
const PLOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plots");

/// How much is measured.
struct Plan {
    systems: Vec<About>,
    workloads: Vec<Workload>,
    rounds: usize,
    seconds: f64,
    /// In W7, instead of the usual number.
    sessions: Option<u64>,
    cores: [usize; 2],
    plots: Option<PathBuf>,
}

impl Plan {
    fn new(words: &Arguments) -> Outcome<Self> {
        let quick = words.text("quick").is_some();
        let names: Vec<&str> =
            if words.plain.is_empty() { systems::names() } else { words.plain.iter().map(String::as_str).collect() };
        let workloads = match words.text("workloads") {
            Some(list) => list.split(',').map(Workload::find).collect::<Result<_, _>>()?,
            None => Workload::ALL.to_vec(),
        };
        let core = |name: &str, default: usize| std::env::var(name).map_or(Ok(default), |core| core.parse());
        // Rough figures stay away from where the good ones are.
        let plots = words.text("plots").map(PathBuf::from).or((!quick).then(|| PLOTS.into()));
        Ok(Self {
            systems: names.into_iter().map(systems::about).collect::<Outcome<_>>()?,
            workloads,
            rounds: words.number("rounds")?.unwrap_or(if quick { 2 } else { 5 }),
            seconds: words.number("seconds")?.unwrap_or(if quick { 0.3 } else { 2.0 }),
            sessions: quick.then_some(1000),
            cores: [core("SERVER", 0)?, core("CLIENT", 1)?],
            plots,
        })
    }
}

pub(crate) fn compare(words: &Arguments) -> Outcome<()> {
    let plan = Plan::new(words)?;
    let mut results = Results::new(&plan.systems, &plan.workloads);
    for round in 0..plan.rounds {
        for (row, workload) in plan.workloads.iter().enumerate() {
            for turn in 0..plan.systems.len() {
                // Nobody is always the first after the same one.
                let at = (turn + round + row) % plan.systems.len();
                let system = &plan.systems[at];
                let cell = results.cell(at, row);
                if let Cell::Samples(samples) = cell {
                    match measure(&plan, system, *workload) {
                        Ok(sample) => samples.push(sample),
                        Err(error) => {
                            eprintln!("{} {}: {error}", system.name, workload.name());
                            *cell = Cell::Failed(error.to_string());
                        }
                    }
                }
            }
            eprintln!("round {} of {}: {} done", round + 1, plan.rounds, workload.name());
        }
    }
    println!("{}", table::markdown(&results));
    if let Some(folder) = &plan.plots {
        plots(&results, folder)?;
    }
    if results.any_failed() { Err("not everything could be measured".into()) } else { Ok(()) }
}

fn plots(results: &Results, folder: &Path) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    for workload in results.workloads() {
        let bars = results.bars(workload);
        for theme in [plot::LIGHT, plot::DARK] {
            if let Some(svg) = plot::svg(workload, &bars, &theme) {
                std::fs::write(folder.join(format!("{}-{}.svg", workload.name(), theme.name)), svg)?;
            }
        }
    }
    eprintln!("plots are in {}", folder.display());
    Ok(())
}

/// A process that ends with its guard.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One run: a server and a client, each in a new process on a core of its own.
fn measure(plan: &Plan, system: &About, workload: Workload) -> Outcome<Sample> {
    let program = std::env::current_exe()?;
    let [server_core, client_core] = plan.cores.map(|core| core.to_string());
    let mut server = Command::new(&program);
    server.args(["serve", system.name, "--core", &server_core]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Running(server.spawn()?);
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().ok_or("a pipe")?).read_line(&mut address)?;

    let mut client = Command::new(&program);
    client.args(["drive", system.name, address.trim(), workload.name(), "--core", &client_core]);
    client.args(["--seconds", &plan.seconds.to_string(), "--server", &server.0.id().to_string()]);
    if let (Workload::W7, Some(sessions)) = (workload, plan.sessions) {
        client.args(["--calls", &sessions.to_string()]);
    }
    let client = Running(client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    Sample::parse(&finish(client, Duration::from_secs_f64(60.0 + 10.0 * plan.seconds))?, workload)
}

/// What a process prints, once it is done: a few lines, which its pipe holds.
fn finish(mut process: Running, time: Duration) -> Outcome<String> {
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.0.try_wait()? {
            break status;
        }
        if start.elapsed() > time {
            return Err(format!("nothing came within {} s", time.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (mut printed, mut error) = (String::new(), String::new());
    process.0.stdout.take().ok_or("a pipe")?.read_to_string(&mut printed)?;
    process.0.stderr.take().ok_or("a pipe")?.read_to_string(&mut error)?;
    if status.success() { Ok(printed) } else { Err(error.lines().last().unwrap_or("it failed and said nothing").into()) }
}
