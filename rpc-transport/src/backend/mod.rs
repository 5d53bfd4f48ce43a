//! The backends: from an endpoint to a connected stream, and to a listener.

mod activation;
mod eyeballs;
#[cfg(all(unix, not(target_vendor = "apple")))]
mod fifo;
#[cfg(unix)]
mod files;
mod memory;
mod pipe;
mod tcp;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod users;

use std::io;

pub use activation::{Activated, activated};

use crate::endpoint::{Address, Endpoint, ToEndpoint};
use crate::error::{OpenError, ServeError};
use crate::stream::{Connected, Listener};

/// Connects, and speaks no word: the bare stream, for those who put something of their own around it before they hand it to
/// [`ConnectionBuilder::open_over`](crate::ConnectionBuilder::open_over), or who speak the protocol by hand.
///
/// # Errors
/// [`OpenError::Endpoint`] and [`OpenError::Unreachable`]. There is no time limit.
///
/// # Cancel safety
/// Dropping the future gives the connection up.
pub async fn dial(endpoint: impl ToEndpoint) -> Result<Connected, OpenError> {
    let endpoint = endpoint.to_endpoint()?;
    connect(&endpoint).await.map_err(|error| OpenError::unreachable(endpoint, &error))
}

/// Starts to listen, and serves nobody: the counterpart of [`dial`], for a listener of one's own around it, which
/// [`ServerBuilder::serve`](crate::ServerBuilder::serve) takes.
///
/// # Errors
/// [`ServeError::Endpoint`] and [`ServeError::Listen`].
///
/// # Cancel safety
/// Dropping the future listens nowhere.
pub async fn bind(endpoint: impl ToEndpoint) -> Result<Box<dyn Listener>, ServeError> {
    let endpoint = endpoint.to_endpoint()?;
    listen(&endpoint).await.map_err(|source| ServeError::Listen { endpoint, source })
}

/// Connects.
pub(crate) async fn connect(endpoint: &Endpoint) -> io::Result<Connected> {
    match endpoint.address() {
        _ if endpoint.options().tls.is_some() => Err(absent(endpoint)),
        Address::Tcp { host, port } => tcp::connect(host, *port, endpoint.options()).await,
        Address::Memory { name } => memory::connect(name).await,
        #[cfg(windows)]
        Address::Pipe { name } | Address::Local { name } => pipe::connect(name, endpoint).await,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Address::Abstract { .. } => unix::connect(endpoint).await,
        #[cfg(unix)]
        Address::Unix { .. } | Address::Local { .. } => unix::connect(endpoint).await,
        #[cfg(all(unix, not(target_vendor = "apple")))]
        Address::Pipe { name } => fifo::connect(name, endpoint.options()).await,
        _ => Err(absent(endpoint)),
    }
}

/// Starts to listen.
pub(crate) async fn listen(endpoint: &Endpoint) -> io::Result<Box<dyn Listener>> {
    match endpoint.address() {
        _ if endpoint.options().tls.is_some() => Err(absent(endpoint)),
        Address::Tcp { host, port } => Ok(Box::new(tcp::listen(host, *port, endpoint).await?)),
        Address::Memory { name } => Ok(Box::new(memory::listen(name)?)),
        #[cfg(windows)]
        Address::Pipe { name } | Address::Local { name } => Ok(Box::new(pipe::listen(name, endpoint).await?)),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Address::Abstract { .. } => Ok(Box::new(unix::listen(endpoint).await?)),
        #[cfg(unix)]
        Address::Unix { .. } | Address::Local { .. } => Ok(Box::new(unix::listen(endpoint).await?)),
        #[cfg(all(unix, not(target_vendor = "apple")))]
        Address::Pipe { name } => Ok(Box::new(fifo::listen(name, endpoint)?)),
        _ => Err(absent(endpoint)),
    }
}

/// What this platform, or this build, does not have.
fn absent(endpoint: &Endpoint) -> io::Error {
    let text = match endpoint.address() {
        _ if endpoint.options().tls.is_some() => "this build has no TLS: turn on the feature `tls`",
        Address::Abstract { .. } => "abstract names are there on Linux alone: use unix:///path or local://name",
        Address::Unix { .. } => "Unix sockets are not there on this platform: use local://name",
        Address::Tls { .. } => "this build has no TLS: turn on the feature `tls`",
        _ => "this platform has no such transport",
    };
    io::Error::new(io::ErrorKind::Unsupported, text)
}
