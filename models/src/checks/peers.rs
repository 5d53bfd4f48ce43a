//! A peer has as many connections as it may, however they come and go.

use std::sync::atomic::{AtomicU64, Ordering};

use rpc_core::context::Peer;
use shuttle::sync::Arc;
use shuttle::thread;

use super::peers::Peers;

fn a_peer_never_has_more_than_it_may() {
    let peers = Peers::new(1);
    // No lock of shuttle's: looking changes nothing.
    let inside = Arc::new(AtomicU64::new(0));
    let comers: Vec<_> = (0..3)
        .map(|port| {
            let (peers, inside) = (peers.clone(), inside.clone());
            thread::spawn(move || {
                let Some(entered) = peers.enter(&Peer::new(format!("tcp://192.0.2.7:{port}"))) else { return };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "there is one at a time");
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(entered);
            })
        })
        .collect();
    for comer in comers {
        comer.join().expect("it does not panic");
    }
    assert!(peers.enter(&Peer::new("tcp://192.0.2.7:9")).is_some(), "all have gone");
}

pub(crate) const CHECKS: &[crate::Check] = &[("a peer never has more than it may", a_peer_never_has_more_than_it_may)];
