//! TLS with certificates on both sides, made on the spot: the handler knows who calls by the subject, and a stranger is
//! refused and told why. In an application, `rpc = { version = "0.1", features = ["tls"] }` and certificates in files.
#![allow(clippy::print_stdout, reason = "it is a program")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rpc::tls::{Authorities, ClientTls, Identity, ServerTls, TlsErrorKind};
use rpc::{Connection, Fault, OpenError, Principal, Server};

#[rpc::service]
trait Vault {
    async fn open(&self, cx: &rpc::Context) -> rpc::Result<String>;
}

struct Steel;

impl Vault for Steel {
    async fn open(&self, cx: &rpc::Context) -> rpc::Result<String> {
        match cx.peer().and_then(|peer| peer.principal.as_ref()) {
            Some(Principal::Certificate { subject, .. }) if subject == "CN=alice" => Ok(format!("welcome, {subject}")),
            Some(Principal::Certificate { subject, .. }) => Err(Fault::denied(format!("not for {subject}")))?,
            _ => Err(Fault::denied("not without a certificate"))?,
        }
    }
}

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// For whoever trusts it.
    fn trusted(&self) -> Authorities {
        Authorities::pem(self.0.pem())
    }

    fn issue(&self, subject: &str, hosts: &[&str]) -> Result<Identity, rcgen::Error> {
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Identity::pem(certificate.pem(), key.serialize_pem()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ours = Authority::new()?;

    // Only clients with a certificate of ours come as far as a handler.
    let tls = ServerTls::new().identity(ours.issue("vault", &["localhost", "127.0.0.1"])?).clients(ours.trusted());
    let server = Server::builder().service(VaultServer::new(Steel)).tls(tls).listen("tls://127.0.0.1:0").await?;

    let alice = ClientTls::new().authorities(ours.trusted()).identity(ours.issue("alice", &[])?);
    let connection = Connection::builder().tls(alice).open(server.endpoint()).await?;
    let vault: VaultClient = connection.session().open().await?;
    let answer = vault.open().await?;
    assert_eq!(answer, "welcome, CN=alice");
    println!("alice: {answer}");

    // The client knows by its certificate whom it talks to.
    let Some(Principal::Certificate { subject, names, .. }) = &connection.peer().principal else { panic!("servers have one") };
    assert_eq!((subject.as_str(), names.len()), ("CN=vault", 2));

    // Bob is known, and is not let in.
    let bob = ClientTls::new().authorities(ours.trusted()).identity(ours.issue("bob", &[])?);
    let vault: VaultClient = Connection::builder().tls(bob).open(server.endpoint()).await?.session().open().await?;
    let denied = vault.open().await.unwrap_err();
    assert!(denied.to_string().contains("not for CN=bob"), "{denied}");
    println!("bob: {denied}");

    // A stranger calls herself alice too, by an authority of her own, and gets no connection.
    let stranger = ClientTls::new().authorities(ours.trusted()).identity(Authority::new()?.issue("alice", &[])?);
    let refused = Connection::builder().tls(stranger).open(server.endpoint()).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Tls { error, .. } if error.kind() == TlsErrorKind::ClientCertificate));
    println!("a stranger: {refused}");

    // And whoever does not trust the server's authority finds that out first.
    let wary = ClientTls::new().authorities(Authority::new()?.trusted());
    let refused = Connection::builder().tls(wary).open(server.endpoint()).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Tls { error, .. } if error.kind() == TlsErrorKind::UnknownAuthority));
    println!("a wary client: {refused}");
    Ok(())
}
