//! The systems, by name. Each has a file that says how it is set up, and why so.

mod capnp;
mod framed;
mod in_process;
mod jsonrpsee;
mod mux;
mod ours;
mod quinn;
mod raw;
mod remoc;
mod tarpc;
mod tonic;
mod ttrpc;
mod yamux;

use crate::neighbour::{Neighbour, Outcome};

/// Something to be done with a system, whichever it is.
pub(crate) trait Visit {
    fn visit<N: Neighbour>(self) -> Outcome<()>;
}

/// What is known of a system without running it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) lacks: &'static [(crate::workload::Workload, &'static str)],
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Framework,
    /// It has streams; calls and items on them are written here, by hand.
    Transport,
    /// Nothing that one would use, but what bounds the others.
    Limit,
}

macro_rules! systems {
    ($($system:ty, $kind:ident;)*) => {
        const ALL: &[About] = &[$(About {
            name: <$system as Neighbour>::NAME,
            unit: <$system as Neighbour>::UNIT,
            lacks: <$system as Neighbour>::LACKS,
            kind: Kind::$kind,
        },)*];

        /// Does something with the system of that name.
        pub(crate) fn with(name: &str, visit: impl Visit) -> Outcome<()> {
            match name {
                $(<$system as Neighbour>::NAME => visit.visit::<$system>(),)*
                _ => Err(format!("no system {name}; there are {}", names().join(", ")).into()),
            }
        }
    };
}

systems! {
    ours::Ours, Ours;
    mux::Mux, Limit;
    raw::Tcp, Limit;
    raw::Unix, Limit;
    in_process::InProcess, Limit;
    tarpc::Tarpc, Framework;
    tonic::Tonic, Framework;
    jsonrpsee::Jsonrpsee, Framework;
    quinn::Quinn, Transport;
    yamux::Yamux, Transport;
    capnp::Capnp, Framework;
    remoc::Remoc, Framework;
    ttrpc::Ttrpc, Framework;
}

pub(crate) fn each(mut f: impl FnMut(&About)) {
    ALL.iter().for_each(&mut f);
}

pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|system| system.name).collect()
}

pub(crate) fn about(name: &str) -> Outcome<About> {
    ALL.iter().find(|system| system.name == name).copied().ok_or_else(|| format!("no system {name}").into())
}
