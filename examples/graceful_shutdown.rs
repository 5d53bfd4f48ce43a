//! A server goes away and nobody loses anything: what it works on is finished, and what it does not begin any more is made
//! on the next server.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rpc::{Connection, Endpoint, Fault, Server, Session};
use tokio::sync::oneshot;
use tokio::time::sleep;

#[rpc::service]
trait Press {
    async fn print(&self, page: u64) -> rpc::Result<u64>;
}

/// Counts the pages on the tray: each is to be printed once.
#[derive(Default)]
struct Printer {
    tray: Arc<AtomicU64>,
}

impl Press for Printer {
    async fn print(&self, page: u64) -> rpc::Result<u64> {
        sleep(Duration::from_millis(3)).await;
        self.tray.fetch_add(1, Relaxed);
        Ok(page)
    }
}

async fn server(tray: &Arc<AtomicU64>) -> Result<Server, rpc::ServeError> {
    let printer = Printer { tray: Arc::clone(tray) };
    Server::builder().service(PressServer::new(printer)).listen("tcp://127.0.0.1:0").await
}

async fn press(endpoint: &Endpoint) -> rpc::Result<PressClient> {
    // An error of opening becomes a fault of which it is sure that nothing has run.
    let connection = Connection::open(endpoint).await.map_err(Fault::from)?;
    Ok(connection.session().open().await.map_err(Fault::from)?)
}

/// Prints its pages on the first of the servers, and from then on on the next one. Tells how often it moved on.
async fn print_all(servers: [Endpoint; 2], pages: std::ops::Range<u64>) -> rpc::Result<u64> {
    let (mut press_now, mut moved) = (press(&servers[0]).await?, 0);
    for page in pages {
        let mut printed = press_now.print(page).await;
        // The fault says whether the page may be on the tray. If not, it is safe to print it elsewhere.
        if printed.as_ref().is_err_and(|error| error.fault().is_some_and(|fault| !fault.may_have_run())) {
            (press_now, moved) = (press(&servers[1]).await?, moved + 1);
            printed = press_now.print(page).await;
        }
        assert_eq!(printed?, page);
    }
    Ok(moved)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tray = Arc::new(AtomicU64::new(0));
    let (old, new) = (server(&tray).await?, server(&tray).await?);
    let servers = [old.endpoint().clone(), new.endpoint().clone()];

    // In `main` of a real server the signal is `tokio::signal::ctrl_c()`. It serves until then, and then lets what is
    // under way come to its end, within `Limits::drain`.
    let (signal, signalled) = oneshot::channel::<()>();
    let old = tokio::spawn(old.drain_on(signalled));

    let clients: Vec<_> = (0..8).map(|n| tokio::spawn(print_all(servers.clone(), 100 * n..100 * (n + 1)))).collect();
    while tray.load(Relaxed) < 200 {
        sleep(Duration::from_millis(1)).await;
    }
    signal.send(()).expect("the server waits for it");
    let drained = old.await?;
    println!("the old server left with {} of 800 pages on the tray, and cut off {}", tray.load(Relaxed), drained.cut);
    assert!(drained.is_clean());

    let mut moved = 0;
    for client in clients {
        moved += client.await??;
    }
    println!("{moved} clients moved on; {} pages are on the tray", tray.load(Relaxed));
    assert_eq!((moved, tray.load(Relaxed)), (8, 800));

    // A client that wants to know that everything arrived closes its session, and is told.
    let press = press(&servers[1]).await?;
    assert_eq!(press.print(801).await?, 801);
    let session = Session::of(&press).expect("it is no direct client");
    assert!(session.close().await.is_confirmed());
    Ok(())
}
