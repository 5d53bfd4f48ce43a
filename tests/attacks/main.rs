//! Attackers of raw bytes beside a victim, against a server in a process of its own (docs/SECURITY.md). What is asserted
//! depends on no clock: how the attack ends, that the victim's answers are right, how much the server came to hold, and
//! that nothing is left of it. `benches/attacks.rs` has the times.
#![cfg(target_os = "linux")]

mod attackers;
mod stand;

use std::process::Command;
use std::time::Duration;

use stand::{Bystander, HANG, Stand};

/// The server's process. In a plain run it has no role.
#[test]
fn a_role() {
    if std::env::var_os("RPC_ROLE").is_some() {
        stand::role();
    }
}

/// This program in the server's role; `words` stand in front of it.
fn server(words: &[&str]) -> Stand {
    let program = std::env::current_exe().expect("a test is a program");
    let mut command = match words {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    Stand::start(command.args(["--exact", "a_role", "--nocapture", "--test-threads=1"]).env("RPC_ROLE", "server"))
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(async { tokio::time::timeout(2 * HANG, test).await }).expect("the test hung")
}

/// Every attack, each against a server of its own.
#[test]
fn every_attack_ends_as_it_must_and_leaves_nothing_behind() {
    for attack in attackers::all() {
        run(async {
            let name = attack.name;
            let mut stand = server(&[]);
            let victim = Bystander::start(&stand.endpoint).await;
            let before = stand.look();
            let mut most = 0;
            let mut attacking = tokio::spawn((attack.run)(stand.endpoint.clone()));
            let (ended, frames) = loop {
                tokio::select! {
                    ended = &mut attacking => break ended.unwrap_or_else(|error| panic!("{name}: {error}")),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                most = most.max(stand.look().resident);
            };
            assert_eq!(ended, attack.ends, "{name}, after {frames}");
            let after = stand.look();
            assert!(after.peak <= attack.handlers, "{name}: {} handlers at a time", after.peak);
            let above = most.max(after.resident).saturating_sub(before.resident);
            assert!(above <= attack.bytes, "{name}: {above} bytes above idle");
            stand.residue(before).await;
            assert!(!victim.stop().await.is_empty(), "{name}");
        });
    }
}

/// The same limits hold within the process, where nothing is copied.
#[test]
fn attackers_within_the_process_end_in_the_same_way() {
    run(async {
        let server = stand::serve("mem://attacked").await;
        let names =
            ["rapid reset", "resets provoked", "rejections", "PING", "empty pieces", "tiny items", "length", "recursion", "ids"];
        let same = |attack: &attackers::Attack| names.iter().any(|name| attack.name.starts_with(name));
        let attacks: Vec<_> = attackers::all().into_iter().filter(same).collect();
        assert!(attacks.len() > names.len());
        for attack in attacks {
            let victim = Bystander::start(server.endpoint()).await;
            let (ended, frames) = (attack.run)(server.endpoint().clone()).await;
            assert_eq!(ended, attack.ends, "{}, after {frames}", attack.name);
            victim.stop().await;
        }
        let empty = async {
            while server.budget().held() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, empty).await.expect("every connection is gone");
    });
}

/// The server has 64 descriptors, and 200 clients come: those that find room are served, and when they have gone, others.
#[test]
fn a_server_without_descriptors_goes_on_when_there_are_some_again() {
    run(async {
        let mut stand = server(&["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
        let before = stand.look();
        let victim = Bystander::start(&stand.endpoint).await;
        let connect = || async { tokio::net::TcpStream::connect(stand.endpoint.to_string().trim_start_matches("tcp://")).await };
        let crowd: Vec<_> = futures::future::join_all((0..200).map(|_| connect())).await;
        assert!(crowd.iter().filter(|io| io.is_ok()).count() > 64, "more came than fit");
        // Some were accepted, so that none is left for `/proc` to count the others by.
        let full = async {
            while stand.look().descriptors < 64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, full).await.expect("the server accepts as many as it can");
        victim.stop().await;
        drop(crowd);
        let again = async {
            loop {
                if let Ok(client) = rpc::connect::<stand::TargetClient>(&stand.endpoint).await {
                    return client.echo("again".into()).await.expect("it serves");
                }
            }
        };
        assert_eq!(tokio::time::timeout(HANG, again).await.expect("the server accepts again"), "again");
        stand.residue(before).await;
    });
}
