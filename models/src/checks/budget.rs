//! Whoever waits for room misses no fall, and what is held adds up.

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use super::budget::{Budget, BudgetLevel};

fn whoever_waits_for_room_is_told_of_it() {
    let budget = Budget::new(1000);
    // The second to fall makes room, whichever that is, and there is one behind it.
    let shares = [500, 480, 490].map(|bytes| {
        let mut share = budget.share();
        share.set(bytes);
        share
    });
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let budget = budget.clone();
            thread::spawn(move || block_on(budget.not_full()))
        })
        .collect();
    let falling = shares.map(|share| thread::spawn(move || drop(share)));
    for thread in waiting.into_iter().chain(falling) {
        thread.join().expect("it does not panic");
    }
    assert_eq!(budget.held(), 0);
}

fn whoever_waits_is_told_though_it_is_full_again_in_between() {
    let budget = Budget::new(1000);
    let mut share = budget.share();
    share.set(1000);
    let waits = budget.clone();
    let waiting = thread::spawn(move || block_on(waits.not_full()));
    for bytes in [900, 990, 0] {
        share.set(bytes);
    }
    waiting.join().expect("it does not panic");
}

fn what_is_held_adds_up_and_never_wraps() {
    let budget = Budget::new(1000);
    let holders: Vec<_> = (0..2)
        .map(|_| {
            let mut share = budget.share();
            thread::spawn(move || {
                for bytes in [300, 100, 0, 200] {
                    share.set(bytes);
                    assert!(share.budget().held() >= bytes, "what is held is counted");
                }
            })
        })
        .collect();
    for _ in 0..3 {
        assert!(budget.held() <= 600, "{} bytes are counted", budget.held());
    }
    for holder in holders {
        holder.join().expect("it does not panic");
    }
    assert_eq!(budget.held(), 0);
}

fn what_can_be_done_without_is_not_taken_twice() {
    let budget = Arc::new(Budget::new(1000));
    let growing: Vec<_> = (0..2)
        .map(|_| {
            let mut share = budget.share();
            thread::spawn(move || (share.try_grow(500), share).0)
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(budget.level(), BudgetLevel::Room);
    }
    let grown = growing.into_iter().map(|thread| thread.join().expect("it does not panic"));
    assert!(grown.filter(|grown| *grown).count() >= 1, "there was room for one");
    assert_eq!(budget.held(), 0);
}

pub(crate) const CHECKS: &[crate::Check] = &[
    ("whoever waits for room is told of it", whoever_waits_for_room_is_told_of_it),
    ("whoever waits is told though it is full again in between", whoever_waits_is_told_though_it_is_full_again_in_between),
    ("what is held adds up and never wraps", what_is_held_adds_up_and_never_wraps),
    ("what can be done without is not taken twice", what_can_be_done_without_is_not_taken_twice),
];
