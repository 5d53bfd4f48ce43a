//! What a call can come to: the application's own error, or a fault of the call itself that says whether the call may
//! have run.
//!
//! ```text
//! Result<T, E> = std::result::Result<T, Error<E>>        Error<E> ─┬─ App(E)       the application said no
//!                                                                  └─ Fault(Fault) the call failed
//! ```

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::code::Code;
use crate::metadata::MetadataError;
use crate::proto::{ExchangeFault, Origin};

/// What a method returns. `E` is the application's error; without one, a call can only fail by a [`Fault`].
pub type Result<T, E = Never> = std::result::Result<T, Error<E>>;

/// An application's error that travels: any `std::error::Error` that serde can carry. Implemented for all of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel as the error of a method",
    label = "this does not travel",
    note = "it must implement `std::error::Error` (for example by `thiserror`), `serde::Serialize` and `serde::Deserialize`"
)]
pub trait AppError: std::error::Error + Serialize + DeserializeOwned + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<E: std::error::Error + Serialize + DeserializeOwned + Send + Sync + 'static> AppError for E {}

/// The error of methods that have none of their own: it cannot exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

impl Serialize for Never {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        match *self {}
    }
}

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom("the method has no application error"))
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E = Never> {
    /// The application's own error.
    App(E),
    /// The call itself failed.
    Fault(Fault),
}

impl<E> Error<E> {
    /// The application's error, if it is one.
    pub fn app(&self) -> Option<&E> {
        match self {
            Self::App(error) => Some(error),
            Self::Fault(_) => None,
        }
    }

    /// The fault of the call, if it is one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::App(_) => None,
            Self::Fault(fault) => Some(fault),
        }
    }

    /// The same error with the application's part converted; a fault keeps its class.
    pub fn map_app<F>(self, convert: impl FnOnce(E) -> F) -> Error<F> {
        match self {
            Self::App(error) => Error::App(convert(error)),
            Self::Fault(fault) => Error::Fault(fault),
        }
    }
}

impl Error {
    /// The fault, which it must be.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::App(never) => match never {},
            Self::Fault(fault) => fault,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::App(error) => error.source(),
            Self::Fault(fault) => fault.source(),
        }
    }
}

/// One `?` for the application's own errors.
impl<E: AppError> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Self::App(error)
    }
}

/// One `?` for faults.
impl<E> From<Fault> for Error<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The class of a fault: what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The deadline passed.
    Deadline,
    /// The call was cancelled.
    Cancelled,
    /// The peer has too much to do; nothing was started.
    Overloaded,
    /// The connection or session was lost before the call was sent: it is safe to call again.
    NotStarted,
    /// The connection or session was lost with the call under way: nobody knows whether it ran.
    Indeterminate,
    /// The two sides disagree about service, method, arguments or answer.
    Incompatible,
    /// Arguments or answer exceed a limit.
    TooLarge,
    /// The handler panicked, or the framework on the other side is at fault.
    Internal,
    /// The caller is not authenticated or not allowed; nothing was started.
    Denied,
}

/// A call failed for a reason that is not the application's. Cheap to move: its details are boxed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    kind: FaultKind,
    code: Code,
    text: String,
    may_have_run: bool,
    retry_after: Option<Duration>,
}

impl Fault {
    /// A fault of its class with words for people. It is taken that the call may have run, unless the class says
    /// otherwise; see [`not_run`](Self::not_run).
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        let (code, may_have_run) = match kind {
            FaultKind::Deadline => (Code::DEADLINE, true),
            FaultKind::Cancelled => (Code::CANCELLED, true),
            FaultKind::Overloaded => (Code::REFUSED, false),
            FaultKind::NotStarted => (Code::CLOSED, false),
            FaultKind::Indeterminate => (Code::CLOSED, true),
            FaultKind::Incompatible => (Code::BAD_ARGUMENTS, true),
            FaultKind::TooLarge => (Code::TOO_LARGE, true),
            FaultKind::Internal => (Code::INTERNAL, true),
            FaultKind::Denied => (Code::AUTH, false),
        };
        Self(Box::new(Details { kind, code, text: text.into(), may_have_run, retry_after: None }))
    }

    /// A failure of this side that is no error of the application's, from whatever describes it: what ends a stream
    /// whose source broke.
    pub fn internal(detail: impl fmt::Display) -> Self {
        Self::new(FaultKind::Internal, detail.to_string())
    }

    /// The refusal of a caller who is not authenticated or not allowed, for a layer before the handler: it tells the
    /// caller that nothing was started. From a handler, which has started, it arrives as [`FaultKind::Internal`]; a
    /// service that says no has an error of its own for that.
    pub fn denied(text: impl Into<String>) -> Self {
        Self::new(FaultKind::Denied, text)
    }

    /// A fault that stands for a code of the protocol.
    pub fn from_code(code: Code, text: impl Into<String>, may_have_run: bool) -> Self {
        let kind = match code {
            Code::DEADLINE => FaultKind::Deadline,
            Code::CANCELLED => FaultKind::Cancelled,
            Code::REFUSED | Code::CALM => FaultKind::Overloaded,
            Code::BAD_ARGUMENTS
            | Code::UNKNOWN_METHOD
            | Code::UNKNOWN_SERVICE
            | Code::NO_CODEC
            | Code::VERSION
            | Code::MODE
            | Code::UNIT => FaultKind::Incompatible,
            Code::TOO_LARGE => FaultKind::TooLarge,
            Code::INTERNAL => FaultKind::Internal,
            Code::AUTH => FaultKind::Denied,
            _ if may_have_run => FaultKind::Indeterminate,
            _ => FaultKind::NotStarted,
        };
        Self(Box::new(Details { kind, code, text: text.into(), may_have_run, retry_after: None }))
    }

    /// The same fault, with the knowledge that the call never ran.
    #[must_use]
    pub fn not_run(mut self) -> Self {
        self.0.may_have_run = false;
        self
    }

    /// The same fault as that of a handler which has run: a call that it made downstream may not have.
    #[must_use]
    pub fn run(mut self) -> Self {
        self.0.may_have_run = true;
        self
    }

    /// The class.
    pub fn kind(&self) -> FaultKind {
        self.0.kind
    }

    /// The protocol's code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Words for people; may be empty.
    pub fn detail(&self) -> &str {
        &self.0.text
    }

    /// Whether the call may have run, in part or whole. `false` is a promise: no handler was started, and calling
    /// again does nothing twice.
    pub fn may_have_run(&self) -> bool {
        self.0.may_have_run
    }

    /// When the peer suggests to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl From<ExchangeFault> for Fault {
    fn from(fault: ExchangeFault) -> Self {
        let ExchangeFault { reason, origin, sent } = fault;
        let may_have_run = sent && !(origin == Origin::Peer && promises_not_run(reason.code));
        Self::from_code(reason.code, reason.text, may_have_run)
    }
}

/// What cannot travel was not sent.
impl From<MetadataError> for Fault {
    fn from(error: MetadataError) -> Self {
        Self::from_code(error.code(), error.to_string(), false)
    }
}

/// Codes by which a peer refuses a call before any handler sees it (docs/PROTOCOL.md §9).
pub fn promises_not_run(code: Code) -> bool {
    matches!(code, Code::REFUSED | Code::AUTH | Code::BAD_ARGUMENTS | Code::UNKNOWN_METHOD)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { kind, code, text, may_have_run, .. } = &*self.0;
        match kind {
            FaultKind::NotStarted => write!(f, "the call was not started: ")?,
            FaultKind::Indeterminate => write!(f, "the call may or may not have run: ")?,
            _ => {}
        }
        if text.is_empty() {
            code.fmt(f)?
        } else {
            f.write_str(text)?
        }
        if !may_have_run && !matches!(kind, FaultKind::NotStarted) {
            f.write_str(" (the call was not started)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Conversions for the errors of calls made on behalf of another call.
pub trait ResultExt<T> {
    /// The application's error type of the call that was made.
    type App;

    /// Passes the error of a call made downstream up as this method's own: the application's error is converted, a
    /// fault keeps its class.
    ///
    /// # Errors
    /// The same error, lifted.
    fn lift<F: From<Self::App>>(self) -> Result<T, F>;
}

impl<T, E> ResultExt<T> for Result<T, E> {
    type App = E;

    fn lift<F: From<E>>(self) -> Result<T, F> {
        self.map_err(|error| error.map_app(F::from))
    }
}

/// What a method's future yields: generated code asks a type by another name for what it is.
#[diagnostic::on_unimplemented(
    message = "a service's method returns `rpc::Result<T, E>`, and `{Self}` is none",
    label = "not an `rpc::Result`",
    note = "any call can fail on its way: `rpc::Result` has a place for that beside the application's own error"
)]
pub trait Outcome {
    /// The value.
    type Value;

    /// The application's error.
    type Error;

    /// It, as what it is.
    fn into_result(self) -> Result<Self::Value, Self::Error>;

    /// The other way.
    fn from_result(result: Result<Self::Value, Self::Error>) -> Self;
}

impl<T, E> Outcome for Result<T, E> {
    type Value = T;
    type Error = E;

    #[inline]
    fn into_result(self) -> Self {
        self
    }

    #[inline]
    fn from_result(result: Self) -> Self {
        result
    }
}

/// Conversions for foreign errors.
pub trait OrApp<T, X> {
    /// Makes a foreign error the application's own, so that `?` carries it: `file.read().or_app()?` with
    /// `MyError: From<io::Error>`.
    ///
    /// # Errors
    /// The foreign error as [`Error::App`].
    fn or_app<E: From<X>>(self) -> Result<T, E>;
}

impl<T, X> OrApp<T, X> for std::result::Result<T, X> {
    fn or_app<E: From<X>>(self) -> Result<T, E> {
        self.map_err(|error| Error::App(E::from(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Reason;

    #[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
    enum KvError {
        #[error("no such key")]
        NoSuchKey,
        #[error("disk: {0}")]
        Disk(String),
    }

    impl From<std::io::Error> for KvError {
        fn from(error: std::io::Error) -> Self {
            Self::Disk(error.to_string())
        }
    }

    #[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
    #[error("gateway: {0}")]
    struct GatewayError(String);

    impl From<KvError> for GatewayError {
        fn from(error: KvError) -> Self {
            Self(error.to_string())
        }
    }

    fn get(missing: bool) -> Result<u32, KvError> {
        if missing { Err(KvError::NoSuchKey)? } else { Ok(7) }
    }

    #[test]
    fn one_question_mark_serves_own_errors_and_faults() {
        fn fault() -> Result<u32, KvError> {
            Err(Fault::new(FaultKind::Overloaded, ""))?
        }
        assert_eq!(get(true), Err(Error::App(KvError::NoSuchKey)));
        assert_eq!(get(true).unwrap_err().app(), Some(&KvError::NoSuchKey));
        assert_eq!(fault().unwrap_err().app(), None);
        assert_eq!(fault().unwrap_err().fault().map(Fault::kind), Some(FaultKind::Overloaded));
    }

    #[test]
    fn a_lifted_fault_keeps_its_class_and_a_lifted_error_is_converted() {
        fn gateway(result: Result<u32, KvError>) -> Result<u32, GatewayError> {
            let value: u32 = result.lift()?;
            Ok(value + 1)
        }
        let fault = Fault::new(FaultKind::Deadline, "late");
        assert_eq!(gateway(Err(fault.clone().into())), Err(Error::Fault(fault)));
        assert_eq!(gateway(get(true)), Err(Error::App(GatewayError("no such key".into()))));
        assert_eq!(gateway(get(false)), Ok(8));
    }

    #[test]
    fn a_foreign_error_becomes_the_applications_own() {
        fn read() -> Result<(), KvError> {
            Err(std::io::Error::other("torn")).or_app()?
        }
        assert_eq!(read(), Err(Error::App(KvError::Disk("torn".into()))));
    }

    #[test]
    fn a_fault_says_whether_the_call_may_have_run() {
        let lost = |sent| Fault::from(ExchangeFault { reason: Reason::new(Code::CLOSED, "gone"), origin: Origin::Local, sent });
        assert_eq!((lost(false).kind(), lost(false).may_have_run()), (FaultKind::NotStarted, false));
        assert_eq!((lost(true).kind(), lost(true).may_have_run()), (FaultKind::Indeterminate, true));
        let refused = ExchangeFault { reason: Reason::new(Code::UNKNOWN_METHOD, ""), origin: Origin::Peer, sent: true };
        assert!(!Fault::from(refused).may_have_run());
        let denied = ExchangeFault { reason: Reason::new(Code::AUTH, "no"), origin: Origin::Peer, sent: true };
        let denied = Fault::from(denied);
        assert_eq!((denied.kind(), denied.may_have_run(), &denied), (FaultKind::Denied, false, &Fault::denied("no")));
    }

    #[test]
    fn a_result_is_no_larger_than_its_value_and_a_pointer() {
        assert!(size_of::<Result<u64>>() <= 16);
    }
}
