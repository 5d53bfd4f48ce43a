//! What the system knows of a process, and what a process asks of the system: its core, its files, its time, its memory.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::neighbour::Outcome;

/// Keeps this process to one core, and lets it have as many files as it may: a session can be a connection.
pub(crate) fn settle(core: Option<usize>) -> Outcome<()> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    Ok(())
}

/// One thread, for futures of both kinds: those of capnp-rpc stay where they are.
pub(crate) fn runtime() -> Outcome<tokio::runtime::LocalRuntime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?)
}

/// CPU time of a process so far, in seconds: user and system, all of its threads.
pub(crate) fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold anything; the third follows the last one.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory of a process that is in use, in bytes.
pub(crate) fn resident(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().next().ok_or("VmRSS is empty")?.parse()?;
    Ok(kib * 1024)
}

/// The machine in a few words, for whoever reads the figures.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, Linux {}", cpu.unwrap_or("an unknown CPU"), read("/proc/sys/kernel/osrelease").trim())
}
