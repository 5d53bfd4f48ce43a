//! What may stand behind the question mark of an endpoint.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Address;
use super::parse::escape;

/// Options of an [`Endpoint`](super::Endpoint): its query part, and what holds where one says nothing.
///
/// | option | for | says | without it |
/// |---|---|---|---|
/// | `keepalive=SECONDS`, `keepalive=off` | tcp, tls | the silence until the system asks whether the peer lives | 60 |
/// | `unsent=BYTES` | tcp, tls | what may lie unsent in the system's buffer | 131072 |
/// | `mode=OCTAL` | unix, local | who may connect: the socket file's permissions | 600 |
/// | `user=ID` | unix, pipe, local | to a client: the user who serves there | oneself, or the system's own |
/// | `tls=NAME` | unix, pipe, local | use TLS; to a client: the server's name in its certificate | no TLS |
/// | `name=NAME` | tls | to a client: the server's name in its certificate | the host |
/// | `ca=PATH` | TLS | to a client: PEM file of the authorities of servers | those of the builder |
/// | `client_ca=PATH` | TLS | to a server: PEM file of the authorities of clients, which then need certificates | those of the builder |
/// | `cert=PATH`, `key=PATH` | TLS | PEM files of one's own certificates and their key | those of the builder |
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Options {
    /// The silence after which the system probes the peer; zero for never. It finds hosts that are gone where the protocol's
    /// own keepalive is off, and keeps address translators from forgetting the connection.
    pub keepalive: Option<Duration>,
    /// The most that may lie unsent in the system's buffer, in bytes (`TCP_NOTSENT_LOWAT`). What lies there cannot be
    /// overtaken any more.
    pub unsent: Option<u32>,
    /// Permission bits of the socket file.
    pub mode: Option<u32>,
    /// Number of the user (Unix) or SID (Windows) that a client takes for the right server.
    pub user: Option<String>,
    /// TLS over what is not TCP, with the server's name.
    pub tls: Option<String>,
    /// The server's name where it is not the host.
    pub name: Option<String>,
    /// PEM file of the authorities that a client trusts.
    pub ca: Option<PathBuf>,
    /// PEM file of the authorities of clients that a server trusts.
    pub client_ca: Option<PathBuf>,
    /// PEM file of one's own certificate and those between it and its authority.
    pub cert: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key: Option<PathBuf>,
}

/// What there is to read for each kind of address.
const NETWORK: &[&str] = &["keepalive", "unsent"];
const TLS: &[&str] = &["keepalive", "unsent", "name", "ca", "client_ca", "cert", "key"];
const SOCKET: &[&str] = &["mode", "user", "tls", "ca", "client_ca", "cert", "key"];
const PIPE: &[&str] = &["user", "tls", "ca", "client_ca", "cert", "key"];

impl Options {
    /// The options that an address takes.
    pub(super) fn of(address: &Address) -> &'static [&'static str] {
        match address {
            Address::Tcp { .. } => NETWORK,
            Address::Tls { .. } => TLS,
            Address::Unix { .. } | Address::Local { .. } => SOCKET,
            Address::Abstract { .. } | Address::Pipe { .. } => PIPE,
            Address::Memory { .. } => &[],
        }
    }

    /// Takes one option. `Err` is what is wrong with the value.
    pub(super) fn set(&mut self, key: &str, value: String) -> Result<(), &'static str> {
        let number = |problem| value.parse::<u32>().map_err(|_| problem);
        match key {
            "keepalive" if value == "off" => self.keepalive = Some(Duration::ZERO),
            "keepalive" => match number("write a number of seconds from 1 on, or off")? {
                0 => return Err("write a number of seconds from 1 on, or off"),
                seconds => self.keepalive = Some(Duration::from_secs(seconds.into())),
            },
            "unsent" => self.unsent = Some(number("write a number of bytes")?),
            "mode" => match u32::from_str_radix(&value, 8) {
                Ok(mode @ ..=0o777) => self.mode = Some(mode),
                _ => return Err("write permissions as an octal number, such as 660"),
            },
            "user" => self.user = Some(value),
            "tls" => self.tls = Some(value),
            "name" => self.name = Some(value),
            "ca" => self.ca = Some(value.into()),
            "client_ca" => self.client_ca = Some(value.into()),
            "cert" => self.cert = Some(value.into()),
            _ => self.key = Some(value.into()),
        }
        Ok(())
    }

    /// A key that needs another one, which is missing.
    pub(super) fn lacks_tls(&self, address: &Address) -> Option<&'static str> {
        let files = [("ca", &self.ca), ("client_ca", &self.client_ca), ("cert", &self.cert), ("key", &self.key)];
        let first = files.iter().find(|(_, path)| path.is_some())?.0;
        (!matches!(address, Address::Tls { .. }) && self.tls.is_none()).then_some(first)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keepalive = self.keepalive.map(|time| match time.as_secs() {
            0 => "off".to_owned(),
            seconds => seconds.to_string(),
        });
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| escape(path.as_os_str().as_encoded_bytes()));
        let text = |text: &Option<String>| text.as_ref().map(|text| escape(text.as_bytes()));
        let all = [
            ("keepalive", keepalive),
            ("unsent", self.unsent.map(|bytes| bytes.to_string())),
            ("mode", self.mode.map(|mode| format!("{mode:o}"))),
            ("user", text(&self.user)),
            ("tls", text(&self.tls)),
            ("name", text(&self.name)),
            ("ca", path(&self.ca)),
            ("client_ca", path(&self.client_ca)),
            ("cert", path(&self.cert)),
            ("key", path(&self.key)),
        ];
        let mut sign = '?';
        for (key, value) in all.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            write!(f, "{sign}{key}={value}")?;
            sign = '&';
        }
        Ok(())
    }
}
