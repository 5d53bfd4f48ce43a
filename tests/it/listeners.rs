//! Servers whose clients come from a listener of one's own: errors, stalled set-ups, ends.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rpc::{
    Address, BoxFuture, Connected, Connection, ConnectionError, Endpoint, Incoming, Limits, Listener, OpenError, Peer, Principal,
    Server,
};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::harness::{run, soon};
use crate::lab::{Bench, LabClient, LabServer};

/// What a listener yields.
enum Came {
    Error(io::ErrorKind),
    Failed(io::ErrorKind),
    Stuck,
    Client(DuplexStream, Peer),
}

/// A listener that does as it is told, and then as it is sent.
struct Odd {
    first: VecDeque<Came>,
    rest: mpsc::UnboundedReceiver<(DuplexStream, Peer)>,
}

fn alice() -> Peer {
    Peer::new("odd://alice").with_principal(Principal::UnixUser { uid: 7, gid: 7, pid: None })
}

impl Listener for Odd {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            let came = match self.first.pop_front() {
                Some(came) => came,
                None => match self.rest.recv().await {
                    Some((client, peer)) => Came::Client(client, peer),
                    None => std::future::pending().await,
                },
            };
            match came {
                Came::Error(kind) => Err(kind.into()),
                Came::Failed(kind) => Ok(Incoming::new(std::future::ready(Err(kind.into())))),
                Came::Stuck => Ok(Incoming::new(std::future::pending())),
                Came::Client(io, peer) => Ok(Incoming::ready(Connected::new(io, peer))),
            }
        })
    }

    fn endpoint(&self) -> Endpoint {
        Address::Memory { name: "odd".into() }.into()
    }
}

fn serve(first: impl IntoIterator<Item = Came>, limits: Limits) -> (Server, mpsc::UnboundedSender<(DuplexStream, Peer)>) {
    let (clients, rest) = mpsc::unbounded_channel();
    let listener = Odd { first: first.into_iter().collect(), rest };
    let server = Server::builder().service(LabServer::new(Bench::new().0)).limits(limits).serve(listener).unwrap();
    (server, clients)
}

/// A client of somebody's connects.
async fn connect(clients: &mpsc::UnboundedSender<(DuplexStream, Peer)>, who: Peer) -> Result<Connection, OpenError> {
    let (ours, theirs) = duplex(4096);
    clients.send((theirs, who)).unwrap();
    Connection::builder().open_over(Connected::new(ours, Peer::new("odd://server"))).await
}

async fn works(clients: &mpsc::UnboundedSender<(DuplexStream, Peer)>) {
    let connection = connect(clients, alice()).await.unwrap();
    assert_eq!(connection.peer().endpoint, "odd://server");
    let lab: LabClient = connection.session().open().await.unwrap();
    assert_eq!(lab.text("it works").await.unwrap(), "IT WORKS");
}

#[test]
fn errors_of_accept_and_of_set_ups_end_nothing() {
    run(async {
        use io::ErrorKind::{ConnectionAborted, Other, PermissionDenied};
        let troubles = [Came::Error(ConnectionAborted), Came::Failed(PermissionDenied), Came::Stuck, Came::Error(Other)];
        let (server, clients) = serve(troubles, Limits::default());
        soon("a client is served", works(&clients)).await;
        let drained = soon("the server ends", server.drain(Duration::from_secs(5))).await;
        assert_eq!(drained.cut, 0);
    });
}

#[test]
fn a_pause_behind_an_error_does_not_hold_up_the_end() {
    run(async {
        // The pauses double up to a second each: 200 of them are three minutes.
        let (server, _clients) = serve((0..200).map(|_| Came::Error(io::ErrorKind::Other)), Limits::default());
        tokio::time::sleep(Duration::from_millis(100)).await;
        soon("the server ends", server.shutdown()).await;
    });
}

#[test]
fn set_ups_that_hang_count_as_connections_until_their_time_is_over() {
    run(async {
        let limits = Limits::default().connections(2).handshake(Duration::from_millis(200));
        let (_server, clients) = serve([Came::Stuck, Came::Stuck], limits);
        soon("a client is served", works(&clients)).await;
    });
}

#[test]
fn a_peer_has_its_connections_and_no_more_and_others_do_not_notice() {
    run(async {
        let (_server, clients) = serve([], Limits::default().per_peer(2));
        let bob = || Peer::new("tcp://192.0.2.7:1");
        // The first is below the limit, the second at it.
        let (first, _second) = (connect(&clients, alice()).await.unwrap(), connect(&clients, alice()).await.unwrap());
        let error = connect(&clients, alice()).await.unwrap_err();
        assert!(matches!(error, OpenError::Connection(ConnectionError::Io { .. })), "{error}");
        let others = [connect(&clients, bob()).await.unwrap(), connect(&clients, bob()).await.unwrap()];
        assert!(connect(&clients, bob()).await.is_err());
        drop(others);
        first.close().await;
        // The server may learn of it a moment later.
        let again = async { while connect(&clients, alice()).await.is_err() {} };
        soon("there is room again", again).await;
    });
}
