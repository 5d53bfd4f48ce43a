//! The one table of reason codes, shared by RESET, CANCEL, S_REJECT, S_ABORT, HELLO_REJECT and CONN_CLOSE
//! (docs/PROTOCOL.md §9). No other room is imported here.

use std::fmt;

/// Why an exchange, session or connection ended. Unknown numbers are kept and shown, never refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every code of the table with its name, for documents and tests.
            pub const TABLE: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name))),*];

            /// A few plain words for a person, or `None` for a number outside of the table.
            pub const fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// An orderly end.
    NO_ERROR = 0, "no error";
    /// The peer broke a rule of the protocol.
    PROTOCOL = 1, "protocol violation";
    /// More bytes or exchanges than credit was given for.
    FLOW = 2, "flow control violation";
    /// The two sides count the session's sequenced frames differently.
    SEQ_DIVERGED = 3, "sequence numbers diverged";
    /// A frame type that must be understood and is not.
    UNKNOWN_FRAME = 4, "unknown frame type";
    /// A frame, message or handshake over its limit.
    TOO_LARGE = 5, "too large";
    /// Too many provocations in too short a time.
    CALM = 6, "calm down";
    /// The caller lost interest.
    CANCELLED = 7, "cancelled by the caller";
    /// The call's deadline passed.
    DEADLINE = 8, "deadline exceeded";
    /// Refused before anything was started.
    REFUSED = 9, "refused, not started";
    /// Superseded by a newer attachment (reserved for resumable sessions).
    FENCED = 10, "fenced";
    /// Interrupted, to be resumed (reserved for activities).
    INTERRUPT = 11, "interrupted";
    /// Discarded for good (reserved for activities).
    DISCARD = 12, "discarded";
    /// The peer never acknowledges (reserved for resumable sessions).
    ACK_STALL = 13, "acknowledgements stalled";
    /// Not authenticated or not allowed.
    AUTH = 14, "not authorised";
    /// The session's authentication ran out.
    AUTH_EXPIRED = 15, "authentication expired";
    /// The session was kept as long as promised (reserved for resumable sessions).
    EXPIRED = 16, "session expired";
    /// The session gave way to others (reserved for resumable sessions).
    EVICTED = 17, "session evicted";
    /// The server started anew (reserved for resumable sessions).
    RESTARTED = 18, "server restarted";
    /// The other end has closed.
    CLOSED = 19, "closed";
    /// Try elsewhere (reserved).
    REDIRECT = 20, "redirected";
    /// A fault on the answering side, for example a panic in the handler.
    INTERNAL = 21, "internal error";
    /// The arguments do not decode.
    BAD_ARGUMENTS = 22, "arguments do not decode";
    /// The service has no such method.
    UNKNOWN_METHOD = 23, "unknown method";
    /// No such service is offered here.
    UNKNOWN_SERVICE = 24, "unknown service";
    /// The sides have no codec in common.
    NO_CODEC = 25, "no common codec";
    /// The sides have no protocol version in common.
    VERSION = 26, "no common version";
    /// The mode (single or multi session) is not offered here.
    MODE = 27, "mode not offered";
    /// A required unit is missing on the other side.
    UNIT = 28, "required unit missing";
    /// The peer went silent.
    KEEPALIVE = 29, "peer went silent";
    /// The handshake took too long.
    HANDSHAKE = 30, "handshake took too long";
    /// The peer stopped taking bytes.
    WRITE_STALL = 31, "peer stopped reading";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::TABLE.iter().find(|(code, _)| code == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "Code({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_unknown_ones_are_shown() {
        for (index, (code, _)) in Code::TABLE.iter().enumerate() {
            assert_eq!(code.0 as usize, index);
            assert!(code.text().is_some());
        }
        assert_eq!(Code(4711).to_string(), "code 4711");
        assert_eq!(format!("{:?}", Code::DEADLINE), "DEADLINE");
    }
}
