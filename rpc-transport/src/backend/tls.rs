//! TLS over whatever a backend has connected.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rpc_core::context::Peer;
use rpc_core::proto::ConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, CommonState, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::endpoint::Endpoint;
use crate::error::OpenError;
use crate::stream::{BoxFuture, Connected, Incoming, Listener};
pub(crate) use crate::tls::{ClientTls, ServerTls};
use crate::tls::{PROTOCOL, TlsError, TlsErrorKind, client, has_tls, principal, server};

/// How long the end of a handshake that failed waits for the other side to let go, so that the alert is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What the peer of a client and of a server is called in errors.
const SERVER: &str = "server";
const CLIENT: &str = "client";

/// The client's side, ready for one connection.
pub(crate) struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    refused: Refused,
}

/// What the stream failed with once it stood: in TLS 1.3 a client learns only then that its certificate is refused.
type Refused = Arc<OnceLock<TlsError>>;

impl Connector {
    /// What the settings and the endpoint come to; `None`: not TLS.
    pub(crate) async fn new(ours: Option<ClientTls>, over: Option<&Endpoint>) -> Result<Option<Self>, String> {
        if ours.is_none() && !over.is_some_and(has_tls) {
            return Ok(None);
        }
        let over = over.cloned();
        // It may read files, among them those of the system.
        let built = tokio::task::spawn_blocking(move || client(ours, over.as_ref())).await;
        let built = built.map_err(|error| format!("the settings of TLS could not be read: {error}"))??;
        Ok(built.map(|(config, name)| Self { config, name, refused: Refused::default() }))
    }

    /// Shakes hands over a stream.
    pub(crate) async fn over(&self, io: Connected) -> io::Result<Connected> {
        let peer = io.peer.clone();
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), io);
        let connected = match connecting.into_fallible().await {
            Ok(stream) => stand(stream.into(), peer, SERVER, Arc::clone(&self.refused)).await,
            Err((error, io)) => Err(give_up(error, io, SERVER).await),
        };
        connected.inspect_err(|error| {
            if let Some(error) = TlsError::within(error) {
                let _ = self.refused.set(error);
            }
        })
    }

    /// An error of opening, or what it was TLS that failed with.
    pub(crate) fn explain(&self, peer: String, error: OpenError) -> OpenError {
        match (self.refused.get(), &error) {
            (Some(refused), OpenError::Connection(ConnectionError::Io { .. })) => OpenError::Tls { peer, error: refused.clone() },
            _ => error,
        }
    }
}

/// The server's side.
pub(crate) struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    /// What the settings and the endpoint come to; `None`: not TLS.
    pub(crate) fn new(ours: Option<ServerTls>, over: Option<&Endpoint>) -> Result<Option<Self>, String> {
        Ok(server(ours, over)?.map(Self))
    }

    /// A listener whose clients shake hands in their own tasks.
    pub(crate) fn over(self, listener: Box<dyn Listener>) -> Box<dyn Listener> {
        Box::new(Secure { listener, config: self.0 })
    }
}

struct Secure {
    listener: Box<dyn Listener>,
    config: Arc<ServerConfig>,
}

impl Listener for Secure {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let incoming = self.listener.accept().await?;
            let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
            Ok(Incoming::new(async move {
                let io = incoming.connected().await?;
                let peer = io.peer.clone();
                match acceptor.accept(io).into_fallible().await {
                    Ok(stream) => stand(stream.into(), peer, CLIENT, Refused::default()).await,
                    Err((error, io)) => Err(give_up(error, io, CLIENT).await),
                }
            }))
        })
    }

    fn endpoint(&self) -> Endpoint {
        self.listener.endpoint()
    }
}

/// A handshake that went well, if the peer means our protocol and its certificate says who it is.
async fn stand(mut stream: TlsStream<Connected>, peer: Peer, them: &'static str, refused: Refused) -> io::Result<Connected> {
    match known(stream.get_ref().1, peer, them) {
        Ok(peer) => Ok(Connected::new(TlsIo { stream, them, refused }, peer)),
        Err(error) => {
            let _ = stream.shutdown().await;
            linger(stream).await;
            Err(error.into_io())
        }
    }
}

/// Who the peer is by its certificate; without one, who it was.
fn known(tls: &CommonState, mut peer: Peer, them: &str) -> Result<Peer, TlsError> {
    if tls.alpn_protocol() != Some(PROTOCOL) {
        return Err(TlsError::other_protocol(them));
    }
    if let Some(address) = peer.endpoint.strip_prefix("tcp://") {
        peer.endpoint = format!("tls://{address}");
    }
    match tls.peer_certificates().and_then(|chain| chain.first()) {
        None => Ok(peer),
        Some(certificate) => match principal(certificate) {
            Ok(principal) => Ok(peer.with_principal(principal)),
            Err(problem) => {
                let text = format!("the {them}'s certificate does not say who that is: {problem}");
                Err(TlsError::new(TlsErrorKind::BadCertificate, text))
            }
        },
    }
}

/// Lets the alert of a handshake that failed arrive.
async fn give_up(error: io::Error, mut io: Connected, them: &'static str) -> io::Error {
    let _ = tokio::time::timeout(LINGER, io.shutdown()).await;
    // A client closes nothing that anybody would still have to read.
    if them == CLIENT {
        linger(io).await;
    }
    TlsError::of(&error, them, true).map_or(error, TlsError::into_io)
}

/// Reads on for a moment: closing with unread bytes in the socket would make the system send a reset, which can destroy
/// what the peer has not read yet.
async fn linger(mut io: impl AsyncRead + Unpin) {
    let mut rest = [0; 4096];
    let _ = tokio::time::timeout(LINGER, async { while matches!(io.read(&mut rest).await, Ok(1..)) {} }).await;
}

/// A stream with errors that say what to do.
struct TlsIo {
    stream: TlsStream<Connected>,
    them: &'static str,
    refused: Refused,
}

impl TlsIo {
    fn explain(&self, error: io::Error) -> io::Error {
        match TlsError::of(&error, self.them, false) {
            None => error,
            Some(error) => self.refused.get_or_init(|| error).clone().into_io(),
        }
    }

    /// Where writing fails, an alert that has arrived tells more than "broken pipe".
    fn explain_write(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let mut space = [0; 1];
        match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut space)) {
            Poll::Ready(Err(alert)) if TlsError::of(&alert, self.them, false).is_some() => self.explain(alert),
            _ => self.explain(error),
        }
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        Poll::Ready(read.map_err(|error| self.explain(error)))
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| self.explain_write(cx, error)))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(written.map_err(|error| self.explain_write(cx, error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.explain_write(cx, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
