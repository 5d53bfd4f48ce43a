//! The time as an argument: microseconds since an epoch that the driver chose, never read here.

use std::time::Duration;

/// A point on the driver's monotonic clock, in microseconds since its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// A point `micros` microseconds behind the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This point moved by `duration`; the far end of the clock where that overflows.
    #[inline]
    pub const fn after(self, duration: Duration) -> Self {
        let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros() as u64);
        Self(self.0.saturating_add(micros))
    }

    /// This point, `millis` milliseconds earlier; the epoch where that is later.
    pub const fn before(self, millis: u32) -> Self {
        Self(self.0.saturating_sub(millis as u64 * 1000))
    }

    /// How long from `earlier` to here; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
