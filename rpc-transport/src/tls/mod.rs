//! TLS: whom to trust, who to be, and what can go wrong.
//!
//! | endpoint | is |
//! |---|---|
//! | `tls://host:port` | TLS over TCP; the server's certificate is for the host, or for `?name=NAME` |
//! | `unix:///path?tls=NAME`, `local://name?tls=NAME`, `pipe://name?tls=NAME` | TLS over what that is without; the server's certificate is for `NAME` |
//!
//! What the sides need is set by [`ServerBuilder::tls`](crate::ServerBuilder::tls) and
//! [`ConnectionBuilder::tls`](crate::ConnectionBuilder::tls), or by PEM files that the endpoint names (`ca`, `client_ca`, `cert`
//! and `key`, see [`Options`](crate::Options)), each thing in one of the two places.
//!
//! ```no_run
//! use rpc_transport::tls::{Authorities, ClientTls, Identity, ServerTls};
//! use rpc_transport::{Connection, Server};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Only clients with a certificate of ours are served; handlers find its subject in `cx.peer()`.
//! let tls = ServerTls::new().identity(Identity::files("server.pem", "server.key")).clients(Authorities::file("ca.pem"));
//! let server = Server::builder().tls(tls).listen("tls://0.0.0.0:7000").await?;
//!
//! let tls = ClientTls::new().identity(Identity::files("alice.pem", "alice.key")).authorities(Authorities::file("ca.pem"));
//! let connection = Connection::builder().tls(tls).open("tls://kv.internal:7000").await?;
//!
//! // The same without a builder.
//! let connection = Connection::open("tls://kv.internal:7000?ca=ca.pem&cert=alice.pem&key=alice.key").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is spoken
//!
//! TLS 1.3 with the protocol name `rpc/1` (ALPN; docs/PROTOCOL.md §4.9): a peer that does not name it is refused, so that a connection which was
//! meant for another protocol on the same port never gets as far as ours. Certificates are verified on every connection:
//! sessions of TLS are not resumed, and nothing is sent ahead of the handshake (0-RTT), where it could be replayed.
//! Connections are few and long-lived, so that the handshake which resumption would save weighs little.
//!
//! # Who is there
//!
//! A certificate that was verified is the peer's principal, [`Principal::Certificate`](rpc_core::context::Principal): on the
//! client always, on the server where the client has one. Where it has none, the principal is that of the transport below, such
//! as the user at the other end of a Unix socket.
//!
//! # Errors
//!
//! [`OpenError::Tls`](crate::OpenError::Tls) has a [`TlsError`] whose text says what to do. A server learns of a client's
//! certificate after the client's side of the handshake is over, so that a refusal may reach a client that thinks itself
//! connected; `open` waits for the first answer of the server, and tells it. What breaks later is a
//! [`ConnectionError::Io`](rpc_core::proto::ConnectionError::Io): of the kind `UnexpectedEof` where the stream was cut off, which
//! TLS tells from an end.
//!
//! # Providers
//!
//! The cryptography is that of `ring`, by the feature `tls`, or of `aws-lc-rs`, by `tls-aws-lc`; where both features are on, that
//! of `aws-lc-rs`. It is passed to rustls by hand: no default of the process is read or set.
//!
//! # Stability
//!
//! [`rustls`] is re-exported for [`ClientTls::from_rustls`] and [`ServerTls::from_rustls`], for what has no setting here. No
//! other item names its types. It is at 0.x, so these three follow its versions and are outside of this crate's promises.

mod config;
mod error;
mod material;
mod subject;

pub use tokio_rustls::rustls;

pub use config::{ClientTls, ServerTls};
pub(crate) use config::{PROTOCOL, client, has_tls, server};
pub use error::{TlsError, TlsErrorKind};
pub use material::{Authorities, Identity};
pub(crate) use subject::principal;
