//! What was measured, and how it is told: medians with the lowest and the highest.

use std::fmt::Write;

use crate::neighbour::Outcome;
use crate::systems::{About, Kind};
use crate::workload::{Figure, Workload};

/// What one run came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// In the unit of the workload's figure.
    value: f64,
    /// Microseconds, in W1.
    p99: Option<f64>,
    /// CPU time of a call or an item, microseconds, of client and server.
    cpu: Option<[f64; 2]>,
}

impl Sample {
    /// From the line that `peers drive` prints.
    pub(crate) fn parse(line: &str, workload: Workload) -> Outcome<Self> {
        let field = |name: &str| {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.map(str::parse::<f64>).transpose()
        };
        let value = match workload.figure() {
            Figure::Micros => field("p50_us")?,
            Figure::Bytes => field("bytes")?,
            Figure::Rate => field("rate")?,
            Figure::Throughput => field("rate")?.map(|rate| rate * workload.size() as f64 / f64::from(1 << 20)),
        };
        Ok(Self {
            value: value.ok_or_else(|| format!("no figure in {line:?}"))?,
            p99: field("p99_us")?,
            cpu: field("client_us")?.zip(field("server_us")?).map(|(client, server)| [client, server]),
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Samples(Vec<Sample>),
    /// Why it was not run.
    Lacks(&'static str),
    /// What went wrong.
    Failed(String),
}

/// A figure of a system, to be drawn.
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) spread: Spread,
    pub(crate) kind: Kind,
}

/// A median with the lowest and the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        // Of an even number, the middle of the two.
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, low, high })
    }
}

pub(crate) struct Results {
    systems: Vec<About>,
    workloads: Vec<Workload>,
    /// By system, then by workload.
    cells: Vec<Vec<Cell>>,
}

impl Results {
    pub(crate) fn new(systems: &[About], workloads: &[Workload]) -> Self {
        let cell = |system: &About, workload: &Workload| {
            let lack = system.lacks.iter().find(|(lacked, _)| lacked == workload);
            lack.map_or(Cell::Samples(Vec::new()), |(_, reason)| Cell::Lacks(reason))
        };
        let cells = systems.iter().map(|system| workloads.iter().map(|workload| cell(system, workload)).collect()).collect();
        Self { systems: systems.to_vec(), workloads: workloads.to_vec(), cells }
    }

    pub(crate) fn cell(&mut self, system: usize, workload: usize) -> &mut Cell {
        &mut self.cells[system][workload]
    }

    pub(crate) fn workloads(&self) -> Vec<Workload> {
        self.workloads.clone()
    }

    pub(crate) fn any_failed(&self) -> bool {
        self.cells.iter().flatten().any(|cell| matches!(cell, Cell::Failed(_)))
    }

    /// The systems that have a figure, best first.
    pub(crate) fn bars(&self, workload: Workload) -> Vec<Bar> {
        let Some(column) = self.workloads.iter().position(|own| *own == workload) else { return Vec::new() };
        let bar = |(system, row): (&About, &Vec<Cell>)| {
            let spread = spread(&row[column], |sample| Some(sample.value))?;
            Some(Bar { name: system.name, spread, kind: system.kind })
        };
        let mut bars: Vec<Bar> = self.systems.iter().zip(&self.cells).filter_map(bar).collect();
        bars.sort_by(|a, b| a.spread.median.total_cmp(&b.spread.median));
        if !workload.figure().less_is_better() {
            bars.reverse();
        }
        bars
    }
}

fn spread(cell: &Cell, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    let Cell::Samples(samples) = cell else { return None };
    Spread::of(samples.iter().filter_map(figure))
}

/// Three digits, and what they are thousands of.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 999.5e3 => (v / 1e6, "M"),
        // Four digits are read as easily.
        v if v >= 9_999.5 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}{unit}")
}

/// All tables, with what is to be known of the run.
pub(crate) fn markdown(results: &Results) -> String {
    let rounds = results.cells.iter().flatten().map(|cell| if let Cell::Samples(all) = cell { all.len() } else { 0 });
    let mut text = format!(
        "Medians of {} rounds, with the lowest and the highest. {}.\n\n",
        rounds.max().unwrap_or(0),
        crate::process::machine()
    );
    rows(&mut text, results, &results.workloads, Workload::head, |cell| match cell {
        Cell::Lacks(_) => "–".to_owned(),
        Cell::Failed(_) => "failed".to_owned(),
        cell => spread(cell, |sample| Some(sample.value)).map_or("–".to_owned(), told),
    });

    let called: Vec<Workload> = results.workloads.iter().copied().filter(|workload| *workload != Workload::W7).collect();
    if !called.is_empty() {
        text.push_str("\nCPU time of a call or an item, client and server together, µs; in brackets the server's part:\n\n");
        rows(&mut text, results, &called, Workload::name, |cell| {
            let both = spread(cell, |sample| sample.cpu.map(|[client, server]| client + server));
            let server = spread(cell, |sample| sample.cpu.map(|[_, server]| server));
            let told = both.zip(server).map(|(both, server)| format!("{} [{}]", short(both.median), short(server.median)));
            told.unwrap_or_else(|| "–".to_owned())
        });
    }

    if let Some(column) = results.workloads.iter().position(|workload| *workload == Workload::W1) {
        text.push_str("\nW1, the 99th percentile of the calls of a run, µs:\n\n");
        let p99 = |row: &Vec<Cell>| spread(&row[column], |sample| sample.p99).map(told);
        for (system, row) in results.systems.iter().zip(&results.cells) {
            if let Some(told) = p99(row) {
                let _ = writeln!(text, "- {}: {told}", system.name);
            }
        }
    }

    text.push_str("\nWhat has no figure, and why:\n\n");
    for (system, row) in results.systems.iter().zip(&results.cells) {
        for (workload, cell) in results.workloads.iter().zip(row) {
            match cell {
                Cell::Samples(_) => {}
                Cell::Lacks(reason) => drop(writeln!(text, "- {} {}: {reason}", system.name, workload.name())),
                Cell::Failed(error) => drop(writeln!(text, "- {} {} **failed**: {error}", system.name, workload.name())),
            }
        }
    }
    if results.workloads.contains(&Workload::W7) {
        text.push_str("\nWhat W7 counts as a session:\n\n");
        for system in &results.systems {
            if !system.lacks.iter().any(|(workload, _)| *workload == Workload::W7) {
                let _ = writeln!(text, "- {}: {}", system.name, system.unit);
            }
        }
    }
    text
}

fn told(spread: Spread) -> String {
    format!("{} ({} to {})", short(spread.median), short(spread.low), short(spread.high))
}

/// A table with a column for each of these workloads.
fn rows(
    text: &mut String,
    results: &Results,
    columns: &[Workload],
    head: impl Fn(Workload) -> &'static str,
    cell: impl Fn(&Cell) -> String,
) {
    let heads: Vec<&str> = columns.iter().map(|workload| head(*workload)).collect();
    let _ = writeln!(text, "| system | {} |\n|---|{}", heads.join(" | "), "--:|".repeat(heads.len()));
    for (system, row) in results.systems.iter().zip(&results.cells) {
        let version = version(system.name).unwrap_or_default();
        let name = match system.kind {
            Kind::Ours | Kind::Framework => format!("{} {version}", system.name),
            Kind::Transport => format!("{} {version}, a transport", system.name),
            Kind::Limit => format!("{}, a limit", system.name),
        };
        let cells = results.workloads.iter().zip(row).filter(|(workload, _)| columns.contains(workload));
        let cells: Vec<String> = cells.map(|(_, own)| cell(own)).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
}

/// The version of a package, as the lock file of this workspace has it.
fn version(package: &str) -> Option<&'static str> {
    let (_, after) = include_str!("../Cargo.lock").split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_run_is_read_in_the_unit_of_its_workload() {
        let line = "calls=10 rate=512.000 client_us=1.5 server_us=2.5 p50_us=13.250 p99_us=40.000";
        let read = |workload| Sample::parse(line, workload).unwrap();
        assert_eq!(read(Workload::W1), Sample { value: 13.25, p99: Some(40.0), cpu: Some([1.5, 2.5]) });
        assert_eq!(read(Workload::W2).value, 512.0);
        assert_eq!(read(Workload::W4).value, 512.0);
        assert_eq!(Sample::parse("bytes=107", Workload::W7).unwrap(), Sample { value: 107.0, p99: None, cpu: None });
        assert!(Sample::parse(line, Workload::W7).is_err());
    }

    #[test]
    fn a_median_is_the_middle_of_what_was_measured() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(of(&[4.0, 1.0]), Some(Spread { median: 2.5, low: 1.0, high: 4.0 }));
    }

    #[test]
    fn numbers_have_three_digits() {
        let told = [0.456, 12.345, 99.97, 9_421.0, 12_345.0, 659_000.0, 999_700.0, 2_250_000.0, 10_300_000.0].map(short);
        assert_eq!(told, ["0.46", "12.3", "100", "9421", "12.3k", "659k", "1.00M", "2.25M", "10.3M"]);
    }
}
