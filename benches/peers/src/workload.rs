//! The workloads. benches/README.md says what they are.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    W1,
    W2,
    W3,
    W4,
    W5,
    W6,
    W7,
}

/// What a figure of a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Microseconds of a call, the median; less is better.
    Micros,
    /// Calls or items a second; more is better.
    Rate,
    /// MiB a second in one direction; more is better.
    Throughput,
    /// Bytes a session; less is better.
    Bytes,
}

impl Figure {
    pub(crate) fn less_is_better(self) -> bool {
        matches!(self, Self::Micros | Self::Bytes)
    }
}

impl Workload {
    pub(crate) const ALL: [Self; 7] = [Self::W1, Self::W2, Self::W3, Self::W4, Self::W5, Self::W6, Self::W7];

    /// The one with a name.
    ///
    /// # Errors
    /// There is none; in words.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|workload| workload.name() == name).ok_or_else(|| format!("no workload {name}"))
    }

    pub(crate) fn name(self) -> &'static str {
        ["w1", "w2", "w3", "w4", "w5", "w6", "w7"][self as usize]
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::W1 => "W1: echo of 64 bytes, one call in flight",
            Self::W2 => "W2: echo of 64 bytes, 64 calls in flight",
            Self::W3 => "W3: echo of 64 bytes, 1024 calls in flight",
            Self::W4 => "W4: echo of 1 MiB, 8 calls in flight",
            Self::W5 => "W5: one stream of 64-byte items down",
            Self::W6 => "W6: echo of a nested struct, 64 calls in flight",
            Self::W7 => "W7: memory of a session that is only there",
        }
    }

    /// The title of a column, with the unit.
    pub(crate) fn head(self) -> &'static str {
        match self {
            Self::W1 => "W1 p50, µs",
            Self::W2 => "W2, calls/s",
            Self::W3 => "W3, calls/s",
            Self::W4 => "W4, MiB/s",
            Self::W5 => "W5, items/s",
            Self::W6 => "W6, calls/s",
            Self::W7 => "W7, bytes",
        }
    }

    pub(crate) fn figure(self) -> Figure {
        match self {
            Self::W1 => Figure::Micros,
            Self::W4 => Figure::Throughput,
            Self::W7 => Figure::Bytes,
            _ => Figure::Rate,
        }
    }

    /// Calls in flight.
    pub(crate) fn in_flight(self) -> usize {
        match self {
            Self::W2 | Self::W6 => 64,
            Self::W3 => 1024,
            Self::W4 => 8,
            Self::W1 | Self::W5 | Self::W7 => 1,
        }
    }

    /// Bytes of a body or of an item.
    pub(crate) fn size(self) -> usize {
        if self == Self::W4 { 1 << 20 } else { 64 }
    }
}
