//! TLS: who is trusted, who is known, and what each refusal says to whom it concerns.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rpc::tls::rustls::pki_types::pem::PemObject;
use rpc::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rpc::tls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use rpc::tls::{Authorities, ClientTls, Identity, ServerTls, TlsErrorKind};
use rpc::{
    Address, BoxFuture, Connected, Connection, ConnectionError, Endpoint, Incoming, Limits, Listener, OpenError, Peer, Principal,
    ServeError, Server, ServerBuilder,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::certificates::{Authority, Files, Issued, client, params, server, valid_in};
use crate::harness::{HANG, run, soon};
use crate::lab::{Bench, LabClient, LabServer, pattern};
use crate::proxy::{Damage, Proxy, Way};

/// Tells who calls.
#[rpc::service]
trait Door {
    async fn who(&self, cx: &rpc::Context) -> rpc::Result<String>;
}

struct Doorman;

/// A principal in a line.
fn line(principal: Option<&Principal>) -> String {
    match principal {
        Some(Principal::Certificate { subject, names, .. }) => format!("{subject} [{}]", names.join(" ")),
        Some(other) => format!("{other:?}"),
        None => "nobody".to_owned(),
    }
}

impl Door for Doorman {
    async fn who(&self, cx: &rpc::Context) -> rpc::Result<String> {
        Ok(line(cx.peer().and_then(|peer| peer.principal.as_ref())))
    }
}

fn builder() -> ServerBuilder {
    Server::builder().service(DoorServer::new(Doorman)).service(LabServer::new(Bench::new().0))
}

async fn listen(tls: ServerTls) -> Server {
    builder().tls(tls).listen("tls://127.0.0.1:0").await.unwrap()
}

async fn open(server: &Server, tls: ClientTls) -> Result<Connection, OpenError> {
    soon("open ends", Connection::builder().tls(tls).open(server.endpoint())).await
}

async fn who(connection: &Connection) -> String {
    let door: DoorClient = connection.session().open().await.unwrap();
    door.who().await.unwrap()
}

/// The class and the words of a refusal.
#[track_caller]
fn refusal(opened: Result<Connection, OpenError>) -> (TlsErrorKind, String) {
    match opened.unwrap_err() {
        OpenError::Tls { error, .. } => (error.kind(), error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn a_certificate_is_the_principal_on_both_sides() {
    run(async {
        let ours = Authority::new("ours");
        let server = listen(ServerTls::new().identity(ours.localhost()).clients(ours.trusted())).await;
        let alice = ours.issue(client("alice"));
        let tls = ClientTls::new().authorities(ours.trusted()).identity(alice.identity());
        let connection = open(&server, tls).await.unwrap();
        let names = "alice@example.org spiffe://example.org/alice 192.0.2.7";
        assert_eq!(who(&connection).await, format!("CN=alice,O=Example [{names}]"));
        assert_eq!(line(connection.peer().principal.as_ref()), "CN=server [localhost 127.0.0.1 ::1]");
        assert_eq!(connection.peer().endpoint, server.endpoint().to_string());
    });
}

#[test]
fn the_certificate_itself_is_there_and_odd_subjects_are_escaped() {
    run(async {
        let ours = Authority::new("ours");
        let (tell, mut told) = mpsc::unbounded_channel();
        let tls = ServerTls::new().identity(ours.localhost()).clients(ours.trusted());
        let server = builder().tls(tls).on_connection(move |connection| drop(tell.send(connection.peer().clone())));
        let server = server.listen("tls://127.0.0.1:0").await.unwrap();
        let odd = ours.issue(params(&[(rcgen::DnType::CommonName, "root,O=Example+x=\"1\"")], &[]));
        let tls = ClientTls::new().authorities(ours.trusted()).identity(odd.identity());
        let connection = open(&server, tls).await.unwrap();
        let peer = soon("the server tells", told.recv()).await.unwrap();
        assert!(peer.endpoint.starts_with("tls://127.0.0.1:"), "{peer:?}");
        let Some(Principal::Certificate { subject, names, certificate }) = peer.principal else { panic!("no certificate") };
        assert_eq!((subject.as_str(), names.len()), (r#"CN=root\,O=Example\+x=\"1\""#, 0));
        assert_eq!(certificate, odd.der);
        drop(connection);
    });
}

#[test]
fn clients_without_a_certificate_are_served_where_none_is_needed() {
    run(async {
        let ours = Authority::new("ours");
        let required_of_none = ServerTls::new().identity(ours.localhost());
        let optional = required_of_none.clone().clients(ours.trusted()).clients_optional();
        for tls in [required_of_none, optional.clone()] {
            let server = listen(tls).await;
            let connection = open(&server, ClientTls::new().authorities(ours.trusted())).await.unwrap();
            assert_eq!(who(&connection).await, "nobody");
        }
        let server = listen(optional).await;
        let alice = ClientTls::new().authorities(ours.trusted()).identity(ours.issue(client("alice")).identity());
        assert!(who(&open(&server, alice).await.unwrap()).await.starts_with("CN=alice,"));
        // A bad one is not as good as none.
        let theirs = Authority::new("theirs").issue(client("mallory")).identity();
        let (kind, _) = refusal(open(&server, ClientTls::new().authorities(ours.trusted()).identity(theirs)).await);
        assert_eq!(kind, TlsErrorKind::ClientCertificate);
    });
}

#[test]
fn a_refused_client_is_told_what_is_wrong_with_its_certificate() {
    run(async {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let server = listen(ServerTls::new().identity(ours.localhost()).clients(ours.trusted())).await;
        let old = ours.issue(valid_in(client("alice"), 2000, 2001));
        let early = ours.issue(valid_in(client("alice"), 2990, 2991));
        let namesake = Authority::new("ours").issue(client("mallory"));
        let cases: [(Option<Issued>, &str); 5] = [
            (Some(namesake), "it is signed with another key than that of the authority which it names"),
            (None, "wants a certificate of its clients: give one with cert=FILE&key=FILE or `ClientTls::identity`"),
            (Some(theirs.issue(client("mallory"))), "it does not trust the authority that it is of"),
            (Some(old), "it has expired, or is not valid yet"),
            (Some(early), "it has expired, or is not valid yet"),
        ];
        for (issued, expected) in cases {
            // The refusal comes when the client thinks itself connected, and races with its first bytes.
            for _ in 0..20 {
                let tls = ClientTls::new().authorities(ours.trusted());
                let tls = issued.iter().fold(tls, |tls, issued| tls.identity(issued.identity()));
                let (kind, text) = refusal(open(&server, tls).await);
                assert_eq!(kind, TlsErrorKind::ClientCertificate, "{text}");
                assert_has(&text, &["the server", expected]);
            }
        }
        // It goes on.
        let tls = ClientTls::new().authorities(ours.trusted()).identity(ours.issue(client("bob")).identity());
        assert!(who(&open(&server, tls).await.unwrap()).await.starts_with("CN=bob,"));
    });
}

#[test]
fn a_client_is_told_what_is_wrong_with_the_servers_certificate() {
    run(async {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let local = || server(&["127.0.0.1"]);
        let namesake = Authority::new("ours").issue(local());
        let elsewhere = server(&["kv.internal", "10.0.0.1", "*.example.org"]);
        let cases = [
            (ours.issue(valid_in(local(), 2000, 2001)), TlsErrorKind::Expired, vec!["has expired", " days ago"]),
            (ours.issue(valid_in(local(), 2990, 2991)), TlsErrorKind::NotYetValid, vec!["not valid yet", " days", "clock"]),
            (namesake, TlsErrorKind::UnknownAuthority, vec!["another key than that of the authority which it names"]),
            (theirs.issue(local()), TlsErrorKind::UnknownAuthority, vec!["no authority that this side trusts", "ca=FILE"]),
            (
                ours.issue(elsewhere),
                TlsErrorKind::WrongName,
                vec!["not for `127.0.0.1` but for `kv.internal`, `10.0.0.1`, `*.example.org`", "name=NAME"],
            ),
            (ours.issue(server(&[])), TlsErrorKind::WrongName, vec!["not for `127.0.0.1` but for no name at all"]),
        ];
        for (issued, expected, parts) in cases {
            let server = listen(ServerTls::new().identity(issued.identity())).await;
            let (kind, text) = refusal(open(&server, ClientTls::new().authorities(ours.trusted())).await);
            assert_eq!(kind, expected, "{text}");
            assert_has(&text, &["the server's certificate"]);
            assert_has(&text, &parts);
        }
    });
}

#[test]
fn the_systems_authorities_are_trusted_where_none_are_named() {
    run(async {
        let server = listen(ServerTls::new().identity(Authority::new("unheard of").localhost())).await;
        match Connection::open(server.endpoint()).await.unwrap_err() {
            OpenError::Tls { error, .. } => assert_eq!(error.kind(), TlsErrorKind::UnknownAuthority),
            // A machine that has none says so.
            OpenError::Config(text) => assert_has(&text, &["the system names no authorities"]),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_server_with_another_name_is_expected_by_builder_or_endpoint() {
    run(async {
        let ours = Authority::new("ours");
        let issued = ours.issue(server(&["kv.internal"]));
        let server = listen(ServerTls::new().identity(issued.identity())).await;
        let tls = ClientTls::new().authorities(ours.trusted());
        open(&server, tls.clone().name("kv.internal")).await.unwrap();
        let named = format!("{}?name=kv.internal", server.endpoint());
        Connection::builder().tls(tls).open(&*named).await.unwrap();
    });
}

#[test]
fn files_that_the_endpoint_names_are_enough() {
    run(async {
        let (ours, files) = (Authority::new("ours"), Files::new());
        let ca = files.add("ca.pem", &ours.pem());
        let (serves, calls) = (ours.issue(server(&["localhost", "127.0.0.1"])), ours.issue(client("alice")));
        let pair = |name: &str, issued: &Issued| {
            let (cert, key) = (files.add(&format!("{name}.pem"), &issued.chain), files.add(&format!("{name}.key"), &issued.key));
            format!("cert={cert}&key={key}")
        };
        let listening = format!("tls://127.0.0.1:0?client_ca={ca}&{}", pair("server", &serves));
        let server = builder().listen(&*listening).await.unwrap();
        let Address::Tls { port, .. } = server.endpoint().address() else { panic!("{}", server.endpoint()) };
        let calling = format!("tls://localhost:{port}?ca={ca}&{}", pair("alice", &calls));
        let door: DoorClient = rpc::connect(&*calling).await.unwrap();
        assert!(door.who().await.unwrap().starts_with("CN=alice,O=Example"));

        // One thing of the builder, another of the endpoint.
        let tls = ClientTls::new().identity(Identity::files(files.add("b.pem", &calls.chain), files.add("b.key", &calls.key)));
        let mixed = format!("tls://localhost:{port}?ca={ca}");
        assert!(who(&Connection::builder().tls(tls).open(&*mixed).await.unwrap()).await.starts_with("CN=alice,"));
    });
}

#[test]
fn settings_that_do_not_fit_name_the_fix() {
    run(async {
        let (ours, files) = (Authority::new("ours"), Files::new());
        let (ca, empty) = (files.add("ca.pem", &ours.pem()), files.add("empty.pem", "no certificate"));
        let identity = || ours.localhost();
        let client = async |tls: Option<ClientTls>, endpoint: &str| {
            let builder = tls.into_iter().fold(Connection::builder(), |builder, tls| builder.tls(tls));
            match builder.open(endpoint).await.unwrap_err() {
                OpenError::Config(text) => text,
                other => panic!("{other:?}"),
            }
        };
        let trusting = || Some(ClientTls::new().authorities(ours.trusted()));
        let at = |options: &str| format!("tls://127.0.0.1:1?{options}");
        let text = client(trusting(), &at(&format!("ca={ca}"))).await;
        assert_has(&text, &["`ca` stands in tls://127.0.0.1:1", "`ClientTls::authorities`", "leave one of them out"]);
        let text = client(Some(ClientTls::new().identity(identity())), &at("cert=a&key=b")).await;
        assert_has(&text, &["`cert` stands in", "`ClientTls::identity`"]);
        assert_has(&client(trusting().map(|tls| tls.name("a")), &at("name=b")).await, &["`name` stands in", "`ClientTls::name`"]);
        assert_has(&client(trusting(), &at("cert=a")).await, &["`cert` stands in", "add key=FILE"]);
        assert_has(&client(None, &at("key=a")).await, &["`key` stands in", "add cert=FILE"]);
        assert_has(&client(None, &at("ca=/nowhere.pem")).await, &["the authorities of servers: `/nowhere.pem`", "(os error 2)"]);
        assert_has(&client(None, &at(&format!("ca={empty}"))).await, &["there is no certificate in it"]);
        assert_has(&client(None, &at(&format!("ca={ca}&cert={ca}&key={ca}"))).await, &["there is no private key in it"]);
        assert_has(
            &client(trusting(), "tcp://127.0.0.1:1").await,
            &["without TLS: write tls://127.0.0.1:1", "`ConnectionBuilder::tls`"],
        );
        assert_has(&client(trusting(), "local://kv").await, &["add tls=NAME"]);
        assert_has(&client(trusting(), "tls://a b:1").await, &["`a b` is no name that a certificate can be for"]);
        let stream = Connected::new(duplex(1).0, Peer::new("odd://"));
        match Connection::builder().tls(trusting().unwrap()).open_over(stream).await.unwrap_err() {
            OpenError::Config(text) => assert_has(&text, &["`ClientTls::name`"]),
            other => panic!("{other:?}"),
        }

        let server = async |tls: Option<ServerTls>, endpoint: &str| {
            let builder = tls.into_iter().fold(builder(), |builder, tls| builder.tls(tls));
            match builder.listen(endpoint).await.unwrap_err() {
                ServeError::Config(text) => text,
                other => panic!("{other:?}"),
            }
        };
        let text = server(None, "tls://127.0.0.1:0").await;
        assert_has(&text, &["needs a certificate", "`ServerBuilder::tls`", "?cert=FILE&key=FILE"]);
        assert_has(&server(Some(ServerTls::new()), "tls://127.0.0.1:0").await, &["needs a certificate"]);
        let with = || ServerTls::new().identity(identity());
        assert_has(
            &server(Some(with()), "tcp://127.0.0.1:0").await,
            &["without TLS: write tls://127.0.0.1:0", "`ServerBuilder::tls`"],
        );
        assert_has(&server(Some(with()), "mem://secret").await, &["without TLS"]);
        assert_has(&server(Some(with().clients_optional()), "tls://127.0.0.1:0").await, &["`ServerTls::clients`"]);
        let text = server(Some(with().clients(ours.trusted())), &format!("tls://127.0.0.1:0?client_ca={ca}")).await;
        assert_has(&text, &["`client_ca` stands in", "`ServerTls::clients`"]);
        let text = server(Some(with()), "tls://127.0.0.1:0?cert=a&key=b").await;
        assert_has(&text, &["`cert` stands in", "`ServerTls::identity`"]);
        let (one, two) = (ours.issue(client_params()), ours.issue(client_params()));
        let crossed = ServerTls::new().identity(Identity::pem(one.chain, two.key));
        assert_has(&server(Some(crossed), "tls://127.0.0.1:0").await, &["the server's certificate and key"]);
    });
}

fn client_params() -> rcgen::CertificateParams {
    client("alice")
}

#[test]
fn a_server_without_tls_is_told_from_one_with_it() {
    run(async {
        let ours = Authority::new("ours");
        let plain = builder().listen("tcp://127.0.0.1:0").await.unwrap();
        let secure = listen(ServerTls::new().identity(ours.localhost())).await;
        let Address::Tcp { port, .. } = plain.endpoint().address() else { panic!("it is TCP") };
        for _ in 0..10 {
            let tls = ClientTls::new().authorities(ours.trusted());
            let dialled = soon("open ends", Connection::builder().tls(tls).open(&*format!("tls://127.0.0.1:{port}"))).await;
            let (kind, text) = refusal(dialled);
            assert_eq!(kind, TlsErrorKind::NotTls, "{text}");
            assert_has(&text, &["the server", "not speak TLS"]);

            let dialled = soon("open ends", Connection::open(&*secure.endpoint().to_string().replace("tls://", "tcp://"))).await;
            match dialled.unwrap_err() {
                OpenError::Connection(error @ ConnectionError::NotRpc { .. }) => {
                    assert_has(&error.to_string(), &["a TLS alert", "expect TLS"])
                }
                other => panic!("{other:?}"),
            }
        }
        // The other way round a banner comes unasked.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("tls://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut io, _) = listener.accept().await.unwrap();
            io.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
            let _ = io.read(&mut [0; 1024]).await;
        });
        let tls = ClientTls::new().authorities(ours.trusted());
        let (kind, text) = refusal(soon("open ends", Connection::builder().tls(tls).open(&*endpoint)).await);
        assert_eq!(kind, TlsErrorKind::NotTls, "{text}");
    });
}

/// The provider that the tests name; the library never asks which is the default.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn raw_server(ours: &Authority, protocols: &[&[u8]]) -> ServerConfig {
    let issued = ours.issue(server(&["127.0.0.1"]));
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![CertificateDer::from(issued.der)], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

fn raw_client(ours: &Authority, protocols: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// Speaks TLS over a blocking socket, in a thread: a peer that is not this library.
fn raw_tls<S>(
    mut tls: impl std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    mut socket: std::net::TcpStream,
) -> (io::Result<()>, Vec<u8>)
where
    S: rustls::SideData,
{
    socket.set_read_timeout(Some(HANG)).unwrap();
    let mut seen = Vec::new();
    let mut talk = || loop {
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
        if tls.read_tls(&mut socket)? == 0 {
            return Ok(());
        }
        let state = tls.process_new_packets();
        if let Err(error) = state {
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            return Err(io::Error::other(error));
        }
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = io::Read::read(&mut tls.reader(), &mut part) {
            seen.extend_from_slice(&part[..n]);
        }
        if state.is_ok_and(|state| state.peer_has_closed()) {
            return Ok(());
        }
    };
    let ended = talk();
    (ended, seen)
}

#[test]
fn a_server_of_another_protocol_over_tls_is_refused() {
    run(async {
        let ours = Authority::new("ours");
        for protocols in [&[][..], &[&b"h2"[..]]] {
            let config = Arc::new(raw_server(&ours, protocols));
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("tls://{}", listener.local_addr().unwrap());
            let other = tokio::task::spawn_blocking(move || {
                let (socket, _) = listener.accept().unwrap();
                raw_tls(rustls::ServerConnection::new(config).unwrap(), socket)
            });
            let tls = ClientTls::new().authorities(ours.trusted());
            let (kind, text) = refusal(soon("open ends", Connection::builder().tls(tls).open(&*endpoint)).await);
            assert_eq!(kind, TlsErrorKind::OtherProtocol, "{text}");
            assert_has(&text, &["the server speaks TLS and not this protocol", "`rpc/1`"]);
            let (_, seen) = other.await.unwrap();
            assert!(seen.is_empty(), "nothing of ours goes to a stranger: {seen:?}");
        }
    });
}

#[test]
fn a_client_of_another_protocol_over_tls_is_refused() {
    run(async {
        let ours = Authority::new("ours");
        let server = listen(ServerTls::new().identity(ours.localhost())).await;
        let Address::Tls { port, .. } = server.endpoint().address() else { panic!("it is TLS") };
        for protocols in [&[][..], &[&b"h2"[..]]] {
            let (config, port) = (Arc::new(raw_client(&ours, protocols)), *port);
            let other = tokio::task::spawn_blocking(move || {
                let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                raw_tls(rustls::ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap(), socket)
            });
            let (ended, seen) = soon("it is shown out", other).await.unwrap();
            assert!(seen.is_empty(), "{seen:?}");
            match protocols {
                // Whoever names no protocol cannot be told in the handshake; it finds an orderly end behind it.
                [] => ended.unwrap(),
                _ => assert_has(&ended.unwrap_err().to_string(), &["NoApplicationProtocol"]),
            }
        }
    });
}

#[test]
fn what_rustls_was_set_up_to_do_is_done_and_the_protocol_is_named_all_the_same() {
    run(async {
        let ours = Authority::new("ours");
        let server = listen(ServerTls::from_rustls(Arc::new(raw_server(&ours, &[b"h2"])))).await;
        let tls = ClientTls::from_rustls(Arc::new(raw_client(&ours, &[])));
        assert_eq!(who(&open(&server, tls.clone()).await.unwrap()).await, "nobody");
        let twice = tls.authorities(ours.trusted());
        assert!(matches!(open(&server, twice).await, Err(OpenError::Config(text)) if text.contains("`ClientTls::from_rustls`")));
        let twice = ServerTls::from_rustls(Arc::new(raw_server(&ours, &[]))).identity(ours.localhost());
        let error = builder().tls(twice).listen("tls://127.0.0.1:0").await.unwrap_err();
        assert_has(&error.to_string(), &["`ServerTls::from_rustls`"]);
    });
}

#[test]
fn der_and_several_authorities_are_as_good_as_pem() {
    run(async {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let identity = Identity::der([own.der().to_vec()], key.serialize_der());
        assert!(!format!("{identity:?}").contains(&format!("{:?}", key.serialize_der())[1..40]), "keys are not shown");
        let server = listen(ServerTls::new().identity(identity).clients(ours.trusted().and(theirs.trusted()))).await;
        for authority in [&ours, &theirs] {
            let tls = ClientTls::new().authorities(Authorities::der([own.der().to_vec()]));
            let tls = tls.identity(authority.issue(client("alice")).identity());
            assert!(who(&open(&server, tls).await.unwrap()).await.starts_with("CN=alice,"));
        }
    });
}

/// A server over TLS, and its client.
async fn pair() -> (Server, Connection) {
    let ours = Authority::new("ours");
    let server = listen(ServerTls::new().identity(ours.localhost())).await;
    let connection = open(&server, ClientTls::new().authorities(ours.trusted())).await.unwrap();
    (server, connection)
}

#[test]
fn thousands_of_small_calls_and_the_largest_messages_pass() {
    run(async {
        let (_server, connection) = pair().await;
        let lab: LabClient = connection.session().open().await.unwrap();
        let calls = futures::stream::iter(0..5000_u64).map(|n| {
            let lab = lab.clone();
            async move { assert_eq!(lab.slice(&n.to_be_bytes()).await.unwrap(), n.to_be_bytes()) }
        });
        calls.buffer_unordered(100).for_each(|()| async {}).await;
        let large = Bytes::from(pattern((4 << 20) - 16, 3));
        for _ in 0..3 {
            let (one, two) = tokio::join!(lab.shared(large.clone()), lab.shared(large.clone()));
            assert!(one.unwrap() == large && two.unwrap() == large);
        }
        let mut bytes = 0;
        let mut items = lab.items(2000, 10_000).await.unwrap();
        while let Some(item) = items.next().await {
            bytes += item.unwrap().len();
        }
        assert_eq!(bytes, 20_000_000);
    });
}

/// Another way to a server: the same host and certificate, through a forwarder.
fn through(proxy: &Proxy) -> String {
    proxy.endpoint.replace("tcp://", "tls://")
}

#[test]
fn large_messages_go_in_full_records() {
    run(async {
        let ours = Authority::new("ours");
        let server = listen(ServerTls::new().identity(ours.localhost())).await;
        let proxy = Proxy::new(server.endpoint(), Damage::None).await;
        let tls = ClientTls::new().authorities(ours.trusted());
        let connection = Connection::builder().tls(tls).open(&*through(&proxy)).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        lab.text("the way is open").await.unwrap();
        let before = proxy.passed();
        let size = 4 << 20;
        assert_eq!(lab.size(Bytes::from(pattern(size - 16, 1))).await.unwrap(), size as u64 - 16);
        let beside = proxy.passed().0 - before.0 - size;
        // A record has 16 KiB and 22 bytes beside: 256 of them, and as many again for the ends of writes and for frames.
        assert!(beside < 2 * 256 * 22, "{beside} bytes beside {size}");
    });
}

#[test]
fn an_end_is_told_from_a_stream_that_was_cut_off() {
    run(async {
        let ours = Authority::new("ours");
        let tls = ClientTls::new().authorities(ours.trusted());
        let server = listen(ServerTls::new().identity(ours.localhost())).await;
        let connection = open(&server, tls.clone()).await.unwrap();
        let closed = connection.clone();
        let waiting = tokio::spawn(async move { closed.closed().await });
        server.shutdown().await;
        assert!(matches!(waiting.await.unwrap(), ConnectionError::ClosedByPeer(_)));

        // Cut in the middle of an answer, the connection breaks, and no part of it passes for the whole.
        let server = listen(ServerTls::new().identity(ours.localhost())).await;
        let proxy = Proxy::new(server.endpoint(), Damage::Cut(Way::ToClient, 200_000)).await;
        let connection = Connection::builder().tls(tls.clone()).open(&*through(&proxy)).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let error = soon("the call ends", lab.zeros(1 << 20)).await.unwrap_err();
        assert!(error.fault().unwrap().may_have_run());
        match connection.closed().await {
            ConnectionError::Io { kind: io::ErrorKind::UnexpectedEof, detail } => assert_has(&detail, &["cut off"]),
            // The socket of whoever still wrote.
            ConnectionError::Io { kind, .. } => {
                assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
            }
            other => panic!("{other:?}"),
        }

        // A byte that was changed on the way is noticed.
        let proxy = Proxy::new(server.endpoint(), Damage::Flip(Way::ToClient, 100_000, 1)).await;
        let connection = Connection::builder().tls(tls).open(&*through(&proxy)).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        soon("the call ends", lab.zeros(1 << 20)).await.unwrap_err();
        assert!(matches!(connection.closed().await, ConnectionError::Io { kind: io::ErrorKind::InvalidData, .. }));
    });
}

#[test]
fn a_cut_at_any_byte_of_the_handshake_is_an_error_and_nothing_else() {
    run(async {
        let ours = Authority::new("ours");
        let server = listen(ServerTls::new().identity(ours.localhost()).clients(ours.trusted())).await;
        let tls = ClientTls::new().authorities(ours.trusted()).identity(ours.issue(client("alice")).identity());
        for way in [Way::ToServer, Way::ToClient] {
            for at in (0..1000).step_by(41) {
                let proxy = Proxy::new(server.endpoint(), Damage::Cut(way, at)).await;
                let opened = soon("open ends", Connection::builder().tls(tls.clone()).open(&*through(&proxy))).await;
                match opened {
                    // The hellos of TLS alone are longer.
                    Ok(_) => assert!(at > 300, "{way:?} {at}"),
                    Err(OpenError::Tls { .. } | OpenError::Unreachable { .. }) => {}
                    Err(OpenError::Connection(error)) => assert!(matches!(error, ConnectionError::Io { .. }), "{error:?}"),
                    Err(other) => panic!("{way:?} {at}: {other:?}"),
                }
            }
        }
        assert!(who(&open(&server, tls).await.unwrap()).await.starts_with("CN=alice,"));
    });
}

#[test]
fn handshakes_that_hang_hold_up_nobody_and_end() {
    run(async {
        let ours = Authority::new("ours");
        let limits = Limits::default().handshake(Duration::from_secs(1));
        let tls = ServerTls::new().identity(ours.localhost());
        let server = builder().limits(limits).tls(tls).listen("tls://127.0.0.1:0").await.unwrap();
        let Address::Tls { host, port } = server.endpoint().address() else { panic!("it is TLS") };
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect((host.as_str(), *port)).await.unwrap());
        }
        let connection = open(&server, ClientTls::new().authorities(ours.trusted())).await.unwrap();
        assert_eq!(who(&connection).await, "nobody");
        for mut silent in silent {
            let read = soon("the server lets go", silent.read(&mut [0; 16])).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
    });
}

/// A listener over streams that a test makes, each of a user that the system vouches for.
pub(crate) struct Streams(mpsc::UnboundedReceiver<DuplexStream>);

impl Streams {
    pub(crate) fn new() -> (mpsc::UnboundedSender<DuplexStream>, Self) {
        let (clients, come) = mpsc::unbounded_channel();
        (clients, Self(come))
    }
}

impl Listener for Streams {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => {
                    let user = Principal::UnixUser { uid: 7, gid: 7, pid: None };
                    Ok(Incoming::ready(Connected::new(stream, Peer::new("odd://client").with_principal(user))))
                }
                None => std::future::pending().await,
            }
        })
    }

    fn endpoint(&self) -> Endpoint {
        Address::Memory { name: "streams".into() }.into()
    }
}

#[test]
fn tls_goes_over_any_stream_and_its_principal_comes_first() {
    run(async {
        let ours = Authority::new("ours");
        let (clients, streams) = Streams::new();
        let tls = ServerTls::new().identity(ours.localhost()).clients(ours.trusted()).clients_optional();
        let _server = builder().tls(tls).serve(streams).unwrap();
        let trusting = ClientTls::new().authorities(ours.trusted()).name("localhost");
        let alice = trusting.clone().identity(ours.issue(client("alice")).identity());
        for (tls, expected) in [(trusting, "UnixUser { uid: 7,"), (alice, "CN=alice,O=Example [")] {
            let (here, there) = duplex(4096);
            clients.send(there).unwrap();
            let stream = Connected::new(here, Peer::new("odd://server"));
            let connection = Connection::builder().tls(tls).open_over(stream).await.unwrap();
            assert_has(&who(&connection).await, &[expected]);
            assert_eq!(line(connection.peer().principal.as_ref()), "CN=server [localhost 127.0.0.1 ::1]");
            assert_eq!(connection.peer().endpoint, "odd://server");
        }
        // Who is not trusted is told so here too.
        let (here, there) = duplex(4096);
        clients.send(there).unwrap();
        let strict = ClientTls::new().authorities(Authority::new("theirs").trusted()).name("localhost");
        let opened = Connection::builder().tls(strict).open_over(Connected::new(here, Peer::new("odd://server"))).await;
        assert_eq!(refusal(opened).0, TlsErrorKind::UnknownAuthority);
    });
}

/// A stream that keeps what it took until it is flushed, and flushes a little at a time, as TLS does over a full socket.
struct Keeping {
    io: DuplexStream,
    kept: Vec<u8>,
    rest: bool,
}

impl AsyncRead for Keeping {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Keeping {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, kept, rest } = &mut *self;
        while !kept.is_empty() {
            *rest = !*rest;
            if *rest {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = kept.len().min(100);
            let n = ready!(Pin::new(&mut *io).poll_write(cx, &kept[..n]))?;
            kept.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[test]
fn what_a_stream_keeps_is_flushed_to_the_end() {
    run(async {
        let (clients, streams) = Streams::new();
        let _server = builder().serve(streams).unwrap();
        let (here, there) = duplex(64);
        clients.send(there).unwrap();
        let stream = Connected::new(Keeping { io: here, kept: Vec::new(), rest: false }, Peer::new("odd://server"));
        let connection = soon("open ends", Connection::builder().open_over(stream)).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        for size in [1, 1000, 10_000] {
            assert_eq!(soon("the call ends", lab.size(pattern(size, 1).into())).await.unwrap(), size as u64);
        }
    });
}
