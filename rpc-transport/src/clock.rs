//! Time as the driver counts it: monotonic, since the process's first look, so that sessions can move between
//! connections and keep their deadlines. And the time that is left to a call.
//!
//! It is tokio's clock, which is the machine's unless a test holds it: then timers and what is due by them agree.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rpc_core::context::Context;
use rpc_core::proto::Time;

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(here)
}

/// The time now, as applications count it.
#[inline]
pub(crate) fn here() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time now, as the pure half counts it and as applications do.
pub(crate) fn now() -> (Time, Instant) {
    let epoch = epoch();
    let now = here();
    (Time::from_micros(now.saturating_duration_since(epoch).as_micros() as u64), now)
}

/// The same point for applications and timers.
pub(crate) fn instant(time: Time) -> Instant {
    let epoch = epoch();
    // A point that no instant can express is as good as one in a year.
    epoch.checked_add(Duration::from_micros(time.as_micros())).unwrap_or(epoch + Duration::from_secs(31_536_000))
}

/// The time that a call has, from its own option and the deadline of the call that it is made for.
pub(crate) fn time_left(timeout: Option<Duration>, inherited: Option<Instant>) -> Option<Duration> {
    let inherited = inherited.or_else(Context::current_deadline);
    let inherited = inherited.map(|deadline| deadline.saturating_duration_since(here()));
    match (timeout, inherited) {
        (Some(own), Some(inherited)) => Some(own.min(inherited)),
        (own, inherited) => own.or(inherited),
    }
}
