//! Certificates made on the spot: authorities, servers, clients, and such as nobody should accept.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use rpc::tls::{Authorities, Identity};

/// An authority of a test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

/// What a certificate is for.
pub(crate) fn params(subject: &[(DnType, &str)], names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("they are names");
    params.distinguished_name = DistinguishedName::new();
    subject.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
    params
}

/// The certificate of a server with these names.
pub(crate) fn server(names: &[&str]) -> CertificateParams {
    params(&[(DnType::CommonName, "server")], names)
}

/// The certificate of a client; what it is for is a mail address and a URI.
pub(crate) fn client(name: &str) -> CertificateParams {
    let mut params = params(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, name)], &[]);
    let text = |text: String| text.try_into().expect("it is ASCII");
    params.subject_alt_names = vec![
        SanType::Rfc822Name(text(format!("{name}@example.org"))),
        SanType::URI(text(format!("spiffe://example.org/{name}"))),
        SanType::IpAddress([192, 0, 2, 7].into()),
    ];
    params
}

/// The same, long over or far ahead.
pub(crate) fn valid_in(mut params: CertificateParams, from: i32, to: i32) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(&[(DnType::CommonName, name)], &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        Self(CertifiedIssuer::self_signed(params, key).expect("it signs"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// As whom to trust.
    pub(crate) fn trusted(&self) -> Authorities {
        Authorities::pem(self.pem())
    }

    pub(crate) fn issue(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.0).expect("it signs");
        Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// The identity of a server on this machine.
    pub(crate) fn localhost(&self) -> Identity {
        self.issue(server(&["localhost", "127.0.0.1", "::1"])).identity()
    }
}

impl Issued {
    pub(crate) fn identity(&self) -> Identity {
        Identity::pem(self.chain.clone(), self.key.clone())
    }
}

/// A folder of PEM files that goes when it is dropped.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rpc-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("nobody else has that name");
        Self(folder)
    }

    /// Writes a file, and says where it is.
    pub(crate) fn add(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path
    }
}

impl Files {
    /// Where a file is, or would be.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
