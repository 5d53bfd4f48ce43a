//! The targets of `fuzz/` as property tests: any bytes, and conversations as they should be with some of their frames or
//! bytes changed. A failure prints its input and the seed of it; `PROPTEST_CASES=n` sets how many there are.

mod seeds;
mod targets;

use proptest::collection::vec;
use proptest::prelude::*;
use seeds::{conversation, inputs, parts};

/// What is done to the frames of a conversation.
#[derive(Debug, Clone)]
enum Change {
    Drop(usize),
    Repeat(usize),
    Swap(usize, usize),
    Cut(usize, usize),
    Byte(usize, usize, u8),
    Insert(usize, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0_usize..1000;
    prop_oneof![
        at().prop_map(Change::Drop),
        at().prop_map(Change::Repeat),
        (at(), at()).prop_map(|(a, b)| Change::Swap(a, b)),
        (at(), at()).prop_map(|(a, b)| Change::Cut(a, b)),
        (at(), at(), any::<u8>()).prop_map(|(frame, at, byte)| Change::Byte(frame, at, byte)),
        (at(), vec(any::<u8>(), 0..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

fn changed(mut frames: Vec<Vec<u8>>, changes: &[Change]) -> Vec<Vec<u8>> {
    for change in changes {
        let n = frames.len();
        match change {
            _ if n < 2 => {}
            Change::Drop(at) => drop(frames.remove(at % n)),
            Change::Repeat(at) => frames.insert(at % n, frames[at % n].clone()),
            Change::Swap(a, b) => frames.swap(a % n, b % n),
            Change::Cut(at, to) => {
                let frame = &mut frames[at % n];
                frame.truncate(to % (frame.len() + 1));
            }
            Change::Byte(frame, at, byte) => {
                let frame = &mut frames[frame % n];
                if let Some(len) = frame.len().checked_sub(1) {
                    frame[at % (len + 1)] = *byte;
                }
            }
            Change::Insert(at, bytes) => frames.insert(at % n, bytes.clone()),
        }
    }
    frames
}

/// How a target takes any bytes, and a changed conversation.
fn run(target: &str, bytes: &[u8], changes: &[Change]) {
    let (name, target) = targets::ALL.into_iter().find(|(name, _)| *name == target).expect("it is listed");
    target(bytes);
    inputs(name, &changed(parts(name), changes)).iter().for_each(|input| target(input));
}

proptest! {
    #[test]
    fn any_bytes_are_cut_into_the_same_frames_however_they_come(bytes in vec(any::<u8>(), 0..600), changes in vec(change(), 0..6)) {
        run("frames", &bytes, &changes);
    }

    #[test]
    fn whatever_is_negotiated_reads_back_as_it_was_read(bytes in vec(any::<u8>(), 0..200), changes in vec(change(), 0..6)) {
        run("hello", &bytes, &changes);
    }

    #[test]
    fn no_bytes_and_no_order_make_a_connection_panic_or_grow(bytes in vec(any::<u8>(), 0..600), changes in vec(change(), 0..6)) {
        run("connection", &bytes, &changes);
    }

    #[test]
    fn no_frames_and_no_order_make_a_session_panic_or_grow(bytes in vec(any::<u8>(), 0..1500), changes in vec(change(), 0..6)) {
        run("session", &bytes, &changes);
    }

    #[test]
    fn no_message_costs_more_than_its_limits_allow(
        bytes in vec(prop_oneof![0u8..8, any::<u8>()], 0..300),
        changes in vec(change(), 0..2),
    ) {
        run("decode", &bytes, &changes);
    }
}

/// The conversation that mutations start from is one that nobody objects to: else they would never get anywhere.
#[test]
fn the_conversation_is_sound_as_it_is() {
    let mut names: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    for (name, target) in targets::ALL {
        inputs(name, &parts(name)).iter().for_each(|input| target(input));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), targets::ALL.len());
    assert!(targets::connection::takes(&conversation()), "an acceptor takes the conversation");
}
