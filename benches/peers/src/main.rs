//! `rpc` beside its neighbours: `peers compare` measures, `peers serve` and `peers drive` are the two sides that it starts.
//! See README.md.

#[path = "../../common/mod.rs"]
mod common;
mod compare;
mod drive;
mod neighbour;
mod plot;
mod process;
mod systems;
mod table;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use neighbour::{Neighbour, Outcome};
use workload::Workload;

const USAGE: &str = "usage: peers compare [SYSTEM ...] [--workloads w1,w2] [--rounds N] [--seconds S] [--quick] [--plots FOLDER]
       peers serve SYSTEM [--core N]
       peers drive SYSTEM ADDRESS WORKLOAD [--core N] [--calls N | --seconds S] [--server PID]
       peers list";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<()> {
    let mut words = Arguments::new(arguments)?;
    match words.plain.remove(0).as_str() {
        "compare" => compare::compare(&words),
        "list" => {
            systems::each(|system| println!("{:10} its session in W7: {}", system.name, system.unit));
            Ok(())
        }
        "serve" => {
            let system = words.plain.first().ok_or(USAGE)?;
            process::settle(words.number("core")?)?;
            // Whoever started this process holds its input open for as long as it is to serve.
            std::thread::spawn(|| {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                std::process::exit(0);
            });
            systems::with(system, Serve)
        }
        "drive" => {
            let [system, address, workload] = &words.plain[..] else { return Err(USAGE.into()) };
            process::settle(words.number("core")?)?;
            let order = drive::Order {
                address: address.clone(),
                workload: Workload::find(workload)?,
                calls: words.number("calls")?,
                seconds: words.number("seconds")?.map_or(Duration::from_secs(1), Duration::from_secs_f64),
                server: words.number("server")?,
            };
            systems::with(system, drive::Drive(order))
        }
        _ => Err(USAGE.into()),
    }
}

/// The side that answers.
struct Serve;

impl systems::Visit for Serve {
    fn visit<N: Neighbour>(self) -> Outcome<()> {
        process::runtime()?.block_on(async {
            N::serve(|address| println!("{address}")).await?;
            Err("the server ended".into())
        })
    }
}

/// Words, and settings of the form `--name value`.
struct Arguments {
    plain: Vec<String>,
    settings: Vec<(String, String)>,
}

impl Arguments {
    fn new(arguments: &[String]) -> Outcome<Self> {
        let (mut plain, mut settings) = (Vec::new(), Vec::new());
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some("quick") => settings.push(("quick".to_owned(), String::new())),
                Some(name) => settings.push((name.to_owned(), words.next().ok_or(USAGE)?.clone())),
                None => plain.push(word.clone()),
            }
        }
        if plain.is_empty() { Err(USAGE.into()) } else { Ok(Self { plain, settings }) }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Outcome<Option<T>> {
        let parse = |text: &str| text.parse().map_err(|_| format!("--{name} {text} is no number; {USAGE}").into());
        self.text(name).map(parse).transpose()
    }
}
