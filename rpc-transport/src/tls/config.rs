//! Settings of both sides, and what comes of them and an endpoint together.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

use super::{Authorities, Identity};
use crate::endpoint::{Address, Endpoint};

/// What both sides must name in the handshake (ALPN).
pub(crate) const PROTOCOL: &[u8] = b"rpc/1";

/// The cryptography. Never the default of the process: whether there is one depends on who else is in it.
fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    use tokio_rustls::rustls::crypto::aws_lc_rs as chosen;
    #[cfg(not(feature = "tls-aws-lc"))]
    use tokio_rustls::rustls::crypto::ring as chosen;
    Arc::new(chosen::default_provider())
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

/// TLS as a client speaks it; see [`ConnectionBuilder::tls`](crate::ConnectionBuilder::tls).
///
/// Certificates and files are read at the first connection, and kept; clones share them.
#[derive(Clone, Default)]
#[must_use = "it is for `ConnectionBuilder::tls`"]
pub struct ClientTls {
    authorities: Option<Authorities>,
    identity: Option<Identity>,
    name: Option<String>,
    rustls: Option<Arc<ClientConfig>>,
    built: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl ClientTls {
    /// The authorities of the system, and no certificate of one's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// What rustls was set up to do, for what has no setting here: verifiers and keys of one's own, other versions. Nothing
    /// but [`name`](Self::name) can be set beside it. The protocol's name (ALPN) is set in a copy, and early data are off.
    ///
    /// Its type is that of the rustls that [`tls::rustls`](super::rustls) is, which is at 0.x.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self { rustls: Some(config), ..Self::default() }
    }

    /// Whose certificates a server may have, in place of the system's authorities.
    pub fn authorities(mut self, authorities: Authorities) -> Self {
        self.authorities = Some(authorities);
        self.changed()
    }

    /// The certificate to show to servers that ask for one.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self.changed()
    }

    /// The name or address that the server's certificate must be for, where it is not the host.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What clones have built is not for these settings.
    fn changed(mut self) -> Self {
        self.built = Arc::default();
        self
    }

    fn build(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(built) = self.built.get() {
            return Ok(Arc::clone(built));
        }
        let mut config = match &self.rustls {
            Some(config) => ClientConfig::clone(config),
            None => {
                let authorities = self.authorities.clone().unwrap_or_else(Authorities::system);
                let roots = authorities.read().map_err(|problem| format!("the authorities of servers: {problem}"))?;
                let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(text)?;
                let builder = builder.with_root_certificates(roots);
                let mut config = match &self.identity {
                    None => builder.with_no_client_auth(),
                    Some(identity) => {
                        let own = |problem| format!("the client's certificate and key: {problem}");
                        let (chain, key) = identity.read().map_err(own)?;
                        builder.with_client_auth_cert(chain, key).map_err(|error| own(text(error)))?
                    }
                };
                config.resumption = Resumption::disabled();
                config
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_early_data = false;
        Ok(Arc::clone(self.built.get_or_init(|| Arc::new(config))))
    }

    /// Both sources of a setting, of which one may say something.
    fn merge(&mut self, endpoint: &Endpoint) -> Result<(), String> {
        let options = endpoint.options();
        let twice =
            |option, setting| format!("`{option}` stands in {endpoint} and is set by {setting} too: leave one of them out");
        let opaque = self.rustls.is_some();
        if let Some(ca) = &options.ca {
            if opaque || self.authorities.is_some() {
                return Err(twice("ca", if opaque { "`ClientTls::from_rustls`" } else { "`ClientTls::authorities`" }));
            }
            *self = std::mem::take(self).authorities(Authorities::file(ca));
        }
        if let Some(identity) = identity(endpoint)? {
            if opaque || self.identity.is_some() {
                return Err(twice("cert", if opaque { "`ClientTls::from_rustls`" } else { "`ClientTls::identity`" }));
            }
            *self = std::mem::take(self).identity(identity);
        }
        let (option, name) = match endpoint.address() {
            Address::Tls { .. } => ("name", &options.name),
            _ => ("tls", &options.tls),
        };
        if name.is_some() && self.name.is_some() {
            return Err(twice(option, "`ClientTls::name`"));
        }
        self.name = name.clone().or(self.name.take());
        Ok(())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authorities, identity, name, .. } = self;
        let mut shown = f.debug_struct("ClientTls");
        shown.field("authorities", authorities).field("identity", identity).field("name", name).finish_non_exhaustive()
    }
}

/// TLS as a server speaks it; see [`ServerBuilder::tls`](crate::ServerBuilder::tls).
///
/// Certificates and files are read when the server starts; a new certificate needs a new server, or a resolver of one's own
/// by [`from_rustls`](Self::from_rustls).
#[derive(Clone, Default)]
#[must_use = "it is for `ServerBuilder::tls`"]
pub struct ServerTls {
    identity: Option<Identity>,
    clients: Option<Authorities>,
    optional: bool,
    rustls: Option<Arc<ServerConfig>>,
}

impl ServerTls {
    /// No certificate yet: [`identity`](Self::identity), or `cert` and `key` of the endpoint. Clients need none.
    pub fn new() -> Self {
        Self::default()
    }

    /// What rustls was set up to do, for what has no setting here: several certificates, such that change, lists of revoked
    /// ones. Nothing can be set beside it. The protocol's name (ALPN) is set in a copy, and early data are off.
    ///
    /// Its type is that of the rustls that [`tls::rustls`](super::rustls) is, which is at 0.x.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        Self { rustls: Some(config), ..Self::default() }
    }

    /// The server's certificate.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Serves only clients with a certificate of one of these authorities. Its subject is the sessions'
    /// [principal](rpc_core::context::Principal::Certificate).
    pub fn clients(mut self, authorities: Authorities) -> Self {
        self.clients = Some(authorities);
        self
    }

    /// Serves clients without a certificate too; with one, it must be of [`clients`](Self::clients).
    pub fn clients_optional(mut self) -> Self {
        self.optional = true;
        self
    }

    fn build(&self) -> Result<Arc<ServerConfig>, String> {
        let mut config = match &self.rustls {
            Some(_) if self.identity.is_some() || self.clients.is_some() || self.optional => {
                return Err("`ServerTls::from_rustls` has its own certificates and clients: set none beside it".to_owned());
            }
            Some(config) => ServerConfig::clone(config),
            None => self.own()?,
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    fn own(&self) -> Result<ServerConfig, String> {
        let Some(identity) = &self.identity else {
            return Err("a TLS server needs a certificate: give `ServerBuilder::tls` one by `ServerTls::identity`, or write \
                        ?cert=FILE&key=FILE into the endpoint"
                .to_owned());
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(text)?;
        let builder = match &self.clients {
            None if self.optional => {
                return Err("`ServerTls::clients_optional` needs `ServerTls::clients`, or leave it out".to_owned());
            }
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let clients = |problem| format!("the authorities of clients: {problem}");
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities.read().map_err(clients)?, provider());
                let verifier = if self.optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| clients(text(error)))?)
            }
        };
        let own = |problem| format!("the server's certificate and key: {problem}");
        let (chain, key) = identity.read().map_err(own)?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| own(text(error)))?;
        // Each connection is verified anew, so that no certificate lives longer than it says.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// Both sources of a setting, of which one may say something.
    fn merge(&mut self, endpoint: &Endpoint) -> Result<(), String> {
        let options = endpoint.options();
        let twice =
            |option, setting| format!("`{option}` stands in {endpoint} and is set by {setting} too: leave one of them out");
        if let Some(ca) = &options.client_ca {
            if self.clients.is_some() {
                return Err(twice("client_ca", "`ServerTls::clients`"));
            }
            self.clients = Some(Authorities::file(ca));
        }
        if let Some(identity) = identity(endpoint)? {
            if self.identity.is_some() {
                return Err(twice("cert", "`ServerTls::identity`"));
            }
            self.identity = Some(identity);
        }
        Ok(())
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, clients, optional, .. } = self;
        let mut shown = f.debug_struct("ServerTls");
        shown.field("identity", identity).field("clients", clients).field("optional", optional).finish_non_exhaustive()
    }
}

/// The identity that an endpoint names.
fn identity(endpoint: &Endpoint) -> Result<Option<Identity>, String> {
    let options = endpoint.options();
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Ok(Some(Identity::files(cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("`cert` stands in {endpoint} without its key: add key=FILE")),
        (None, Some(_)) => Err(format!("`key` stands in {endpoint} without its certificate: add cert=FILE")),
    }
}

/// Whether an endpoint asks for TLS.
pub(crate) fn has_tls(endpoint: &Endpoint) -> bool {
    matches!(endpoint.address(), Address::Tls { .. }) || endpoint.options().tls.is_some()
}

/// The same; `Err` where the builder asks for it and the endpoint does not.
fn asked_for(endpoint: &Endpoint, set: Option<&str>) -> Result<bool, String> {
    let asks = has_tls(endpoint);
    match set {
        // Nobody who set it means to send in the clear.
        Some(setter) if !asks => {
            let fix = match endpoint.address() {
                Address::Tcp { host, port } => format!("write {}", Address::Tls { host: host.clone(), port: *port }),
                Address::Memory { .. } => "memory has no TLS".to_owned(),
                _ => "add tls=NAME with the server's name".to_owned(),
            };
            Err(format!("`{setter}` is set, and {endpoint} is without TLS: {fix}, or leave `{setter}` out"))
        }
        _ => Ok(asks),
    }
}

/// What a client speaks, and the name that it expects; `None`: not TLS. `over` is the endpoint, and `None` for a stream that
/// was connected elsewhere. May read files.
pub(crate) fn client(
    ours: Option<ClientTls>,
    over: Option<&Endpoint>,
) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, String> {
    let set = ours.is_some();
    let mut tls = ours.unwrap_or_default();
    let mut host = None;
    match over {
        Some(endpoint) if asked_for(endpoint, set.then_some("ConnectionBuilder::tls"))? => {
            tls.merge(endpoint)?;
            if let Address::Tls { host: named, .. } = endpoint.address() {
                host = Some(named.clone());
            }
        }
        None if set => {}
        _ => return Ok(None),
    }
    if tls.rustls.is_some() && (tls.authorities.is_some() || tls.identity.is_some()) {
        return Err("`ClientTls::from_rustls` has its own authorities and certificate: set none beside it".to_owned());
    }
    let Some(name) = tls.name.clone().or(host) else {
        return Err("over a stream of one's own nothing says whom to expect: set `ClientTls::name`".to_owned());
    };
    let bad = |_| format!("`{name}` is no name that a certificate can be for: write a host's name or an address");
    let name = ServerName::try_from(name.clone()).map_err(bad)?;
    Ok(Some((tls.build()?, name)))
}

/// What a server speaks; `None`: not TLS. `over` is the endpoint, and `None` for a listener of one's own. May read files.
pub(crate) fn server(ours: Option<ServerTls>, over: Option<&Endpoint>) -> Result<Option<Arc<ServerConfig>>, String> {
    let set = ours.is_some();
    let mut tls = ours.unwrap_or_default();
    match over {
        Some(endpoint) if asked_for(endpoint, set.then_some("ServerBuilder::tls"))? => tls.merge(endpoint)?,
        None if set => {}
        _ => return Ok(None),
    }
    tls.build().map(Some)
}
