//! What attacks cost: each of `tests/attacks`, against a server of its own in another process, beside a client that has
//! done nothing wrong. It prints the table of docs/SECURITY.md; needs Linux. See benches/README.md.
#![allow(clippy::print_stdout, reason = "it is a program")]

#[cfg(target_os = "linux")]
#[path = "../tests/attacks/attackers.rs"]
mod attackers;
#[cfg(target_os = "linux")]
#[path = "../tests/attacks/stand.rs"]
mod stand;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the figures come from /proc, which Linux has");
}

#[cfg(target_os = "linux")]
fn main() {
    if std::env::var_os("RPC_ROLE").is_some() {
        return stand::role();
    }
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    println!("| attack | ends with | after | victim's p99 | bytes above idle | CPU for 1,000 frames | nothing left after |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for attack in attackers::all() {
        if only.is_empty() || only.iter().any(|name| attack.name.contains(&name[..])) {
            runtime.block_on(linux::figures(&attack));
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use crate::attackers::{Attack, Ended};
    use crate::stand::{Bystander, Stand};

    /// The victim's calls without an attack.
    const QUIET: Duration = Duration::from_millis(500);

    /// Attacks that are over sooner are repeated for so long, or the victim makes no call meanwhile.
    const LONG: Duration = Duration::from_millis(300);

    fn p99(mut times: Vec<Duration>) -> Duration {
        times.sort_unstable();
        times[(times.len() - 1) * 99 / 100]
    }

    pub(crate) async fn figures(attack: &Attack) {
        let program = std::env::current_exe().expect("a bench is a program");
        let mut stand = Stand::start(Command::new(program).env("RPC_ROLE", "server"));
        let empty = stand.look();
        let victim = Bystander::start(&stand.endpoint).await;
        tokio::time::sleep(QUIET).await;
        let quiet = p99(victim.stop().await);
        stand.residue(empty).await;
        let victim = Bystander::start(&stand.endpoint).await;
        let before = stand.look();
        let (mut most, mut frames, mut first) = (before.resident, 0, None);
        let start = Instant::now();
        let mut ended = Ended::Borne;
        while first.is_none() || start.elapsed() < LONG {
            let mut attacking = tokio::spawn((attack.run)(stand.endpoint.clone()));
            let (how, count) = loop {
                tokio::select! {
                    over = &mut attacking => break over.expect("the attack goes as it is written"),
                    () = tokio::time::sleep(Duration::from_millis(10)) => most = most.max(stand.look().resident),
                }
            };
            first.get_or_insert(start.elapsed());
            (ended, frames) = (how, frames + count);
            assert_eq!(ended, attack.ends, "{}", attack.name);
        }
        let cpu = stand.look().cpu - before.cpu;
        let above = most - before.resident;
        assert!(above <= attack.bytes && stand.look().peak <= attack.handlers, "{} holds more than it may", attack.name);
        let gone = stand.residue(before).await;
        let attacked = p99(victim.stop().await);
        println!(
            "| {} | {} | {:.0} ms | {:.1} ms, {:.0} times | {} KiB | {:.1} ms | {:.0} ms |",
            attack.name,
            how(ended),
            first.unwrap_or_default().as_secs_f64() * 1e3,
            attacked.as_secs_f64() * 1e3,
            attacked.as_secs_f64() / quiet.as_secs_f64(),
            above >> 10,
            cpu as f64 * 10.0 / (frames.max(1) as f64 / 1000.0),
            gone.as_secs_f64() * 1e3,
        );
    }

    fn how(ended: Ended) -> String {
        match ended {
            Ended::Connection(Some(code)) => format!("CONN_CLOSE, {code:?}"),
            Ended::Connection(None) => "the end of the connection".into(),
            Ended::Session(code) => format!("S_ABORT, {code:?}"),
            Ended::Exchange(code) => format!("RESET, {code:?}"),
            Ended::Borne => "nothing: it is borne".into(),
        }
    }
}
