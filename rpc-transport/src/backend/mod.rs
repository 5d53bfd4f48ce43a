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
#[cfg(feature = "_tls")]
mod tls;
#[cfg(not(feature = "_tls"))]
#[path = "without_tls.rs"]
mod tls;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod users;

use std::io;

pub use activation::{Activated, activated};

use crate::endpoint::{Address, Endpoint, ToEndpoint};
use crate::error::{OpenError, ServeError};
use crate::stream::{Connected, Listener};
pub(crate) use tls::{Acceptor, ClientTls, Connector, ServerTls};

/// Connects, and speaks no word: the bare stream, for those who put something of their own around it before they hand it to
/// [`ConnectionBuilder::open_over`](crate::ConnectionBuilder::open_over), or who speak the protocol by hand.
///
/// # Errors
/// [`OpenError::Endpoint`], [`OpenError::Config`] and [`OpenError::Unreachable`]. There is no time limit.
///
/// # Cancel safety
/// Dropping the future gives the connection up.
pub async fn dial(endpoint: impl ToEndpoint) -> Result<Connected, OpenError> {
    let endpoint = endpoint.to_endpoint()?;
    let tls = Connector::new(None, Some(&endpoint)).await.map_err(OpenError::Config)?;
    connect(&endpoint, tls.as_ref()).await.map_err(|error| OpenError::unreachable(endpoint, &error))
}

/// Starts to listen, and serves nobody: the counterpart of [`dial`], for a listener of one's own around it, which
/// [`ServerBuilder::serve`](crate::ServerBuilder::serve) takes.
///
/// # Errors
/// [`ServeError::Endpoint`], [`ServeError::Config`] and [`ServeError::Listen`].
///
/// # Cancel safety
/// Dropping the future listens nowhere.
pub async fn bind(endpoint: impl ToEndpoint) -> Result<Box<dyn Listener>, ServeError> {
    let endpoint = endpoint.to_endpoint()?;
    let tls = Acceptor::new(None, Some(&endpoint)).map_err(ServeError::Config)?;
    listen(&endpoint, tls).await.map_err(|source| ServeError::Listen { endpoint, source })
}

/// Connects, and shakes hands where there is TLS.
pub(crate) async fn connect(endpoint: &Endpoint, tls: Option<&Connector>) -> io::Result<Connected> {
    let connected = connect_below(endpoint).await?;
    match tls {
        Some(tls) => tls.over(connected).await,
        None => Ok(connected),
    }
}

async fn connect_below(endpoint: &Endpoint) -> io::Result<Connected> {
    refuse_what_is_absent(endpoint)?;
    match endpoint.address() {
        Address::Tcp { host, port } => tcp::connect(host, *port, endpoint.options()).await,
        #[cfg(feature = "_tls")]
        Address::Tls { host, port } => tcp::connect(host, *port, endpoint.options()).await,
        Address::Memory { name } => memory::connect(name).await,
        #[cfg(windows)]
        Address::Pipe { name } | Address::Local { name } => pipe::connect(name, endpoint).await,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Address::Abstract { .. } => unix::connect(endpoint).await,
        #[cfg(unix)]
        Address::Unix { .. } | Address::Local { .. } => unix::connect(endpoint).await,
        #[cfg(all(unix, not(target_vendor = "apple")))]
        Address::Pipe { name } => fifo::connect(name, endpoint.options()).await,
        #[allow(unreachable_patterns, reason = "some platform, or some build, lacks one")]
        _ => Err(absent(endpoint)),
    }
}

/// Starts to listen. Clients shake hands in their own tasks where there is TLS.
pub(crate) async fn listen(endpoint: &Endpoint, tls: Option<Acceptor>) -> io::Result<Box<dyn Listener>> {
    let listener = listen_below(endpoint).await?;
    Ok(over(listener, tls))
}

/// A listener with TLS over it, where there is TLS.
pub(crate) fn over(listener: Box<dyn Listener>, tls: Option<Acceptor>) -> Box<dyn Listener> {
    match tls {
        Some(tls) => tls.over(listener),
        None => listener,
    }
}

async fn listen_below(endpoint: &Endpoint) -> io::Result<Box<dyn Listener>> {
    refuse_what_is_absent(endpoint)?;
    match endpoint.address() {
        Address::Tcp { host, port } => Ok(Box::new(tcp::listen(host, *port, endpoint).await?)),
        #[cfg(feature = "_tls")]
        Address::Tls { host, port } => Ok(Box::new(tcp::listen(host, *port, endpoint).await?)),
        Address::Memory { name } => Ok(Box::new(memory::listen(name)?)),
        #[cfg(windows)]
        Address::Pipe { name } | Address::Local { name } => Ok(Box::new(pipe::listen(name, endpoint).await?)),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Address::Abstract { .. } => Ok(Box::new(unix::listen(endpoint).await?)),
        #[cfg(unix)]
        Address::Unix { .. } | Address::Local { .. } => Ok(Box::new(unix::listen(endpoint).await?)),
        #[cfg(all(unix, not(target_vendor = "apple")))]
        Address::Pipe { name } => Ok(Box::new(fifo::listen(name, endpoint)?)),
        #[allow(unreachable_patterns, reason = "some platform, or some build, lacks one")]
        _ => Err(absent(endpoint)),
    }
}

/// Refuses TLS where this build has none: never is what was to be secret sent in the clear.
fn refuse_what_is_absent(endpoint: &Endpoint) -> io::Result<()> {
    if cfg!(not(feature = "_tls")) && endpoint.options().tls.is_some() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, NO_TLS));
    }
    Ok(())
}

const NO_TLS: &str = "this build has no TLS: turn on the feature `tls`";

/// What this platform, or this build, does not have.
fn absent(endpoint: &Endpoint) -> io::Error {
    let text = match endpoint.address() {
        Address::Abstract { .. } => "abstract names are there on Linux alone: use unix:///path or local://name",
        Address::Unix { .. } => "Unix sockets are not there on this platform: use local://name",
        Address::Tls { .. } => NO_TLS,
        _ => "this platform has no such transport",
    };
    io::Error::new(io::ErrorKind::Unsupported, text)
}
