//! Where to connect to or listen on, as a string: `tcp://host:port`, `unix:///run/kv.sock`, `local://kv`.

mod options;
mod parse;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use options::Options;
use parse::escape;

/// Where to connect to or listen on: an address, and options behind a question mark. The same strings serve clients and
/// servers, on every platform; what a platform lacks is an error of `open` or `listen`.
///
/// | written | is |
/// |---|---|
/// | `tcp://host:port` | TCP. The host is a name, an IPv4 address, or an IPv6 address in brackets; port 0 asks a listener for any |
/// | `tls://host:port` | TLS over TCP |
/// | `unix:///path` | a Unix socket |
/// | `unix://@name` | a Unix socket with an abstract name, on Linux. Names have no owner: anybody may take one |
/// | `pipe://name` | a named pipe on Windows, a pair of FIFOs for each connection elsewhere (not on macOS) |
/// | `local://name` | the best that the platform has between its processes: a named pipe on Windows, a Unix socket elsewhere |
/// | `mem://name` | within this process |
///
/// # On one machine
///
/// A Unix socket is for the user who listens: its file has mode 600 unless [`Options::mode`] says otherwise, and a server with
/// an abstract name refuses other users. A server takes the place of one that is gone, and never that of one that is
/// there, of another user's socket, or of a file that is none. `local` and `pipe` are names of one user: on Unix they are
/// in the directory `rpc` in `XDG_RUNTIME_DIR`, where that is this user's, and else in `rpc-UID` in the directory for temporary
/// files, and both sides need to have the same. Either end knows the other's user
/// ([`Peer::principal`](rpc_core::context::Peer::principal)), and a client refuses a server of another user's than its own
/// and root; see [`Options::user`].
///
/// # Options
///
/// [`Options`] lists what may stand in the query part. There, and in paths, `%` with two hexadecimal digits stands for any
/// byte. A value writes itself as the string that it was read from, and serde carries it as that string.
///
/// ```
/// use rpc_transport::{Address, Endpoint};
/// let endpoint: Endpoint = "tcp://127.0.0.1:7000?keepalive=30".parse().unwrap();
/// assert_eq!(*endpoint.address(), Address::Tcp { host: "127.0.0.1".into(), port: 7000 });
/// assert_eq!(endpoint.to_string(), "tcp://127.0.0.1:7000?keepalive=30");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    address: Address,
    /// Boxed, because errors carry endpoints and options are many.
    options: Box<Options>,
}

impl Endpoint {
    /// An address without options.
    pub fn new(address: Address) -> Self {
        Self { address, options: Box::default() }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What was asked for beside the address.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The same options at another address: what was bound, of what was asked for.
    pub(crate) fn at(&self, address: Address) -> Self {
        Self { address, options: self.options.clone() }
    }
}

/// The part of an [`Endpoint`] that says where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `tcp://host:port`.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `tls://host:port`: TLS over TCP.
    Tls {
        /// Name or address, without brackets. A client expects the server's certificate to have it, unless
        /// [`Options::name`] says otherwise.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:///path`: a Unix socket in the file system.
    Unix {
        /// Where the socket is.
        path: PathBuf,
    },
    /// `unix://@name`: a Unix socket with a name that no file has.
    Abstract {
        /// The name, without `@`.
        name: String,
    },
    /// `pipe://name`: a named pipe on Windows, FIFOs elsewhere.
    Pipe {
        /// The name, of letters, digits, `.`, `_` and `-`.
        name: String,
    },
    /// `local://name`: a named pipe on Windows, a Unix socket elsewhere.
    Local {
        /// The name, of letters, digits, `.`, `_` and `-`.
        name: String,
    },
    /// `mem://name`: within this process, over the same protocol.
    Memory {
        /// The listener's name.
        name: String,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut network = |scheme: &str, host: &str, port: &u16| {
            if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
        };
        match self {
            Self::Tcp { host, port } => network("tcp", host, port),
            Self::Tls { host, port } => network("tls", host, port),
            Self::Unix { path } => write!(f, "unix://{}", escape(path.as_os_str().as_encoded_bytes())),
            Self::Abstract { name } => write!(f, "unix://@{}", escape(name.as_bytes())),
            Self::Pipe { name } => write!(f, "pipe://{name}"),
            Self::Local { name } => write!(f, "local://{name}"),
            Self::Memory { name } => write!(f, "mem://{}", escape(name.as_bytes())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, self.options)
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self::new(address)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

/// Why a string is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no endpoint: at column {column}, {problem}")]
pub struct EndpointError {
    text: String,
    column: usize,
    problem: String,
}

impl EndpointError {
    /// Where the problem is, counted in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

/// What can name an endpoint: an [`Endpoint`], or a string that is one.
pub trait ToEndpoint {
    /// The endpoint.
    ///
    /// # Errors
    /// If the string is no endpoint.
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError>;
}

impl ToEndpoint for Endpoint {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        Ok(self.clone())
    }
}

impl ToEndpoint for str {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        self.parse()
    }
}

impl ToEndpoint for String {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        self.parse()
    }
}

impl<T: ToEndpoint + ?Sized> ToEndpoint for &T {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        (**self).to_endpoint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_as_they_are_written() {
        for text in [
            "tcp://127.0.0.1:7000",
            "tcp://[::1]:0",
            "tcp://db.example:65535?keepalive=off",
            "tcp://db.example:65535?keepalive=30&unsent=65536",
            "tls://db.example:7000?name=db.internal&ca=/etc/ca.pem",
            "tls://0.0.0.0:7000?client_ca=/etc/ca.pem&cert=/etc/my%20cert.pem&key=/etc/key.pem",
            "unix:///run/kv.sock",
            "unix://./kv.sock",
            "unix:///run/what%3F/100%25.sock?mode=660&user=1000",
            "unix:///run/kv.sock?tls=kv.example",
            "unix://@kv",
            "pipe://kv.main",
            "local://kv_1-a",
            "mem://kv",
            "mem://kv%3Fno%20options",
        ] {
            let endpoint = text.parse::<Endpoint>().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    #[test]
    fn an_error_points_at_the_column_and_says_the_fix() {
        for (text, column, fix) in [
            ("127.0.0.1:7000", 1, "tcp://host:port"),
            ("udp://x:1", 1, "there are tcp, tls, unix, pipe, local and mem"),
            ("tcp://host", 11, "write tcp://host:port"),
            ("tls://host", 11, "write tls://host:port"),
            ("tcp://host:99999", 12, "0 to 65535"),
            ("tcp://host:80/path", 12, "0 to 65535"),
            ("tcp://:80", 7, "write tcp://host:port"),
            ("tcp://::1:80", 7, "tcp://[::1]:port"),
            ("mem://", 7, "write mem://name"),
            ("unix://", 8, "write unix:///path"),
            ("unix://run/kv.sock", 8, "a third slash"),
            ("unix://@", 9, "write unix://@name"),
            ("unix:///run/%zz", 13, "two hexadecimal digits"),
            ("unix:///run/%0", 13, "two hexadecimal digits"),
            ("unix:///run/%00", 13, "no zero byte"),
            ("pipe://a/b", 9, "letters, digits"),
            ("pipe://..", 8, "begins with a letter or a digit"),
            ("local://", 9, "write local://name"),
            ("local://größe", 11, "letters, digits"),
            ("tcp://x:1?keepalive", 20, "keepalive=VALUE"),
            ("tcp://x:1?keepalive=soon", 21, "seconds"),
            ("tcp://x:1?keepalive=1&keepalive=2", 23, "once"),
            ("tcp://x:1?mode=600", 11, "keepalive and unsent"),
            ("unix:///x?mode=999", 16, "octal"),
            ("mem://x?mode=600", 9, "no options"),
            ("unix:///x?ca=/ca.pem", 11, "tls=NAME"),
            ("tls://x:1?tls=x", 11, "name"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.column(), column, "{error}");
            assert!(error.to_string().contains(fix), "{error}");
        }
        let error = "tcp://host".parse::<Endpoint>().unwrap_err();
        assert_eq!(error.to_string(), "`tcp://host` is no endpoint: at column 11, a port is missing: write tcp://host:port");
    }

    #[test]
    fn serde_carries_an_endpoint_as_its_string() {
        let endpoint: Endpoint = "unix:///run/kv.sock?mode=660".parse().unwrap();
        let codec = rpc_core::codec::Codec::Postcard;
        let mut bytes = Vec::new();
        codec.encode(&endpoint, &mut bytes).unwrap();
        assert_eq!(&bytes[1..], b"unix:///run/kv.sock?mode=660");
    }
}
