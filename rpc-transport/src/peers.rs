//! How many connections each peer of a server has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::PoisonError;

use rpc_core::context::{Peer, Principal};

use crate::sync::{Arc, Mutex};

/// Who counts as one peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Uid(u32),
    Sid(String),
    Address(IpAddr),
}

/// The network part of an IPv6 address: what one subscriber is given, and may choose addresses from.
const NETWORK: u128 = !0 << 64;

impl Who {
    /// `None`: an address of this machine, or nothing by which peers could be told apart.
    fn of(peer: &Peer) -> Option<Self> {
        match &peer.principal {
            Some(Principal::UnixUser { uid, .. }) => return Some(Self::Uid(*uid)),
            Some(Principal::WindowsUser { sid, .. }) => return Some(Self::Sid(sid.clone())),
            _ => {}
        }
        let (_, place) = peer.endpoint.split_once("://")?;
        let address = place.parse::<SocketAddr>().ok()?.ip().to_canonical();
        match address {
            _ if address.is_loopback() => None,
            IpAddr::V4(_) => Some(Self::Address(address)),
            IpAddr::V6(address) => Some(Self::Address(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into())),
        }
    }
}

/// The count. Holds those that have a connection, and no others.
#[derive(Debug)]
pub(crate) struct Peers {
    most: u64,
    counts: Mutex<HashMap<Who, u64>>,
}

impl Peers {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// Counts a connection of a peer, until what is returned is dropped. `None`: it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, peer: &Peer) -> Option<Entered> {
        let who = Who::of(peer);
        if let Some(who) = &who {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(who.clone()).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Entered { peers: Arc::clone(self), who })
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Entered {
    peers: Arc<Peers>,
    who: Option<Who>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(who) = &self.who else { return };
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, pid: u32) -> Peer {
        Peer::new("unix:///run/x").with_principal(Principal::UnixUser { uid, gid: 0, pid: Some(pid) })
    }

    #[test]
    fn a_peer_has_as_many_as_the_limit_and_not_one_more_until_one_has_gone() {
        let peers = Peers::new(3);
        let mut held: Vec<_> = (0..3).map(|port| peers.enter(&Peer::new(format!("tcp://192.0.2.7:{port}"))).unwrap()).collect();
        assert!(peers.enter(&Peer::new("tcp://192.0.2.7:9")).is_none());
        assert!(peers.enter(&Peer::new("tls://192.0.2.8:9")).is_some(), "another one is not concerned");
        held.pop();
        held.push(peers.enter(&Peer::new("tls://192.0.2.7:9")).unwrap());
        held.clear();
        assert!(peers.counts.lock().unwrap().is_empty(), "nobody is remembered who has gone");
    }

    #[test]
    fn users_count_by_their_number_whatever_process_they_run() {
        let peers = Peers::new(1);
        let _held = peers.enter(&user(7, 1)).unwrap();
        assert!(peers.enter(&user(7, 2)).is_none());
        assert!(peers.enter(&user(8, 1)).is_some());
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_peer_and_mapped_ones_are_ipv4() {
        let peers = Peers::new(1);
        let _held = [peers.enter(&Peer::new("tcp://[2001:db8:1:2::1]:5")), peers.enter(&Peer::new("tcp://192.0.2.7:5"))];
        assert!(peers.enter(&Peer::new("tcp://[2001:db8:1:2:ffff::9]:5")).is_none());
        assert!(peers.enter(&Peer::new("tcp://[2001:db8:1:3::1]:5")).is_some());
        assert!(peers.enter(&Peer::new("tcp://[::ffff:192.0.2.7]:6")).is_none());
    }

    #[test]
    fn the_machine_itself_and_what_has_no_address_are_not_counted() {
        let peers = Peers::new(1);
        for endpoint in ["tcp://127.0.0.1:1", "tcp://[::1]:1", "mem://here", "local"] {
            let held = [peers.enter(&Peer::new(endpoint)), peers.enter(&Peer::new(endpoint))];
            assert!(held.iter().all(Option::is_some), "{endpoint}");
        }
    }
}
