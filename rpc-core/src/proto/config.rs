//! The limits of one side, each with its reason (docs/PROTOCOL.md §10).

use std::time::Duration;

use super::bucket::Allowance;
use crate::wire::header::MAX_LEN;
use crate::wire::hello::{MAX_WEIGHT, SMALLEST_FRAME, Windows};

/// The one table: each limit with its reason, its default and its setter.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// What this side takes from a peer. The defaults are for peers that are not trusted.
        ///
        /// ```
        /// # use rpc_core::proto::Limits;
        /// let limits = Limits::default().max_message(1 << 20).exchanges(64);
        /// assert_eq!((limits.max_message, limits.sessions), (1 << 20, 128));
        /// ```
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            $(
                /// Sets the field of this name.
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}

limits! {
    /// Connections that a server has at a time; further ones wait with the operating system until one has ended, and
    /// are served then. 10,000: with the buffers of idle ones that is less than 1 GiB.
    connections: u64 = 10_000,
    /// Connections of one peer among them: of an address (IPv6: of a network of 64 bits), or of a user where the transport
    /// knows which. One more is closed unheard. Those of this machine's own addresses are not counted. 1024: an office
    /// behind one address fits, and no address takes more than a tenth of `connections`. Behind a proxy that hides its
    /// clients' addresses it is to be as large as `connections`.
    per_peer: u64 = 1024,
    /// Bytes that a server holds for all its peers together, as far as they are counted (see `Budget`). At 85 % new
    /// sessions are refused, at 95 % no connection is accepted until it is less. 1 GiB: three times the base of 10,000
    /// connections, and the windows of 300 sessions that nobody reads.
    memory: u64 = 1024 * 1024 * 1024,
    /// The longest frame accepted, in bytes. 256 KiB: large enough that a 1 MiB message takes five frames, small
    /// enough that the frame in the way of another session's answer is gone in a millisecond at 2 Gbit/s.
    max_frame: u32 = 256 * 1024,
    /// The longest message accepted, in bytes. 4 MiB, as gRPC's implementations have it.
    max_message: u32 = 4 * 1024 * 1024,
    /// Bytes of incomplete messages over their stream window that a session admits at a time; the first in the queue is
    /// always admitted. 16 MiB: four messages of maximum size.
    reassembly: u64 = 16 * 1024 * 1024,
    /// Sessions that the peer may have open at a time on one connection. 128, as HTTP/2 servers have for streams.
    sessions: u64 = 128,
    /// Exchanges that the peer may have open at a time in one session, running handlers included. 1024.
    exchanges: u64 = 1024,
    /// Handlers of one connection that wait for something, streams that answer included: those that have a task. A call
    /// beyond them is refused before it is started. 8192: 64 for each of 128 sessions, and at a few KiB each no more
    /// memory than the windows of the sessions.
    handlers: u64 = 8192,
    /// Bytes that the peer may send ahead of the application on one stream. 256 KiB, as yamux has it.
    stream_window: u64 = 256 * 1024,
    /// The same for a whole session. 2 MiB: the first pieces of eight large messages.
    session_window: u64 = 2 * 1024 * 1024,
    /// Bytes of the whole connection that may be on their way from the peer: they are credited when they are read, and
    /// what sessions then keep is bounded by their own windows. 512 KiB, because what is on its way stands before everything
    /// that is sent later, however urgent: half a millisecond at 1 GiB/s. It grows with the path.
    connection_window: u64 = 512 * 1024,
    /// How far the window of a stream may grow where it holds up a reader that keeps pace, while there is `memory` for it;
    /// a `stream_window` above it does not grow. 8 MiB: 640 Mbit/s at 100 ms.
    max_stream_window: u64 = 8 * 1024 * 1024,
    /// The same for a session. 32 MiB: four such streams.
    max_session_window: u64 = 32 * 1024 * 1024,
    /// The same for the connection. 64 MiB: 5 Gbit/s at 100 ms.
    max_connection_window: u64 = 64 * 1024 * 1024,
    /// Bytes of answers and items that the peer may leave waiting to be sent in a session before further calls of it there are
    /// refused: it asks, and takes nothing. 64 MiB: sixteen of the longest messages. Handlers that run already may add theirs.
    unsent: u64 = 64 * 1024 * 1024,
    /// The most weight that a session gets because its peer wishes so; what this side asks for its own is not held to it.
    /// 64: four times what a session has that asks for nothing, so that 128 such sessions still leave each of this
    /// side's own its turn in every 8 MiB.
    max_weight: u16 = 64,
    /// Bytes of replies that a peer may leave untaken before it is not read any more. 64 KiB, as much as a batch.
    owed: u64 = 64 * 1024,
    /// Calls of the peer that it may cancel within a tenth of a second, in one session: each costs a handler's start. Each
    /// call that completes makes up for one. 200, and 33 a second: as nghttp2 has it for resets.
    cancels: Allowance = Allowance::new(200, 33),
    /// Calls that may break the rules of their exchange, in one session: each makes this side write a RESET. 1000, and 33 a
    /// second: as many as h2 bears in all, and a trickle for ever.
    resets: Allowance = Allowance::new(1000, 33),
    /// All that a peer does wrong on a connection and that does not end it: what counts above, and sessions that are
    /// rejected or end by its fault. 10,000, and 330 a second, as nghttp2 has it for glitches.
    errors: Allowance = Allowance::new(10_000, 330),
    /// The time a peer has for the whole handshake. 10 s.
    handshake: Duration = Duration::from_secs(10),
    /// How long a server keeps a connection on which no session is open, before it goes away in good order. For ever:
    /// clients hold connections for later, and to be called, and whoever wants to hold one for no good opens a session.
    /// It is for servers whose clients all open one, and sometimes forget a connection.
    idle: Duration = LONGEST,
    /// Silence after which a PING goes out; the server's value holds for both sides. 15 s.
    keepalive_interval: Duration = Duration::from_secs(15),
    /// Silence behind a PING after which the peer counts as gone; the server's value holds for both sides. 10 s.
    keepalive_timeout: Duration = Duration::from_secs(10),
    /// A peer that takes no byte for this long while bytes wait for it counts as gone. 10 s, as hashicorp's yamux has it.
    write_stall: Duration = Duration::from_secs(10),
    /// The deadline of a unary call that names none. 30 s. Streams have none by default.
    default_deadline: Duration = Duration::from_secs(30),
    /// The longest deadline granted to a call from the peer. 1 h.
    max_deadline: Duration = Duration::from_secs(3600),
    /// How long a server that drains waits for what is under way. 30 s: every call that names no deadline has ended then.
    drain: Duration = Duration::from_secs(30),
    /// Metadata of one call, in bytes as they travel; what this side sends is held to it too. 16 KiB: twice what HTTP
    /// servers take of headers, for tokens with many claims.
    metadata_bytes: u32 = 16 * 1024,
    /// Keys in the metadata of one call, likewise. 64: traces, tokens and tenants together need a dozen.
    metadata_entries: u32 = 64,
}

/// The smallest window that makes progress worth its frames, in bytes.
pub const SMALLEST_WINDOW: u64 = 512;

/// The least memory of a server that serves anybody, in bytes.
pub const SMALLEST_MEMORY: u64 = 1024 * 1024;

/// The largest window, in bytes: far more than anybody holds, and far from where varints end.
pub const LARGEST_WINDOW: u64 = 1 << 40;

/// The most of what is counted one by one: tables have 32-bit places.
pub const LARGEST_COUNT: u64 = 1 << 31;
/// The most metadata of a call, in bytes: it stands in one frame, and is no place for payloads.
pub const MOST_METADATA: u32 = 1024 * 1024;

/// The most keys in it: each is compared with those before.
pub const MOST_METADATA_ENTRIES: u32 = 256;

/// The shortest keepalive: ten PINGs a second are the most that a peer answers (§8.3).
pub const SMALLEST_KEEPALIVE: Duration = Duration::from_millis(100);

/// The shortest time that is worth waiting: timers do not tell shorter ones apart.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// The longest time, which is as good as for ever: in milliseconds it is still a varint.
pub const LONGEST: Duration = Duration::from_secs(1 << 32);

impl Limits {
    /// Checks that each limit is one that can be kept.
    ///
    /// # Errors
    /// A sentence that names the limit and the fix.
    pub fn check(&self) -> Result<(), String> {
        let windows = SMALLEST_WINDOW..=LARGEST_WINDOW;
        let sizes = [
            ("max_frame", self.max_frame.into(), SMALLEST_FRAME.into()..=MAX_LEN.into()),
            ("max_message", self.max_message.into(), 1..=u32::MAX.into()),
            ("reassembly", self.reassembly, 0..=LARGEST_WINDOW),
            ("stream_window", self.stream_window, windows.clone()),
            ("session_window", self.session_window, windows.clone()),
            ("connection_window", self.connection_window, windows.clone()),
            ("max_stream_window", self.max_stream_window, windows.clone()),
            ("max_session_window", self.max_session_window, windows.clone()),
            ("max_connection_window", self.max_connection_window, windows.clone()),
            ("owed", self.owed, windows),
            ("unsent", self.unsent, 0..=LARGEST_WINDOW),
            ("memory", self.memory, SMALLEST_MEMORY..=LARGEST_WINDOW),
            ("metadata_bytes", self.metadata_bytes.into(), 0..=MOST_METADATA.into()),
        ];
        for (name, value, range) in sizes {
            if !range.contains(&value) {
                let (least, most) = (range.start(), power(*range.end()));
                return Err(format!("Limits::{name} is {value}; give it at least {least} bytes and at most {most}"));
            }
        }
        let counts = [
            ("connections", self.connections),
            ("per_peer", self.per_peer),
            ("cancels", self.cancels.burst.into()),
            ("resets", self.resets.burst.into()),
            ("errors", self.errors.burst.into()),
            ("sessions", self.sessions),
            ("exchanges", self.exchanges),
            ("handlers", self.handlers),
        ];
        let counts = counts.map(|(name, value)| (name, value, 1..=LARGEST_COUNT));
        let entries = ("metadata_entries", self.metadata_entries.into(), 0..=MOST_METADATA_ENTRIES.into());
        for (name, value, range) in counts.into_iter().chain([entries]) {
            if !range.contains(&value) {
                let (least, most) = (range.start(), power(*range.end()));
                return Err(format!("Limits::{name} is {value}; give it at least {least} and at most {most}"));
            }
        }
        if !(1..=MAX_WEIGHT).contains(&self.max_weight) {
            return Err(format!("Limits::max_weight is {}; give it at least 1 and at most {MAX_WEIGHT}", self.max_weight));
        }
        let times = [
            ("handshake", self.handshake, SHORTEST),
            ("idle", self.idle, SHORTEST),
            ("keepalive_interval", self.keepalive_interval, SMALLEST_KEEPALIVE),
            ("keepalive_timeout", self.keepalive_timeout, SMALLEST_KEEPALIVE),
            ("write_stall", self.write_stall, SHORTEST),
            ("default_deadline", self.default_deadline, SHORTEST),
            ("max_deadline", self.max_deadline, SHORTEST),
            ("drain", self.drain, Duration::ZERO),
        ];
        for (name, value, least) in times {
            if !(least..=LONGEST).contains(&value) {
                return Err(format!("Limits::{name} is {value:?}; give it at least {least:?} and at most {LONGEST:?}"));
            }
        }
        Ok(())
    }

    /// What a session grants to its peer under these limits.
    pub fn windows(&self) -> Windows {
        Windows {
            stream: self.stream_window,
            session: self.session_window,
            exchanges: self.exchanges,
            message: u64::from(self.max_message),
        }
    }

    /// The constants of a session under these limits.
    pub fn session(&self) -> SessionConfig {
        SessionConfig {
            windows: self.windows(),
            max_stream_window: self.max_stream_window,
            max_session_window: self.max_session_window,
            reassembly: self.reassembly,
            default_deadline: self.default_deadline,
            max_deadline: self.max_deadline,
            metadata_bytes: self.metadata_bytes,
            metadata_entries: self.metadata_entries,
            cancels: self.cancels,
            resets: self.resets,
            unsent: self.unsent,
            max_weight: self.max_weight,
        }
    }
}

/// A session's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// What this side is ready to receive.
    pub windows: Windows,
    /// See [`Limits::max_stream_window`].
    pub max_stream_window: u64,
    /// See [`Limits::max_session_window`].
    pub max_session_window: u64,
    /// See [`Limits::reassembly`].
    pub reassembly: u64,
    /// See [`Limits::default_deadline`].
    pub default_deadline: Duration,
    /// See [`Limits::max_deadline`].
    pub max_deadline: Duration,
    /// See [`Limits::metadata_bytes`].
    pub metadata_bytes: u32,
    /// See [`Limits::metadata_entries`].
    pub metadata_entries: u32,
    /// See [`Limits::cancels`].
    pub cancels: Allowance,
    /// See [`Limits::resets`].
    pub resets: Allowance,
    /// See [`Limits::unsent`].
    pub unsent: u64,
    /// See [`Limits::max_weight`].
    pub max_weight: u16,
}

/// A bound as people write it.
fn power(bound: u64) -> String {
    match bound {
        _ if bound.is_power_of_two() => format!("2^{}", bound.ilog2()),
        _ if (bound + 1).is_power_of_two() => format!("2^{} - 1", (bound + 1).ilog2()),
        _ => bound.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit with its bounds, and how to set it to a number of bytes, pieces or milliseconds.
    type Case = (&'static str, u64, u64, fn(Limits, u64) -> Limits);

    /// As many milliseconds as [`LONGEST`] has.
    const AGES: u64 = (1 << 32) * 1000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const CASES: [Case; 31] = [
        ("connections", 1, 1 << 31, |limits, n| limits.connections(n)),
        ("per_peer", 1, 1 << 31, |limits, n| limits.per_peer(n)),
        ("memory", 1 << 20, 1 << 40, |limits, n| limits.memory(n)),
        ("max_frame", 4096, (1 << 24) - 1, |limits, n| limits.max_frame(n as u32)),
        ("max_message", 1, u32::MAX as u64, |limits, n| limits.max_message(n as u32)),
        ("reassembly", 0, 1 << 40, |limits, n| limits.reassembly(n)),
        ("sessions", 1, 1 << 31, |limits, n| limits.sessions(n)),
        ("exchanges", 1, 1 << 31, |limits, n| limits.exchanges(n)),
        ("handlers", 1, 1 << 31, |limits, n| limits.handlers(n)),
        ("stream_window", 512, 1 << 40, |limits, n| limits.stream_window(n)),
        ("session_window", 512, 1 << 40, |limits, n| limits.session_window(n)),
        ("connection_window", 512, 1 << 40, |limits, n| limits.connection_window(n)),
        ("max_stream_window", 512, 1 << 40, |limits, n| limits.max_stream_window(n)),
        ("max_session_window", 512, 1 << 40, |limits, n| limits.max_session_window(n)),
        ("max_connection_window", 512, 1 << 40, |limits, n| limits.max_connection_window(n)),
        ("unsent", 0, 1 << 40, |limits, n| limits.unsent(n)),
        ("max_weight", 1, 256, |limits, n| limits.max_weight(n as u16)),
        ("owed", 512, 1 << 40, |limits, n| limits.owed(n)),
        ("cancels", 1, 1 << 31, |limits, n| limits.cancels(Allowance::new(n as u32, 33))),
        ("resets", 1, 1 << 31, |limits, n| limits.resets(Allowance::new(n as u32, 33))),
        ("errors", 1, 1 << 31, |limits, n| limits.errors(Allowance::new(n as u32, 330))),
        ("handshake", 1, AGES, |limits, n| limits.handshake(ms(n))),
        ("idle", 1, AGES, |limits, n| limits.idle(ms(n))),
        ("keepalive_interval", 100, AGES, |limits, n| limits.keepalive_interval(ms(n))),
        ("keepalive_timeout", 100, AGES, |limits, n| limits.keepalive_timeout(ms(n))),
        ("write_stall", 1, AGES, |limits, n| limits.write_stall(ms(n))),
        ("default_deadline", 1, AGES, |limits, n| limits.default_deadline(ms(n))),
        ("max_deadline", 1, AGES, |limits, n| limits.max_deadline(ms(n))),
        ("drain", 0, AGES, |limits, n| limits.drain(ms(n))),
        ("metadata_bytes", 0, 1 << 20, |limits, n| limits.metadata_bytes(n as u32)),
        ("metadata_entries", 0, 256, |limits, n| limits.metadata_entries(n as u32)),
    ];

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn each_limit_is_checked_at_both_ends_and_named() {
        for (name, least, most, set) in CASES {
            let check = |n| set(Limits::default(), n).check();
            for inside in [least, least + 1, most - 1, most] {
                assert_eq!(check(inside), Ok(()), "{name} of {inside}");
            }
            // No type of a limit holds less than nothing, and that of a message's length no more than it may be.
            let outside = [least.checked_sub(1), (name != "max_message").then_some(most + 1)];
            for outside in outside.into_iter().flatten() {
                let text = check(outside).expect_err(name);
                assert!(text.starts_with(&format!("Limits::{name} is ")) && text.contains("; give it at least "), "{text}");
            }
        }
    }

    #[test]
    fn the_table_of_checks_has_every_field() {
        let shown = format!("{:#?}", Limits::default());
        let fields: Vec<&str> = shown.lines().filter_map(|line| line.trim().split_once(": ").map(|(name, _)| name)).collect();
        assert_eq!(fields, CASES.map(|(name, ..)| name));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_fix() {
        let says = |limits: Limits| limits.check().unwrap_err();
        assert_eq!(
            says(Limits::default().session_window(3)),
            "Limits::session_window is 3; give it at least 512 bytes and at most 2^40"
        );
        assert_eq!(
            says(Limits::default().max_frame(1 << 24)),
            "Limits::max_frame is 16777216; give it at least 4096 bytes and at most 2^24 - 1"
        );
        assert_eq!(says(Limits::default().exchanges(0)), "Limits::exchanges is 0; give it at least 1 and at most 2^31");
        assert_eq!(
            says(Limits::default().keepalive_timeout(ms(99))),
            "Limits::keepalive_timeout is 99ms; give it at least 100ms and at most 4294967296s"
        );
    }
}
