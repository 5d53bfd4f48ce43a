//! The in-process backend: connections within this process over the same protocol, found by name.

use std::collections::HashMap;
use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use rpc_core::context::Peer;
use tokio::sync::mpsc;

use crate::chunks::{Chunks, pair};
use crate::endpoint::{Address, Endpoint};
use crate::stream::{BoxFuture, Connected, Incoming, Listener, Stream};

/// Connections that wait to be accepted, as for a TCP listener.
const BACKLOG: usize = 128;

static LISTENERS: LazyLock<Mutex<HashMap<String, mpsc::Sender<Chunks>>>> = LazyLock::new(Mutex::default);

fn listeners() -> std::sync::MutexGuard<'static, HashMap<String, mpsc::Sender<Chunks>>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name in use. Dropping it frees the name.
pub(crate) struct MemoryListener {
    name: String,
    incoming: mpsc::Receiver<Chunks>,
}

/// Takes a name.
pub(crate) fn listen(name: &str) -> io::Result<MemoryListener> {
    let mut listeners = listeners();
    if listeners.contains_key(name) {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "the name is taken in this process"));
    }
    let (sender, incoming) = mpsc::channel(BACKLOG);
    listeners.insert(name.to_owned(), sender);
    Ok(MemoryListener { name: name.to_owned(), incoming })
}

/// Connects to a name.
pub(crate) async fn connect(name: &str) -> io::Result<Connected> {
    let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody in this process listens under that name");
    let sender = listeners().get(name).cloned().ok_or_else(refused)?;
    let (ours, theirs) = pair();
    sender.send(theirs).await.map_err(|_| refused())?;
    Ok(Connected { io: Stream::Chunks(ours), peer: peer(name) })
}

fn peer(name: &str) -> Peer {
    Peer::new(Endpoint::new(Address::Memory { name: name.to_owned() }).to_string())
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            match self.incoming.recv().await {
                Some(io) => Ok(Incoming::ready(Connected { io: Stream::Chunks(io), peer: peer(&self.name) })),
                // The name is ours until we drop it, so its sender is in the table.
                None => std::future::pending().await,
            }
        })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(Address::Memory { name: self.name.clone() })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        listeners().remove(&self.name);
    }
}
