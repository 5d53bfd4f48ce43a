//! The one place where a clock is read: monotonic time since the process's first look at it, so that sessions can move
//! between connections and keep their deadlines.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rpc_core::proto::Time;

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// The time now, as the pure half counts it and as applications do.
pub(crate) fn now() -> (Time, Instant) {
    let epoch = epoch();
    let now = Instant::now();
    (Time::from_micros(now.saturating_duration_since(epoch).as_micros() as u64), now)
}

/// The same point for applications and timers.
pub(crate) fn instant(time: Time) -> Instant {
    let epoch = epoch();
    // A point that no instant can express is as good as one in a year.
    epoch.checked_add(Duration::from_micros(time.as_micros())).unwrap_or(epoch + Duration::from_secs(31_536_000))
}
