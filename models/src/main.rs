//! What tasks hand over to each other in some rooms of `rpc-transport`, under a scheduler that tries interleavings at every
//! lock, atomic and step of a channel. shuttle ends a run in which all wait, and prints the schedule.
//!
//! Behind the rooms come their mutants (`build.rs`): checks that notice none of them would be worth nothing. What shuttle does
//! not try are orderings of memory: it takes each for the strongest.
//!
//! `handler` and the driver stand on tokio's tasks and sockets, which shuttle cannot replace; `tests/turmoil.rs` and
//! `dropped_at_every_poll` try their orders. `registry` is a map whose every step is whole under its one lock.

mod sync;

// Not all that the rooms have is needed here.
#[allow(dead_code)]
#[path = "../../rpc-transport/src/actor.rs"]
mod actor;
#[allow(dead_code)]
#[path = "../../rpc-transport/src/budget.rs"]
mod budget;
#[allow(dead_code)]
#[path = "../../rpc-transport/src/chunks.rs"]
mod chunks;
#[allow(dead_code)]
#[path = "../../rpc-transport/src/ending.rs"]
mod ending;
#[allow(dead_code)]
#[path = "../../rpc-transport/src/handle.rs"]
mod handle;
#[allow(dead_code)]
#[path = "../../rpc-transport/src/peers.rs"]
mod peers;
#[allow(dead_code)]
#[path = "../../rpc-transport/src/state.rs"]
mod state;

// Of these, `state` has the types in its commands, which are none of what is tried out.
mod error {
    pub(crate) struct OpenError;
}
mod report {
    pub(crate) struct Inside;
}

/// The checks of each room as it is. Those of the mutants are copies.
mod checks {
    use crate::{actor, budget, chunks, handle, peers, state};

    #[path = "actor.rs"]
    pub(crate) mod of_actor;
    #[path = "budget.rs"]
    pub(crate) mod of_budget;
    #[path = "chunks.rs"]
    pub(crate) mod of_chunks;
    #[path = "handle.rs"]
    pub(crate) mod of_handle;
    #[path = "peers.rs"]
    pub(crate) mod of_peers;
    #[path = "state.rs"]
    pub(crate) mod of_state;
}

macro_rules! mutants {
    ($($room:ident: $($name:ident),+;)+) => {
        $($(
            #[allow(dead_code, unused_mut)]
            mod $name {
                pub(crate) mod $room {
                    include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
                }
                pub(crate) mod checks {
                    include!(concat!(env!("OUT_DIR"), "/checks_", stringify!($room), ".rs"));
                }
            }
        )+)+
        const MUTANTS: &[(&str, &[Check])] = &[$($((stringify!($name), $name::checks::CHECKS)),+),+];
    };
}

mutants! {
    budget: it_looks_before_it_listens, it_tells_of_what_it_sees_later, it_releases_in_two_steps, it_grows_in_two_steps;
    peers: it_counts_behind_its_look;
    actor: it_serves_those_who_have_gone, it_answers_before_it_lets_go, it_never_lets_the_service_go;
    state: it_wakes_before_it_says_what_for, it_looks_for_an_end_and_then_listens, it_looks_for_a_sessions_end_and_then_listens,
        it_writes_when_it_has_looked_for_the_driver, it_flushes_and_tells_nobody;
    handle: it_keeps_its_session_open;
    chunks: it_looks_and_waits_in_two_steps;
}

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, FailurePersistence, Runner};

type Check = (&'static str, fn());

const SOUND: [(&str, &[Check]); 6] = [
    ("chunks", checks::of_chunks::CHECKS),
    ("budget", checks::of_budget::CHECKS),
    ("peers", checks::of_peers::CHECKS),
    ("actor", checks::of_actor::CHECKS),
    ("state", checks::of_state::CHECKS),
    ("handle", checks::of_handle::CHECKS),
];

/// Whether a check fails in one of many interleavings, which are the same in each run.
fn fails(check: fn()) -> bool {
    let run = move || {
        let mut config = Config::default();
        config.failure_persistence = FailurePersistence::None;
        Runner::new(RandomScheduler::new_from_seed(1, 2000), config).run(check);
    };
    // In a thread of its own: what a failure leaves behind goes with it.
    std::thread::spawn(run).join().is_err()
}

fn main() {
    for (room, checks) in SOUND {
        for (name, check) in checks {
            // Systematically as far as that goes, then at random, then with few preemptions.
            shuttle::check_dfs(check, Some(500));
            shuttle::check_random(check, 500);
            shuttle::check_pct(check, 500, 3);
            eprintln!("{room}: {name}: ok");
        }
    }
    eprintln!("-- mutants, whose failures are wanted");
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<_> = MUTANTS
        .iter()
        .filter(|(mutant, checks)| {
            let noticed = checks.iter().find(|(_, check)| fails(*check));
            eprintln!("{mutant}: {}", noticed.map_or("NOT NOTICED", |(name, _)| name));
            noticed.is_none()
        })
        .collect();
    if !missed.is_empty() {
        std::process::exit(1);
    }
}
