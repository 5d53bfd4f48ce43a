//! What TLS fails with, in words that say what to do.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Why there is no TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TlsError {
    kind: TlsErrorKind,
    text: String,
}

/// The class of a [`TlsError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The peer's certificate has expired.
    Expired,
    /// The peer's certificate is for a later time: it, or one of the two clocks, is wrong.
    NotYetValid,
    /// The peer's certificate is of no authority that this side trusts.
    UnknownAuthority,
    /// The server's certificate is for other names than the one that was expected.
    WrongName,
    /// The peer's certificate is refused for another reason.
    BadCertificate,
    /// The server wants a certificate of this side, or another than the one it was shown.
    ClientCertificate,
    /// The peer speaks another protocol than `rpc/1` over TLS.
    OtherProtocol,
    /// The peer does not speak TLS, or hung up where it would have.
    NotTls,
    /// The stream was cut off: TLS did not close it.
    CutOff,
    /// Anything else.
    Other,
}

impl TlsError {
    pub(crate) fn new(kind: TlsErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// A peer that did not name the protocol.
    pub(crate) fn other_protocol(them: &str) -> Self {
        let (kind, text) = other_protocol(them);
        Self { kind, text }
    }

    /// The one that an error of a stream was made of by [`into_io`](Self::into_io).
    pub(crate) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().cloned()
    }

    /// The class.
    pub fn kind(&self) -> TlsErrorKind {
        self.kind
    }

    /// The TLS error in an error of a stream, if that is what it is. `them` is what the peer is called; in the handshake
    /// bytes that make no sense and an early end have a meaning that they have not later.
    pub(crate) fn of(error: &io::Error, them: &str, handshake: bool) -> Option<Self> {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(error) => Some(explain(error, them, handshake)),
            None if error.kind() != io::ErrorKind::UnexpectedEof => None,
            None if handshake => {
                let text = format!("the {them} hung up in the handshake of TLS: maybe it does not speak TLS");
                Some(Self::new(TlsErrorKind::NotTls, text))
            }
            None => Some(Self::new(TlsErrorKind::CutOff, "the stream was cut off: TLS did not close it")),
        }
    }

    /// The same as a stream's error.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self.kind {
            TlsErrorKind::CutOff => io::ErrorKind::UnexpectedEof,
            TlsErrorKind::ClientCertificate => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

fn explain(error: &Error, them: &str, handshake: bool) -> TlsError {
    let (kind, text) = match error {
        Error::InvalidCertificate(problem) => certificate(problem, them),
        Error::AlertReceived(alert) => alerted(*alert, them),
        Error::NoCertificatesPresented => (TlsErrorKind::BadCertificate, format!("the {them} has no certificate")),
        Error::NoApplicationProtocol => other_protocol(them),
        Error::InvalidMessage(_) if handshake => {
            (TlsErrorKind::NotTls, format!("the {them} does not speak TLS: what it sent is something else"))
        }
        Error::PeerIncompatible(what) => (TlsErrorKind::Other, format!("the {them} has no TLS 1.3 in common with us: {what:?}")),
        other => (TlsErrorKind::Other, format!("TLS failed: {other}")),
    };
    TlsError::new(kind, text)
}

/// A peer that speaks something else inside of TLS.
fn other_protocol(them: &str) -> (TlsErrorKind, String) {
    let text = format!("the {them} speaks TLS and not this protocol: it did not agree to `rpc/1` (ALPN)");
    (TlsErrorKind::OtherProtocol, text)
}

/// What this side holds against the peer's certificate.
fn certificate(problem: &CertificateError, them: &str) -> (TlsErrorKind, String) {
    use CertificateError as Problem;
    let ago = |now: &UnixTime, then: &UnixTime| span(now.as_secs().abs_diff(then.as_secs()));
    match problem {
        Problem::Expired => (TlsErrorKind::Expired, format!("the {them}'s certificate has expired")),
        Problem::ExpiredContext { time, not_after } => {
            (TlsErrorKind::Expired, format!("the {them}'s certificate has expired, {} ago", ago(time, not_after)))
        }
        Problem::NotValidYet => (TlsErrorKind::NotYetValid, format!("the {them}'s certificate is not valid yet")),
        Problem::NotValidYetContext { time, not_before } => {
            let text =
                format!("the {them}'s certificate is not valid yet, but in {}: is the clock right?", ago(time, not_before));
            (TlsErrorKind::NotYetValid, text)
        }
        Problem::UnknownIssuer => {
            let text = format!(
                "the {them}'s certificate is of no authority that this side trusts: name its authority with ca=FILE or \
                 `ClientTls::authorities`"
            );
            (TlsErrorKind::UnknownAuthority, text)
        }
        // An authority that was made anew under its old name is the common case.
        Problem::BadSignature => {
            let text = format!("the {them}'s certificate is signed with another key than that of the authority which it names");
            (TlsErrorKind::UnknownAuthority, text)
        }
        Problem::NotValidForName => (TlsErrorKind::WrongName, format!("the {them}'s certificate is for another name")),
        Problem::NotValidForNameContext { expected, presented } => {
            let mut text = format!("the {them}'s certificate is not for `{}` but for ", expected.to_str());
            match presented.as_slice() {
                [] => text.push_str("no name at all"),
                names => {
                    for (at, name) in names.iter().take(NAMES).enumerate() {
                        let _ = write!(text, "{}`{}`", if at == 0 { "" } else { ", " }, bare(name));
                    }
                    text.push_str(if names.len() > NAMES { " and more" } else { "" });
                }
            }
            text.push_str(": expect another one with name=NAME, tls=NAME or `ClientTls::name`");
            (TlsErrorKind::WrongName, text)
        }
        other => (TlsErrorKind::BadCertificate, format!("the {them}'s certificate is refused: {other}")),
    }
}

/// Names that an error lists.
const NAMES: usize = 8;

/// A name without the kind that rustls puts around it: `DnsName("a")`.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.trim_matches('"')
}

/// A time in the largest unit of which there are two.
fn span(seconds: u64) -> String {
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let unit = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| format!("{:?}", Duration::from_secs(seconds)), |(length, name)| format!("{} {name}", seconds / length))
}

/// What the peer holds against this side.
fn alerted(alert: AlertDescription, them: &str) -> (TlsErrorKind, String) {
    use AlertDescription as Alert;
    let kind = TlsErrorKind::ClientCertificate;
    let refused = |why: &str| (kind, format!("the {them} refused this side's certificate: {why}"));
    match alert {
        Alert::CertificateRequired => {
            let text = format!(
                "the {them} wants a certificate of its clients: give one with cert=FILE&key=FILE or `ClientTls::identity`"
            );
            (kind, text)
        }
        Alert::UnknownCA => refused("it does not trust the authority that it is of"),
        Alert::DecryptError => refused("it is signed with another key than that of the authority which it names"),
        Alert::CertificateExpired => refused("it has expired, or is not valid yet"),
        Alert::CertificateRevoked => refused("it was revoked"),
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
            refused(alert.as_str().unwrap_or("without saying why"))
        }
        Alert::NoApplicationProtocol => other_protocol(them),
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            (TlsErrorKind::Other, format!("the {them} has no TLS 1.3 in common with us"))
        }
        other => (TlsErrorKind::Other, format!("the {them} broke TLS off: {}", other.as_str().unwrap_or("without saying why"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_written() {
        assert_eq!(bare("DnsName(\"*.example.org\")"), "*.example.org");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare("odd"), "odd");
    }

    #[test]
    fn times_are_told_in_the_largest_unit_that_says_something() {
        assert_eq!(
            [span(3), span(119), span(7000), span(90_000), span(172_800)],
            ["3s", "119s", "116 minutes", "25 hours", "2 days"]
        );
    }
}
