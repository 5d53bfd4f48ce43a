//! Sessions at rest: one in which nothing is under way is a few numbers, and is kept as the bytes of those. So a connection
//! can have a million of them, and each costs what it does and not what it could do.

use super::Session;
use crate::id::Side;
use crate::proto::config::SessionConfig;
use crate::proto::credit::{RecvCredit, SendCredit};
use crate::proto::time::Time;
use crate::wire::hello::{DEFAULT_WEIGHT, MAX_WEIGHT, Windows};
use crate::wire::varint;

/// A session at rest. Only [`Session::rest`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting(Box<[u8]>);

impl Resting {
    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it takes none: never.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of the owner's numbers.
    pub fn first(&self) -> u64 {
        varint::read(&mut &self.0[..], "a number of a session at rest").expect("a session wrote it down")
    }
}

impl<U: Default> Session<U> {
    /// The session as it can be kept while nothing happens in it, with `owner`'s bytes in front. `None` where something is
    /// under way, or due, or queued.
    pub fn rest(&self, owner: &[u64], now: Time) -> Option<Resting> {
        let busy = self.exchanges.len() > 0 || self.queued() > 0 || self.recv.held() > 0;
        let due = self.control_due
            || self.control_queued
            || self.expedited_queued
            || self.data_queued
            || self.ack_due
            || self.stamp_wanted;
        let ending = self.is_closing() || self.peer_closed() || self.failed.is_some();
        // A peer that has tried this side's patience does not get it back by waiting for less than it takes.
        let tried = !self.patience.is_full(now);
        // What it may make this side hold is counted as long as it is awake.
        let grown = self.recv.window() > self.config.windows.session;
        if busy || grown || tried || due || ending || self.blocked_at.is_some() || self.admitted > 0 {
            return None;
        }
        let own = &self.config.windows;
        let numbers = [
            // Differences, so that what is as it was at first takes a byte.
            distance(self.peer.stream, own.stream),
            distance(self.peer.session, own.session),
            distance(self.peer.exchanges, own.exchanges),
            distance(self.peer.message, own.message),
            self.send.max() - self.peer.session,
            self.send.used(),
            self.recv.max() - own.session,
            self.recv.received(),
            self.opens_max - self.peer.exchanges,
            self.opened,
            self.opens_granted - own.exchanges,
            self.accepted,
            self.finished,
            self.tx_count,
            self.rx_count,
            self.next_local,
            self.next_remote,
            self.closing.untaken,
            distance(self.weight.into(), DEFAULT_WEIGHT.into()),
        ];
        // Windows that a peer made as large as they can be.
        if owner.iter().chain(&numbers).any(|number| *number > varint::MAX) {
            return None;
        }
        let mut bytes = Vec::with_capacity(32);
        owner.iter().chain(&numbers).for_each(|number| varint::push(*number, &mut bytes));
        Some(Resting(bytes.into()))
    }

    /// The session as it was, detached, and the owner's numbers. `side` and `config` are those that it had.
    ///
    /// # Panics
    /// If `OWNER` is another count than [`rest`](Self::rest) was given.
    pub fn wake<const OWNER: usize>(resting: &Resting, side: Side, config: SessionConfig) -> (Self, [u64; OWNER]) {
        let mut rest = &resting.0[..];
        let mut next = || varint::read(&mut rest, "a number of a session at rest").expect("a session wrote it down");
        let owner = std::array::from_fn(|_| next());
        let mut session = Self::new(side, config);
        let own = config.windows;
        session.peer = Windows {
            stream: displaced(own.stream, next()),
            session: displaced(own.session, next()),
            exchanges: displaced(own.exchanges, next()),
            message: displaced(own.message, next()),
        };
        session.send = SendCredit::resumed(session.peer.session + next(), next());
        session.recv = RecvCredit::resumed(own.session, own.session + next(), next());
        session.opens_max = session.peer.exchanges + next();
        session.opened = next();
        session.opens_granted = own.exchanges + next();
        (session.accepted, session.finished) = (next(), next());
        session.patience.resume(session.finished);
        (session.tx_count, session.rx_count) = (next(), next());
        (session.next_local, session.next_remote) = (next(), next());
        session.closing.untaken = next();
        session.weigh(u16::try_from(displaced(DEFAULT_WEIGHT.into(), next())).unwrap_or(MAX_WEIGHT));
        debug_assert!(rest.is_empty(), "nothing is written down that is not read");
        (session, owner)
    }
}

/// How far `value` is from `from`, up or down; the lowest bit says which.
fn distance(value: u64, from: u64) -> u64 {
    value.abs_diff(from) << 1 | u64::from(value < from)
}

fn displaced(from: u64, distance: u64) -> u64 {
    if distance & 1 == 1 { from - (distance >> 1) } else { from + (distance >> 1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::Limits;

    proptest! {
        #[test]
        fn distances_lead_back(value in 0..1u64 << 60, from in 0..1u64 << 60) {
            prop_assert_eq!(displaced(from, distance(value, from)), value);
        }

        #[test]
        fn what_is_written_down_is_the_session(numbers in any::<[u32; 16]>(), fresh in any::<bool>()) {
            let config = Limits::default().session();
            let mut session = Session::<()>::new(Side::Acceptor, config);
            let peer = if fresh { config.windows } else {
                let [stream, session, exchanges, message, ..] = numbers.map(u64::from);
                Windows { stream, session, exchanges, message }
            };
            session.granted(peer);
            if !fresh {
                let [_, _, _, _, send, used, recv, received, opens, opened, granted, finished, tx, rx, id, untaken] =
                    numbers.map(u64::from);
                session.send = SendCredit::resumed(peer.session + send + used, used);
                session.recv = RecvCredit::resumed(config.windows.session, config.windows.session + recv + received, received);
                session.opens_max += opens;
                session.opened = opened;
                session.opens_granted += granted;
                (session.accepted, session.finished) = (finished, finished);
                session.patience.resume(finished);
                (session.tx_count, session.rx_count) = (tx, rx);
                (session.next_local, session.next_remote) = (4 * id, 4 * id + 1);
                session.closing.untaken = untaken;
                session.weigh(untaken as u16);
            }
            let resting = session.rest(&[7, 1 << 40], Time::from_micros(0)).unwrap();
            let (woken, owner) = Session::<()>::wake::<2>(&resting, Side::Acceptor, config);
            prop_assert_eq!(owner, [7, 1 << 40]);
            prop_assert_eq!(format!("{woken:?}"), format!("{session:?}"));
            prop_assert!(!fresh || resting.len() <= 19 + 9, "a new one takes a byte a number: {}", resting.len());
        }
    }

    #[test]
    fn windows_that_are_too_large_to_write_down_keep_a_session_awake() {
        let mut session = Session::<()>::new(Side::Acceptor, Limits::default().session());
        session.granted(Windows { stream: varint::MAX, session: varint::MAX, exchanges: varint::MAX, message: varint::MAX });
        assert_eq!(session.rest(&[], Time::from_micros(0)), None);
    }
}
