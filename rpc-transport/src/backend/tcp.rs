//! The TCP backend.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rpc_core::context::Peer;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::eyeballs::first_to_answer;
use crate::endpoint::{Address, Endpoint, Options};
use crate::stream::{BoxFuture, Connected, Incoming, Listener};

/// The silence until the system probes a peer. The protocol's own keepalive finds a dead one within 25 s; this one is for
/// hosts and address translators between the two, and for protocols that run with theirs turned off.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The most that may lie unsent in the system's buffer, in bytes: twice what the driver writes at a time while sessions
/// compete. More could not be overtaken by what is urgent; less would make the driver wake for every segment.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// Connections that wait to be accepted, the system's own limit permitting: a burst of reconnecting clients.
const BACKLOG: u32 = 1024;

/// Connects to a host, by the fastest of its addresses.
pub(super) async fn connect(host: &str, port: u16, options: &Options) -> io::Result<Connected> {
    let addresses = tokio::net::lookup_host((host, port)).await?.collect();
    let (stream, address) = first_to_answer(addresses, TcpStream::connect).await?;
    prepare(stream, address, options)
}

/// Listens on the first address of a host that can be bound.
pub(super) async fn listen(host: &str, port: u16, endpoint: &Endpoint) -> io::Result<TcpIncoming> {
    let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match bind(address) {
            Ok(listener) => return TcpIncoming::new(listener, endpoint),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    // On Windows the option means that somebody else may take the port too.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listening socket.
pub(super) struct TcpIncoming {
    listener: TcpListener,
    endpoint: Endpoint,
}

impl TcpIncoming {
    fn new(listener: TcpListener, endpoint: &Endpoint) -> io::Result<Self> {
        let bound = listener.local_addr()?;
        let (host, port) = (bound.ip().to_string(), bound.port());
        let address = match endpoint.address() {
            Address::Tls { .. } => Address::Tls { host, port },
            _ => Address::Tcp { host, port },
        };
        Ok(Self { listener, endpoint: endpoint.at(address) })
    }

    /// A socket that listens already.
    #[cfg(target_os = "linux")]
    pub(super) fn adopt(socket: std::os::fd::OwnedFd) -> io::Result<Self> {
        let listener = TcpListener::from_std(socket.into())?;
        let bound = listener.local_addr()?;
        Self::new(listener, &Endpoint::new(Address::Tcp { host: bound.ip().to_string(), port: bound.port() }))
    }
}

impl Listener for TcpIncoming {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let (stream, address) = self.listener.accept().await?;
            // A socket that is gone already fails here, and alone.
            let connected = prepare(stream, address, self.endpoint.options());
            Ok(Incoming::new(std::future::ready(connected)))
        })
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

fn prepare(stream: TcpStream, address: SocketAddr, options: &Options) -> io::Result<Connected> {
    // Batches are made by the driver; Nagle's algorithm would hold the last part of each back for an acknowledgement.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    match options.keepalive.unwrap_or(KEEPALIVE) {
        Duration::ZERO => {}
        silence => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence))?,
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(options.unsent.unwrap_or(UNSENT))?;
    Ok(Connected::new(stream, Peer::new(format!("tcp://{address}"))))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What the system says of a socket that was prepared as an endpoint says: nodelay, keepalive, bytes unsent.
    async fn prepared(query: &str) -> (bool, bool, u32) {
        let endpoint: Endpoint = format!("tcp://127.0.0.1:0{query}").parse().unwrap();
        let listener = listen("127.0.0.1", 0, &endpoint).await.unwrap();
        let address = listener.listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let same = socket2::Socket::from(stream.try_clone().unwrap());
        prepare(TcpStream::from_std(stream).unwrap(), address, endpoint.options()).unwrap();
        (same.tcp_nodelay().unwrap(), same.keepalive().unwrap(), same.tcp_notsent_lowat().unwrap())
    }

    #[tokio::test]
    async fn sockets_are_set_as_the_endpoint_says() {
        assert_eq!(prepared("").await, (true, true, UNSENT));
        assert_eq!(prepared("?keepalive=off&unsent=4096").await, (true, false, 4096));
    }
}
