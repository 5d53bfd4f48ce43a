//! A network that can be made to fail at a given byte: a forwarder between a client and a server.

use std::sync::{Arc, Mutex};

use rpc::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::raw::address;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// What happens to the bytes of one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    None,
    /// So many bytes pass, then both ends find the connection gone.
    Cut(Way, usize),
    /// The byte at a place is changed by these bits.
    Flip(Way, usize, u8),
}

/// A forwarder for one connection.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    passed: Arc<[Mutex<usize>; 2]>,
}

impl Proxy {
    pub(crate) async fn new(server: &Endpoint, damage: Damage) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("tcp://{}", listener.local_addr().expect("it is bound"));
        let (server, passed) = (address(server), Arc::new([Mutex::new(0), Mutex::new(0)]));
        let counts = Arc::clone(&passed);
        tokio::spawn(async move {
            let Ok((client, _)) = listener.accept().await else { return };
            drop(listener);
            let Ok(server) = TcpStream::connect(server).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            // The first way to end takes the other with it: halves of both sockets are dropped together.
            tokio::select! {
                () = forward(from_client, to_server, Way::ToServer, damage, &counts[0]) => {}
                () = forward(from_server, to_client, Way::ToClient, damage, &counts[1]) => {}
            }
        });
        Self { endpoint, passed }
    }

    /// Bytes that went to the server and to the client.
    pub(crate) fn passed(&self) -> (usize, usize) {
        let count = |at: usize| *self.passed[at].lock().expect("no holder panics");
        (count(0), count(1))
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, damage: Damage, passed: &Mutex<usize>) {
    let (mut buffer, mut at) = ([0; 4096], 0);
    if damage == Damage::Cut(way, 0) {
        return;
    }
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let mut bytes = &mut buffer[..n];
        match damage {
            Damage::Cut(cut, limit) if cut == way && at + n >= limit => bytes = &mut buffer[..limit - at],
            Damage::Flip(flip, place, bits) if flip == way && (at..at + n).contains(&place) => bytes[place - at] ^= bits,
            _ => {}
        }
        let len = bytes.len();
        if to.write_all(bytes).await.is_err() {
            return;
        }
        at += len;
        *passed.lock().expect("no holder panics") = at;
        if damage == Damage::Cut(way, at) {
            return;
        }
    }
    let _ = to.shutdown().await;
}
