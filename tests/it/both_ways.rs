//! Servers that call their clients: over the connection that a client made, in sessions of their own.

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use rpc::{Code, Connection, ConnectionError, Fault, FaultKind, OpenError, Server, Session};
use tokio::sync::mpsc;

use crate::harness::{limits, run, soon};
use crate::lab::{Bench, LONG, LabClient, LabServer, pattern};

/// A server that hands out its side of every connection, with a service of its own.
struct Scene {
    server: Server,
    bench: Bench,
    connected: mpsc::UnboundedReceiver<Connection>,
}

impl Scene {
    async fn new(endpoint: &str) -> Self {
        let (bench, _) = Bench::new();
        let (tell, connected) = mpsc::unbounded_channel();
        let server = Server::builder().service(LabServer::new(bench.clone()));
        let server = server.on_connection(move |connection| drop(tell.send(connection)));
        Self { server: server.listen(endpoint).await.unwrap(), bench, connected }
    }

    /// A client that offers the lab too, and the server's side of its connection.
    async fn client(&mut self) -> (Connection, Bench, Connection) {
        let (bench, _) = Bench::new();
        let client = Connection::builder().service(LabServer::new(bench.clone()));
        let client = client.open(self.server.endpoint()).await.unwrap();
        (client, bench, self.connected().await)
    }

    async fn connected(&mut self) -> Connection {
        soon("the server is told of the connection", self.connected.recv()).await.unwrap()
    }
}

async fn session(connection: &Connection) -> LabClient {
    soon("a session opens", connection.session().open()).await.unwrap()
}

#[test]
fn a_server_calls_the_client_that_it_means() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(scene.client().await);
        }
        // Long behind the connecting, to one after the other, and to all at once.
        for (n, (client, bench, there)) in clients.iter().enumerate() {
            let lab = session(there).await;
            for _ in 0..=n {
                assert_eq!(lab.text("to you").await.unwrap(), "TO YOU");
            }
            assert_eq!(bench.calls(), n + 1);
            assert!(there.peer().endpoint.starts_with("tcp://127.0.0.1:"));
            assert_eq!(client.peer().endpoint, scene.server.endpoint().to_string());
        }
        let calls = clients.iter().map(|(_, _, there)| async {
            let lab = session(there).await;
            lab.sum(stream::iter(0..1000)).await.unwrap()
        });
        assert_eq!(join_all(calls).await, [499_500; 5]);
        assert_eq!(scene.bench.calls(), 0, "nobody called the server");
    });
}

#[test]
fn calls_of_both_sides_do_not_get_in_each_others_way() {
    run(async {
        for endpoint in ["tcp://127.0.0.1:0", "mem://both-ways"] {
            let mut scene = Scene::new(endpoint).await;
            let (client, _, there) = scene.client().await;
            let talk = |connection: Connection, seed| async move {
                let lab = session(&connection).await;
                let mut items = lab.endless(seed).await.unwrap();
                for n in 0..200u64 {
                    let bytes = Bytes::from(pattern(if n % 20 == 0 { 300_000 } else { 50 }, seed + n));
                    assert!(lab.shared(bytes.clone()).await.unwrap() == bytes);
                    assert_eq!(items.next().await.unwrap().unwrap(), n);
                }
            };
            let both = (0..6u64).map(|n| tokio::spawn(talk(if n % 2 == 0 { client.clone() } else { there.clone() }, n)));
            for talk in both.collect::<Vec<_>>() {
                soon("both sides call", talk).await.unwrap();
            }
        }
    });
}

#[test]
fn the_servers_handle_does_not_keep_the_connection_open() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let (client, _, there) = scene.client().await;
        let lab = session(&there).await;
        let kept = Session::of(&lab).unwrap();
        assert_eq!(lab.text("a").await.unwrap(), "A");
        drop(client);
        match soon("the connection ends", there.closed()).await {
            ConnectionError::ClosedByPeer(reason) => assert_eq!(reason.code, Code::NO_ERROR),
            other => panic!("{other}"),
        }
        assert!(!soon("its session ends", kept.closed()).await.is_confirmed());
        let error = lab.text("a").await.unwrap_err();
        assert_eq!(error.fault().unwrap().kind(), FaultKind::NotStarted);
        let error = there.session().open::<LabClient>().await.map(drop).unwrap_err();
        assert!(!Fault::from(error).may_have_run());
    });
}

#[test]
fn letting_go_of_the_servers_handle_closes_nothing() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let (client, _, there) = scene.client().await;
        let (ours, theirs) = (session(&client).await, session(&there).await);
        drop(there);
        assert_eq!(theirs.text("a").await.unwrap(), "A");
        assert!(Session::of(&theirs).unwrap().close().await.is_confirmed());
        drop(theirs);
        // What a handler got from its context is no more than that either.
        ours.introduce().await.unwrap();
        drop(scene.bench.met());
        assert_eq!(ours.text("a").await.unwrap(), "A");
        let again = Connection::of(&scene.bench.met().0).unwrap();
        assert_eq!(session(&again).await.text("b").await.unwrap(), "B");
    });
}

#[test]
fn a_session_of_the_server_ends_as_any_other() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let (client, bench, there) = scene.client().await;
        let lab = session(&there).await;
        lab.introduce().await.unwrap();
        let waiting = tokio::spawn(lab.wait(1));
        assert_eq!(lab.text("a").await.unwrap(), "A");
        let (of_client, back) = bench.met();
        assert_eq!(back.peer(), client.peer());
        let draining = tokio::spawn(async move { client.drain(LONG).await });
        while !Session::of(&lab).unwrap().is_closing() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lab.text("a").await.unwrap_err().fault().map(Fault::kind), Some(FaultKind::NotStarted));
        match there.session().open::<LabClient>().await {
            Err(OpenError::Rejected { reason, .. }) => assert_eq!(reason.code, Code::REFUSED),
            other => panic!("{:?}", other.map(drop)),
        }
        bench.open_gate();
        assert_eq!(waiting.await.unwrap().unwrap(), 1);
        assert!(soon("the client drains", draining).await.unwrap().is_clean());
        assert!(soon("its side of the session ends", of_client.closed()).await.is_confirmed());
    });
}

#[test]
fn a_client_that_offers_nothing_says_so() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let client = Connection::open(scene.server.endpoint()).await.unwrap();
        let there = scene.connected().await;
        match there.session().open::<LabClient>().await {
            Err(error @ OpenError::Rejected { .. }) => {
                assert_eq!(error.code(), Some(Code::UNKNOWN_SERVICE));
                assert!(error.to_string().contains("no service is named `Lab` here; there is: none"), "{error}");
            }
            other => panic!("{:?}", other.map(drop)),
        }
        // A handler that relies on it fails, and says the same.
        let error = session(&client).await.bounce(1, Bytes::new()).await.unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.code(), fault.may_have_run()), (Code::UNKNOWN_SERVICE, true));
        assert_eq!(session(&client).await.text("a").await.unwrap(), "A");
    });
}

#[test]
fn offering_a_service_for_a_single_session_is_refused_with_the_fix() {
    run(async {
        let scene = Scene::new("tcp://127.0.0.1:0").await;
        let (bench, _events) = Bench::new();
        let builder = Connection::builder().single_session().service(LabServer::new(bench.clone()));
        match builder.open(scene.server.endpoint()).await {
            Err(OpenError::Config(text)) => assert!(text.ends_with("leave `single_session` out"), "{text}"),
            other => panic!("{other:?}"),
        }
        let twice = Connection::builder().service(LabServer::new(bench.clone())).service(LabServer::new(bench));
        match twice.open(scene.server.endpoint()).await {
            Err(OpenError::Config(text)) => assert!(text.contains("`Lab`"), "{text}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_server_opens_no_session_on_a_connection_with_one() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let lab: LabClient = rpc::connect(scene.server.endpoint()).await.unwrap();
        let there = scene.connected().await;
        match there.session().open::<LabClient>().await {
            Err(error @ OpenError::Rejected { .. }) => assert_eq!(error.code(), Some(Code::MODE), "{error}"),
            other => panic!("{:?}", other.map(drop)),
        }
        assert_eq!(lab.text("a").await.unwrap(), "A");
    });
}

#[test]
fn a_server_has_as_many_sessions_as_its_client_allows() {
    run(async {
        let mut scene = Scene::new("tcp://127.0.0.1:0").await;
        let (bench, _events) = Bench::new();
        let client = Connection::builder().service(LabServer::new(bench)).limits(limits(|limits| limits.sessions = 2));
        let client = client.open(scene.server.endpoint()).await.unwrap();
        let there = scene.connected().await;
        for _ in 0..20 {
            let (one, two) = (session(&there).await, session(&there).await);
            match there.session().open::<LabClient>().await {
                Err(OpenError::Rejected { reason, .. }) => assert_eq!(reason.code, Code::REFUSED),
                other => panic!("{:?}", other.map(drop)),
            }
            assert_eq!((one.after(0).await.unwrap(), two.after(1).await.unwrap()), (0, 1));
        }
        // The client's own sessions are counted apart.
        let own = join_all((0..10).map(|_| session(&client))).await;
        assert_eq!(own[9].text("a").await.unwrap(), "A");
    });
}
