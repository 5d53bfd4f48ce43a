//! The limits of one side, each with its reason (docs/PROTOCOL.md §10).

use std::time::Duration;

use crate::wire::hello::{SMALLEST_FRAME, Windows};

/// What this side takes from a peer. The defaults are for peers that are not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest frame accepted, in bytes. 256 KiB: large enough that a 1 MiB message takes five frames, small
    /// enough that the frame in the way of another session's answer is gone in a millisecond at 2 Gbit/s.
    pub max_frame: u32,
    /// The longest message accepted, in bytes. 4 MiB, as gRPC's implementations have it.
    pub max_message: u32,
    /// Bytes of incomplete messages over their stream window that a session admits at a time; the first in the queue is
    /// always admitted. 16 MiB: four messages of maximum size.
    pub reassembly: u64,
    /// Sessions that the peer may have open at a time on one connection. 128, as HTTP/2 servers have for streams.
    pub sessions: u64,
    /// Exchanges that the peer may have open at a time in one session, running handlers included. 1024.
    pub exchanges: u64,
    /// Bytes that the peer may send ahead of the application on one stream. 256 KiB, as yamux has it.
    pub stream_window: u64,
    /// The same for a whole session. 2 MiB: the first pieces of eight large messages.
    pub session_window: u64,
    /// Bytes that the peer may send ahead of this side's driver over the whole connection; what sessions hold is bounded by
    /// their own windows. 4 MiB: 30 ms at 1 Gbit/s.
    pub connection_window: u64,
    /// The time a peer has for the whole handshake. 10 s.
    pub handshake: Duration,
    /// Silence after which a PING goes out; the server's value holds for both sides. 15 s.
    pub keepalive_interval: Duration,
    /// Silence behind a PING after which the peer counts as gone; the server's value holds for both sides. 10 s.
    pub keepalive_timeout: Duration,
    /// A peer that takes no byte for this long while bytes wait for it counts as gone. 10 s, as hashicorp's yamux has it.
    pub write_stall: Duration,
    /// The deadline of a unary call that names none. 30 s. Streams have none by default.
    pub default_deadline: Duration,
    /// The longest deadline granted to a call from the peer. 1 h.
    pub max_deadline: Duration,
    /// How long a server that drains waits for what is under way. 30 s: every call that names no deadline has ended then.
    pub drain: Duration,
    /// Metadata of one call, in bytes as they travel; what this side sends is held to it too. 16 KiB: twice what HTTP
    /// servers take of headers, for tokens with many claims.
    pub metadata_bytes: u32,
    /// Keys in the metadata of one call, likewise. 64: traces, tokens and tenants together need a dozen.
    pub metadata_entries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 256 * 1024,
            max_message: 4 * 1024 * 1024,
            reassembly: 16 * 1024 * 1024,
            sessions: 128,
            exchanges: 1024,
            stream_window: 256 * 1024,
            session_window: 2 * 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(15),
            keepalive_timeout: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
            metadata_bytes: 16 * 1024,
            metadata_entries: 64,
        }
    }
}

/// The smallest window that makes progress worth its frames, in bytes.
pub const SMALLEST_WINDOW: u64 = 512;

/// The largest window, in bytes: far more than anybody holds, and far from where varints end.
pub const LARGEST_WINDOW: u64 = 1 << 40;

/// The most metadata of a call, in bytes: it stands in one frame, and is no place for payloads.
pub const MOST_METADATA: u32 = 1024 * 1024;

/// The most keys in it: each is compared with those before.
pub const MOST_METADATA_ENTRIES: u32 = 256;

/// The shortest keepalive: ten PINGs a second are the most that a peer answers (§8.3).
pub const SMALLEST_KEEPALIVE: Duration = Duration::from_millis(100);

impl Limits {
    /// Checks that the limits fit together.
    ///
    /// # Errors
    /// A sentence that names the limit and the fix.
    pub fn check(&self) -> Result<(), String> {
        let windows = [
            ("stream_window", self.stream_window),
            ("session_window", self.session_window),
            ("connection_window", self.connection_window),
        ];
        for (name, value) in windows {
            if !(SMALLEST_WINDOW..=LARGEST_WINDOW).contains(&value) {
                return Err(format!("Limits::{name} is {value}; give it at least {SMALLEST_WINDOW} bytes and at most 2^40"));
            }
        }
        if self.max_frame < SMALLEST_FRAME {
            return Err(format!("Limits::max_frame is {}; give it at least {SMALLEST_FRAME} bytes", self.max_frame));
        }
        if self.keepalive_interval < SMALLEST_KEEPALIVE || self.keepalive_timeout < SMALLEST_KEEPALIVE {
            return Err(format!("Limits::keepalive_interval and keepalive_timeout must be at least {SMALLEST_KEEPALIVE:?}"));
        }
        if self.max_frame > crate::wire::header::MAX_LEN {
            return Err(format!("Limits::max_frame is {}; a frame holds at most 2^24 - 1 bytes", self.max_frame));
        }
        if self.exchanges == 0 || self.sessions == 0 {
            return Err("Limits::exchanges and Limits::sessions must be at least 1".to_owned());
        }
        let metadata = [
            ("metadata_bytes", self.metadata_bytes, MOST_METADATA),
            ("metadata_entries", self.metadata_entries, MOST_METADATA_ENTRIES),
        ];
        for (name, value, most) in metadata {
            if value > most {
                return Err(format!("Limits::{name} is {value}; give it at most {most}"));
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
            reassembly: self.reassembly,
            default_deadline: self.default_deadline,
            max_deadline: self.max_deadline,
            metadata_bytes: self.metadata_bytes,
            metadata_entries: self.metadata_entries,
        }
    }
}

/// A session's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// What this side is ready to receive.
    pub windows: Windows,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_window_below_the_smallest_is_named() {
        for (window, ok) in [(SMALLEST_WINDOW - 1, false), (SMALLEST_WINDOW, true), (SMALLEST_WINDOW + 1, true)] {
            let limits = Limits { stream_window: window, ..Limits::default() };
            assert_eq!(limits.check().is_ok(), ok);
        }
        let limits = Limits { session_window: 3, ..Limits::default() };
        assert_eq!(limits.check().unwrap_err(), "Limits::session_window is 3; give it at least 512 bytes and at most 2^40");
    }

    #[test]
    fn metadata_has_a_largest_limit() {
        for (over, ok) in [(-1, true), (0, true), (1, false)] {
            let bytes = Limits { metadata_bytes: MOST_METADATA.wrapping_add_signed(over), ..Limits::default() };
            let entries = Limits { metadata_entries: MOST_METADATA_ENTRIES.wrapping_add_signed(over), ..Limits::default() };
            assert_eq!((bytes.check().is_ok(), entries.check().is_ok()), (ok, ok), "{over}");
        }
        let limits = Limits { metadata_entries: 257, ..Limits::default() };
        assert_eq!(limits.check().unwrap_err(), "Limits::metadata_entries is 257; give it at most 256");
    }
}
