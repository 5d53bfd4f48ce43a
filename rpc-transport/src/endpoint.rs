//! Where to connect to or listen on, as a string: `tcp://host:port` or `mem://name`.

use std::fmt;
use std::str::FromStr;

/// Where to connect to or listen on.
///
/// ```
/// use rpc_transport::Endpoint;
/// let endpoint: Endpoint = "tcp://127.0.0.1:7000".parse().unwrap();
/// assert_eq!(endpoint.to_string(), "tcp://127.0.0.1:7000");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `tcp://host:port`. The host may be a name, an IPv4 address, or an IPv6 address in brackets; port 0 asks a
    /// listener for any free port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `mem://name`: within this process, over the same protocol.
    Memory {
        /// The listener's name.
        name: String,
    },
}

/// Why a string is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no endpoint: at column {column}, {problem}")]
pub struct EndpointError {
    text: String,
    column: usize,
    problem: &'static str,
}

impl EndpointError {
    /// Where the problem is, counted in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |at: usize, problem| {
            let column = text[..at].chars().count() + 1;
            Err(EndpointError { text: text.to_owned(), column, problem })
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return fail(0, "a scheme is missing: write tcp://host:port or mem://name");
        };
        let start = scheme.len() + 3;
        match scheme {
            "tcp" => {
                let Some((host, port)) = rest.rsplit_once(':') else {
                    return fail(text.len(), "a port is missing: write tcp://host:port");
                };
                let Ok(port) = port.parse() else {
                    return fail(start + host.len() + 1, "the port is no number from 0 to 65535");
                };
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                if bare.is_none() && host.contains(':') {
                    return fail(start, "an IPv6 address stands in brackets: write tcp://[::1]:port");
                }
                let host = bare.unwrap_or(host);
                if host.is_empty() {
                    return fail(start, "a host is missing: write tcp://host:port");
                }
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            "mem" if rest.is_empty() => fail(start, "a name is missing: write mem://name"),
            "mem" => Ok(Self::Memory { name: rest.to_owned() }),
            _ => fail(0, "the scheme is not known: there are tcp and mem"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Memory { name } => write!(f, "mem://{name}"),
        }
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
        for text in ["tcp://127.0.0.1:7000", "tcp://[::1]:0", "tcp://db.example:65535", "mem://kv"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_error_points_at_the_column_and_says_the_fix() {
        for (text, column) in [
            ("127.0.0.1:7000", 1),
            ("udp://x:1", 1),
            ("tcp://host", 11),
            ("tcp://host:99999", 12),
            ("tcp://:80", 7),
            ("tcp://::1:80", 7),
            ("mem://", 7),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.column(), column, "{error}");
        }
        let error = "tcp://host".parse::<Endpoint>().unwrap_err();
        assert_eq!(error.to_string(), "`tcp://host` is no endpoint: at column 11, a port is missing: write tcp://host:port");
    }
}
