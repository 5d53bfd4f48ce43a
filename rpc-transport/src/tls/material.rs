//! Certificates and keys as they come: PEM, DER or files.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where certificates or a key are.
#[derive(Clone)]
enum Source {
    Pem(Vec<u8>),
    Der(Vec<Vec<u8>>),
    File(PathBuf),
}

impl Source {
    /// How a problem with it is introduced.
    fn name(&self) -> String {
        match self {
            Self::Pem(_) => "the PEM text".to_owned(),
            Self::Der(_) => "the DER".to_owned(),
            Self::File(path) => format!("`{}`", path.display()),
        }
    }

    /// The PEM text; `Err` for a file that cannot be read.
    fn pem(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Pem(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read(path).map_err(|error| format!("{}: {error}", self.name())),
            Self::Der(_) => Ok(Vec::new()),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let certificates = match self {
            Self::Der(all) => all.iter().cloned().map(CertificateDer::from).collect(),
            _ => CertificateDer::pem_slice_iter(&self.pem()?)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| format!("{}: {error}", self.name()))?,
        };
        match certificates.is_empty() {
            true => Err(format!("{}: there is no certificate in it", self.name())),
            false => Ok(certificates),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let key = match self {
            Self::Der(all) => PrivateKeyDer::try_from(all.concat()).map_err(ToString::to_string),
            _ => PrivateKeyDer::from_pem_slice(&self.pem()?).map_err(|error| error.to_string()),
        };
        key.map_err(|problem| format!("{}: there is no private key in it: {problem}", self.name()))
    }
}

/// Who one is: a certificate, those between it and its authority, and the certificate's private key.
///
/// The server's name, or the client's subject, is in the first certificate; the others follow in the order of issue, and the
/// authority's own may be left out. Keys are PKCS #8, PKCS #1 (RSA) or SEC 1 (elliptic curves).
#[derive(Clone)]
pub struct Identity {
    chain: Source,
    key: Source,
}

impl Identity {
    /// In PEM.
    pub fn pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { chain: Source::Pem(chain.into()), key: Source::Pem(key.into()) }
    }

    /// In DER.
    pub fn der(chain: impl IntoIterator<Item = Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { chain: Source::Der(chain.into_iter().collect()), key: Source::Der(vec![key.into()]) }
    }

    /// In PEM files, which are read when they are first needed.
    pub fn files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { chain: Source::File(chain.into()), key: Source::File(key.into()) }
    }

    pub(super) fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        Ok((self.chain.certificates()?, self.key.key()?))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.name()).finish_non_exhaustive()
    }
}

/// Whom to trust: the authorities whose certificates count.
#[derive(Clone, Default)]
pub struct Authorities {
    sources: Vec<Source>,
    system: bool,
}

impl Authorities {
    /// Those of a PEM text, of which there may be several.
    pub fn pem(certificates: impl Into<Vec<u8>>) -> Self {
        Self { sources: vec![Source::Pem(certificates.into())], system: false }
    }

    /// In DER.
    pub fn der(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { sources: vec![Source::Der(certificates.into_iter().collect())], system: false }
    }

    /// Those of a PEM file, which is read when it is first needed.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { sources: vec![Source::File(path.into())], system: false }
    }

    /// Those that the system trusts, as its owner has set it up: what a client has that names none.
    pub fn system() -> Self {
        Self { sources: Vec::new(), system: true }
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.sources.extend(others.sources);
        self.system |= others.system;
        self
    }

    pub(super) fn read(&self) -> Result<Arc<RootCertStore>, String> {
        let mut store = RootCertStore::empty();
        for source in &self.sources {
            for certificate in source.certificates()? {
                store.add(certificate).map_err(|error| format!("{}: this is no authority: {error}", source.name()))?;
            }
        }
        if self.system {
            let found = rustls_native_certs::load_native_certs();
            // What the system has that cannot be read is the system's matter, as long as there is something.
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!("the system names no authorities{why}: name them"));
            }
        }
        Ok(Arc::new(store))
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.sources.iter().map(Source::name).collect();
        f.debug_struct("Authorities").field("sources", &names).field("system", &self.system).finish()
    }
}
