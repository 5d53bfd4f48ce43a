//! The TCP backend.

use std::io;

use tokio::net::{TcpListener, TcpStream};

use crate::endpoint::Endpoint;
use crate::stream::Connected;

/// Connects to a host, trying its addresses in order.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Connected> {
    prepare(TcpStream::connect((host, port)).await?)
}

/// Listens, and tells the endpoint with the port that was bound.
pub(crate) async fn listen(host: &str, port: u16) -> io::Result<(TcpListener, Endpoint)> {
    let listener = TcpListener::bind((host, port)).await?;
    let bound = listener.local_addr()?;
    Ok((listener, Endpoint::Tcp { host: bound.ip().to_string(), port: bound.port() }))
}

/// The next connection.
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<Connected> {
    prepare(listener.accept().await?.0)
}

fn prepare(stream: TcpStream) -> io::Result<Connected> {
    // Batches are made by the driver; Nagle's algorithm would hold the last part of each back for an acknowledgement.
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    Ok(Connected { io: Box::new(stream), peer: format!("tcp://{peer}") })
}
