//! Seeded simulation of the pure core: two connections, many sessions, a network that splits and delays at will, and
//! applications that call, stream, cancel and dawdle. No sockets, no clock: a run is a function of its seed.
//!
//! `SIM_SEED=n` repeats one run, `SIM_SEEDS=n` sets how many there are. Checked here, by the names of
//! docs/PROTOCOL.md §11: C1, C2, C3, C5, E1, E2, E3, E9, F1, F2, F3, F4, L2, L4, and that no byte of one session reaches
//! another.

mod ends;
mod fairness;
mod hostile;
mod node;
mod rng;
mod world;

use world::{End, Mutation, Plan, World};

fn seeds() -> Vec<u64> {
    if let Some(seed) = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let count = std::env::var("SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(150);
    (0..count).collect()
}

fn run_all(plan: Plan) {
    for seed in seeds() {
        if let Err(fault) = World::new(seed, plan).run() {
            panic!("SIM_SEED={seed}: {fault}");
        }
    }
}

#[test]
fn calls_of_every_kind_have_one_right_outcome() {
    run_all(Plan::default());
}

#[test]
fn the_smallest_windows_never_deadlock() {
    run_all(Plan { tight: true, ..Plan::default() });
}

#[test]
fn cancels_and_deadlines_leave_nothing_behind() {
    run_all(Plan { impatient: true, ..Plan::default() });
}

#[test]
fn impatience_under_the_smallest_windows_leaves_nothing_behind() {
    run_all(Plan { impatient: true, tight: true, ..Plan::default() });
}

#[test]
fn a_session_alone_on_its_connection_behaves_the_same() {
    run_all(Plan { single: true, ..Plan::default() });
}

#[test]
fn a_session_moves_from_one_connection_to_another() {
    run_all(Plan { move_sessions: true, ..Plan::default() });
    run_all(Plan { move_sessions: true, tight: true, ..Plan::default() });
}

/// F4: sessions of any weight with calls of any urgency, most of them at work all the time.
#[test]
fn sessions_share_a_connection_by_their_weights() {
    run_all(Plan { weighted: true, ..Plan::default() });
    run_all(Plan { weighted: true, both_ways: true, impatient: true, ..Plan::default() });
}

/// L2: eight messages of maximum size at once, each many times larger than every window of one frame.
#[test]
fn eight_messages_of_maximum_size_complete_under_windows_of_one_frame() {
    run_all(Plan { giants: true, tight: true, ..Plan::default() });
}

/// L2 with calls that wait for calls back, each end sending to the other.
#[test]
fn calls_that_call_back_never_deadlock() {
    run_all(Plan { both_ways: true, ..Plan::default() });
    run_all(Plan { both_ways: true, tight: true, ..Plan::default() });
}

/// C1, C2, C3, C5, E2, L4: however it ends, every call has one outcome, and no outcome promises too much.
#[test]
fn every_end_leaves_every_call_served_or_classified() {
    for end in End::ALL {
        run_all(Plan { end: Some(end), ..Plan::default() });
        run_all(Plan { end: Some(end), both_ways: true, ..Plan::default() });
    }
}

#[test]
fn every_end_holds_under_the_smallest_windows_and_impatience() {
    for end in End::ALL {
        run_all(Plan { end: Some(end), tight: true, ..Plan::default() });
        run_all(Plan { end: Some(end), impatient: true, ..Plan::default() });
    }
}

#[test]
fn the_same_seed_runs_the_same_way() {
    let plan = Plan { impatient: true, ..Plan::default() };
    for seed in 0..10 {
        let (mut a, mut b) = (World::new(seed, plan), World::new(seed, plan));
        assert_eq!(a.run(), b.run());
        assert_eq!(a.trace(), b.trace());
    }
}

/// E1, E9, L4, X1: a peer that sends sound frames among broken ones. Whatever it does, this side stays within its bounds, and
/// each of its calls ends.
#[test]
fn a_hostile_peer_is_contained() {
    let mut seen = hostile::Seen::default();
    for seed in seeds() {
        match hostile::run(seed, 1 + seed % 8) {
            Ok(of_run) => seen.add(&of_run),
            Err(fault) => panic!("SIM_SEED={seed}: {fault}"),
        }
    }
    if seeds().len() >= 100 {
        assert!(seen.is_telling(), "the runs hardly got anywhere: {seen:?}");
    }
}

/// What is contained above is what the peer does wrong: the same peer without it is let be.
#[test]
fn a_peer_that_breaks_no_rule_is_not_taken_for_hostile() {
    for seed in seeds().into_iter().take(50) {
        let seen = hostile::run(seed, 0).unwrap_or_else(|fault| panic!("SIM_SEED={seed}: {fault}"));
        assert_eq!((seen.aborted, seen.closed), (0, 0), "SIM_SEED={seed}");
        assert!(seen.answered > 0, "SIM_SEED={seed}: no call was answered");
    }
}

/// Tests of the tests: each seeded fault of the network or of a peer must be noticed by a run.
#[test]
fn every_mutation_is_noticed() {
    for mutation in Mutation::ALL {
        let noticed = (0..20).any(|seed| World::new(seed, mutation.plan()).run().is_err());
        assert!(noticed, "{mutation:?} went unnoticed");
    }
}
