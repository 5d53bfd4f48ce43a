//! `pipe://` and `local://` on Windows: what the cases that run over every way do not show.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, stream};
use rpc::{Code, Connection, ConnectionError, OpenError, Principal, ServeError, Server};

use crate::harness::{eventually, limits, run, soon};
use crate::lab::{Bench, LabClient, LabServer, pattern};

/// Set by tools/windows.sh: what Wine cannot show is left out there.
fn under_wine() -> bool {
    std::env::var_os("RPC_UNDER_WINE").is_some()
}

pub(crate) fn fresh() -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    format!("pipe://rpc-it-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

async fn serve(endpoint: &str) -> (Server, Bench) {
    let (bench, _) = Bench::new();
    (Server::builder().service(LabServer::new(bench.clone())).listen(endpoint).await.unwrap(), bench)
}

#[test]
fn a_name_that_is_taken_is_refused() {
    if under_wine() {
        eprintln!("left out: Wine 8 ignores FILE_FLAG_FIRST_PIPE_INSTANCE");
        return;
    }
    run(async {
        let name = fresh();
        let (server, _bench) = serve(&name).await;
        let (bench, _) = Bench::new();
        match Server::builder().service(LabServer::new(bench)).listen(&name).await {
            Err(ServeError::Listen { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::AddrInUse, "{source}"),
            other => panic!("two servers have one name: {other:?}"),
        }
        // The first one is none the worse for it, and its name is free when it has ended.
        assert_eq!(rpc::connect::<LabClient>(&name).await.unwrap().text("a").await.unwrap(), "A");
        server.shutdown().await;
        drop(serve(&name).await);
    });
}

#[test]
fn a_name_is_free_when_its_server_has_ended() {
    run(async {
        let name = fresh();
        for _ in 0..3 {
            let (server, _bench) = serve(&name).await;
            assert_eq!(rpc::connect::<LabClient>(&name).await.unwrap().text("a").await.unwrap(), "A");
            soon("it shuts down", server.shutdown()).await;
        }
        assert!(matches!(Connection::open(&name).await, Err(OpenError::Unreachable { .. })), "nobody is there");
    });
}

#[test]
fn many_clients_that_come_at_once_all_get_in() {
    run(async {
        let name = fresh();
        let (_server, _bench) = serve(&name).await;
        let clients = (0..64).map(|n| {
            let name = name.clone();
            tokio::spawn(async move {
                let lab: LabClient = rpc::connect(&name).await.unwrap();
                assert_eq!(lab.text(&format!("client {n}")).await.unwrap(), format!("CLIENT {n}"));
            })
        });
        for client in soon("all are served", join_all(clients.collect::<Vec<_>>())).await {
            client.unwrap();
        }
    });
}

#[test]
fn a_server_that_has_as_many_as_it_may_is_busy_until_the_client_gives_up() {
    run(async {
        let name = fresh();
        let (bench, _) = Bench::new();
        let one = limits(|limits| limits.connections = 1);
        let server = Server::builder().service(LabServer::new(bench)).limits(one);
        let _server = server.listen(&name).await.unwrap();
        let first: LabClient = rpc::connect(&name).await.unwrap();
        // One more waits in the instance that nobody accepts, and the third finds none.
        let hasty = limits(|limits| limits.handshake = Duration::from_millis(300));
        let waiting = Connection::builder().limits(limits(|limits| limits.handshake = Duration::from_secs(20)));
        let waiting = tokio::spawn(waiting.open(name.clone()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let refused = Connection::builder().limits(hasty).open(&name).await;
        assert!(
            matches!(&refused, Err(OpenError::Unreachable { kind: io::ErrorKind::TimedOut, .. } | OpenError::Connection(_))),
            "{refused:?}"
        );
        assert_eq!(first.text("a").await.unwrap(), "A");
        drop(first);
        soon("whoever waited is served", waiting).await.unwrap().unwrap();
    });
}

#[test]
fn both_sides_know_who_is_there() {
    run(async {
        let name = fresh();
        let (bench, _) = Bench::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::builder().service(LabServer::new(bench));
        let _server = server.on_connection(move |connection| drop(tell.send(connection))).listen(&name).await.unwrap();
        let here = Connection::open(&name).await.unwrap();
        let there = soon("the server is told", told.recv()).await.unwrap();
        for connection in [here, there] {
            assert_eq!(connection.peer().endpoint, name);
            match &connection.peer().principal {
                Some(Principal::WindowsUser { sid, pid }) => {
                    assert!(sid.starts_with("S-1-5-"), "{sid}");
                    assert_eq!(*pid, std::process::id());
                }
                other => panic!("nobody is there: {other:?}"),
            }
        }
    });
}

#[test]
fn a_mebibyte_goes_both_ways_at_once() {
    run(async {
        let name = fresh();
        let (_server, _bench) = serve(&name).await;
        let lab: LabClient = rpc::connect(&name).await.unwrap();
        let load = Bytes::from(pattern(1 << 20, 3));
        let calls = (0..4).map(|_| {
            let (lab, load) = (lab.clone(), load.clone());
            tokio::spawn(async move { assert!(lab.shared(load.clone()).await.unwrap() == load) })
        });
        for call in soon("all come back", join_all(calls.collect::<Vec<_>>())).await {
            call.unwrap();
        }
        let items = vec![load.slice(..100_000); 10];
        let back: Vec<_> = lab.echo(stream::iter(items.clone())).await.unwrap().map(Result::unwrap).collect().await;
        assert!(back == items);
    });
}

#[test]
fn the_reason_of_the_end_arrives() {
    run(async {
        for _ in 0..10 {
            let name = fresh();
            let (server, _bench) = serve(&name).await;
            let connection = Connection::open(&name).await.unwrap();
            let lab: LabClient = connection.session().open().await.unwrap();
            assert_eq!(lab.text("a").await.unwrap(), "A");
            soon("it shuts down", server.shutdown()).await;
            let error = soon("the client is told", connection.closed()).await;
            assert!(
                matches!(&error, ConnectionError::ClosedByPeer(reason) if reason.code == Code::NO_ERROR),
                "its reason was lost: {error:?}"
            );
        }
    });
}

#[test]
fn the_last_answers_of_a_drain_arrive() {
    run(async {
        for _ in 0..10 {
            let name = fresh();
            let (bench, events) = Bench::new();
            let server = Server::builder().service(LabServer::new(bench.clone())).listen(&name).await.unwrap();
            let lab: LabClient = rpc::connect(&name).await.unwrap();
            let waiting = tokio::spawn(lab.wait(7));
            events.started(7).await;
            // Half a mebibyte is behind the pipe's buffer when the connection ends.
            let large = tokio::spawn(lab.zeros(512 * 1024));
            eventually("the second call has begun", || bench.calls() >= 2).await;
            let draining = tokio::spawn(server.drain(Duration::from_secs(20)));
            bench.open_gate();
            waiting.await.unwrap().unwrap();
            assert_eq!(large.await.unwrap().unwrap().len(), 512 * 1024);
            let drained = soon("it drains", draining).await.unwrap();
            assert_eq!(drained.cut, 0);
        }
    });
}

#[test]
fn an_end_does_not_wait_for_a_second() {
    run(async {
        let started = std::time::Instant::now();
        for _ in 0..20 {
            let name = fresh();
            let (server, _bench) = serve(&name).await;
            let lab: LabClient = rpc::connect(&name).await.unwrap();
            assert_eq!(lab.text("a").await.unwrap(), "A");
            soon("it shuts down", server.shutdown()).await;
        }
        // Each would take the driver's whole second if both sides waited for the other to go first.
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    });
}

/// The other process of the next test: it serves, until it is killed.
#[test]
#[ignore = "it is started by another test"]
fn serves_until_it_is_killed() {
    let Ok(name) = std::env::var("RPC_TEST_PIPE") else { return };
    run(async {
        let (server, _bench) = serve(&name).await;
        server.wait().await;
    });
}

#[test]
fn a_peer_that_is_killed_ends_the_connection() {
    run(async {
        let name = fresh();
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", "windows_pipes::serves_until_it_is_killed", "--ignored"]).env("RPC_TEST_PIPE", &name);
        let mut other = other.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let connecting = async {
            loop {
                match Connection::open(&name).await {
                    Ok(connection) => break connection,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let connection = soon("the other process serves", connecting).await;
        match &connection.peer().principal {
            Some(Principal::WindowsUser { pid, .. }) => assert_eq!(*pid, other.id(), "the other process is known by its number"),
            principal => panic!("nobody is there: {principal:?}"),
        }
        let lab: LabClient = connection.session().open().await.unwrap();
        let hanging = tokio::spawn(lab.hang(1));
        assert_eq!(lab.text("a").await.unwrap(), "A");
        other.kill().unwrap();
        let error = soon("the end is noticed", connection.closed()).await;
        assert!(!error.is_orderly(), "{error:?}");
        hanging.await.unwrap().unwrap_err();
        other.wait().unwrap();
    });
}
