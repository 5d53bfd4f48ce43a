//! Every public future is dropped at its first wait, at its second, and so on, until it completes. Whatever it was
//! waiting for, the connection, the server and the next call are as good as new, and no handler is left behind.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use rpc::{Connection, Server, Session};

use crate::harness::{limits, run, run_on, soon};
use crate::lab::{Bench, Events, LONG, LabClient, LabServer, pattern};

/// Polls a future until its `waits`-th wait and drops it there; `None` then.
async fn dropped_at<F: Future>(waits: usize, future: F) -> Option<F::Output> {
    let mut left = waits;
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

/// Drops what `start` makes at each of its waits in turn, until it completes; tells how often it was dropped.
async fn dropped_everywhere<F: Future>(what: &str, mut start: impl FnMut() -> F) -> (F::Output, usize) {
    for waits in 1.. {
        if let Some(output) = soon(what, dropped_at(waits, start())).await {
            return (output, waits - 1);
        }
        assert!(waits < 10_000, "{what} does not complete");
    }
    unreachable!("the loop has no end")
}

/// A server that counts its sessions tightly, and a session of the lab.
struct Scene {
    server: Server,
    bench: Bench,
    events: Events,
    connection: Connection,
    lab: LabClient,
}

impl Scene {
    async fn new() -> Self {
        Self::with_places(8).await
    }

    /// With so many places for calls in a session.
    async fn with_places(places: u64) -> Self {
        let (bench, events) = Bench::new();
        let tight = limits(|limits| {
            limits.sessions = 4;
            limits.exchanges = places;
        });
        let server = Server::builder().service(LabServer::new(bench.clone())).limits(tight);
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let lab = connection.session().open().await.unwrap();
        Self { server, bench, events, connection, lab }
    }

    /// More calls than there are places: none was lost.
    async fn good_as_new(&self) {
        self.bench.idle().await;
        let calls: Vec<_> = (0..32).map(|turns| tokio::spawn(self.lab.after(turns % 4))).collect();
        for call in calls {
            soon("a call behind the dropped ones", call).await.unwrap().unwrap();
        }
        assert_eq!(self.lab.sum(stream::iter(0..100)).await.unwrap(), 4950);
        self.bench.idle().await;
    }
}

fn bytes(size: usize) -> Bytes {
    pattern(size, 0).into()
}

/// A case for each runtime: what is ready at once on one is not on the other.
macro_rules! on_both_runtimes {
    ($($(#[$attr:meta])* async fn $case:ident() $body:block)*) => {$(
        mod $case {
            use super::*;

            async fn case() $body

            #[test]
            $(#[$attr])*
            fn with_workers() {
                run(case());
            }

            #[test]
            $(#[$attr])*
            fn on_one_thread() {
                run_on(1, case());
            }
        }
    )*};
}

on_both_runtimes! {
    async fn a_unary_call() {
        let scene = Scene::new().await;
        for size in [0, 100, 100_000, 2_000_000] {
            let (answer, _) = dropped_everywhere("a unary call", || scene.lab.shared(bytes(size))).await;
            assert_eq!(answer.unwrap().len(), size);
            let (answer, _) = dropped_everywhere("a call that waits", || scene.lab.after(5)).await;
            assert_eq!(answer.unwrap(), 5);
            scene.good_as_new().await;
        }
    }

    async fn a_call_that_waits_for_its_place() {
        let scene = Scene::with_places(1).await;
        for round in 0..20 {
            let running = tokio::spawn(scene.lab.hang(1));
            scene.events.started(1).await;
            assert!(dropped_at(1, scene.lab.after(round)).await.is_none(), "the place is taken");
            let waiting = tokio::spawn(scene.lab.after(round));
            running.abort();
            assert_eq!(soon("the next in line has its turn", waiting).await.unwrap().unwrap(), round);
            scene.good_as_new().await;
        }
    }

    async fn a_call_that_hangs() {
        let scene = Scene::new().await;
        for tag in 0..100 {
            let call = dropped_at(1, scene.lab.hang(tag)).await;
            assert!(call.is_none());
        }
        scene.good_as_new().await;
    }

    async fn a_one_way_call() {
        let scene = Scene::new().await;
        for size in [10, 100_000, 3_000_000] {
            let (sent, _) = dropped_everywhere("a one-way call", || scene.lab.large_note(bytes(size))).await;
            sent.unwrap();
            scene.good_as_new().await;
        }
    }

    async fn a_call_with_a_stream_up() {
        let scene = Scene::new().await;
        for (count, size) in [(0, 0), (5, 10), (20, 300_000)] {
            let start = || scene.lab.total(stream::iter(vec![bytes(size); count]));
            let (answer, _) = dropped_everywhere("a call with a stream up", start).await;
            assert_eq!(answer.unwrap(), (count * size) as u64);
            scene.good_as_new().await;
        }
    }

    async fn a_call_with_a_stream_down() {
        let scene = Scene::new().await;
        let (items, _) = dropped_everywhere("the opening of a stream", || scene.lab.items(3, 3)).await;
        drop(items.unwrap());
        scene.good_as_new().await;
        let (items, _) = dropped_everywhere("both ways", || scene.lab.echo(stream::iter(vec![bytes(3); 3]))).await;
        drop(items.unwrap());
        scene.good_as_new().await;
    }

    async fn the_next_item_of_a_stream() {
        let scene = Scene::new().await;
        for (count, size) in [(100, 10), (30, 300_000)] {
            let mut items = scene.lab.items(count, size).await.unwrap();
            let mut taken = 0;
            // Dropping the future loses no item, whenever that is.
            for waits in (1..4).cycle() {
                match soon("an item", dropped_at(waits, items.next())).await {
                    Some(Some(item)) => {
                        assert!(item.unwrap() == vec![taken as u8; size as usize]);
                        taken += 1;
                    }
                    Some(None) => break,
                    None => tokio::task::yield_now().await,
                }
            }
            assert_eq!(taken, count);
            scene.good_as_new().await;
        }
    }

    async fn all_of_a_stream() {
        let scene = Scene::new().await;
        let start = || {
            let lab = scene.lab.clone();
            async move {
                let mut items = lab.echo(stream::iter(vec![bytes(200_000); 10])).await.unwrap();
                let mut taken = 0;
                while let Some(item) = items.next().await {
                    taken += item.unwrap().len();
                }
                taken
            }
        };
        let (taken, _) = dropped_everywhere("a whole stream", start).await;
        assert_eq!(taken, 2_000_000);
        scene.good_as_new().await;
    }

    async fn the_opening_of_a_connection() {
        let scene = Scene::new().await;
        let endpoint = scene.server.endpoint().clone();
        let mut dropped_in_all = 0;
        for _ in 0..10 {
            let (connection, dropped) = dropped_everywhere("open", || Connection::open(&endpoint)).await;
            dropped_in_all += dropped;
            connection.unwrap();
        }
        assert!(dropped_in_all > 0);
        let connection = Connection::open(&endpoint).await;
        let lab: LabClient = connection.unwrap().session().open().await.unwrap();
        assert_eq!(lab.text("a").await.unwrap(), "A");
        scene.good_as_new().await;
    }

    async fn the_opening_of_a_session() {
        let scene = Scene::new().await;
        let mut dropped_in_all = 0;
        for _ in 0..20 {
            let start = || scene.connection.session().open::<LabClient>();
            let (lab, dropped) = dropped_everywhere("the opening of a session", start).await;
            dropped_in_all += dropped;
            let lab = lab.expect("sessions that were given up give their places back");
            assert_eq!(lab.text("a").await.unwrap(), "A");
            drop(lab);
            scene.good_as_new().await;
        }
        // One opening alone may be over before its first look.
        assert!(dropped_in_all > 0);
    }

    async fn connecting_to_a_service() {
        let scene = Scene::new().await;
        let endpoint = scene.server.endpoint().clone();
        let mut dropped_in_all = 0;
        for _ in 0..10 {
            let (lab, dropped) = dropped_everywhere("connect", || rpc::connect::<LabClient>(&endpoint)).await;
            dropped_in_all += dropped;
            assert_eq!(lab.unwrap().text("a").await.unwrap(), "A");
            scene.good_as_new().await;
        }
        assert!(dropped_in_all > 0);
    }

    async fn listening() {
        let (bench, _events) = Bench::new();
        let name = format!("mem://dropped-on-{}-workers", tokio::runtime::Handle::current().metrics().num_workers());
        for endpoint in ["tcp://127.0.0.1:0", &name] {
            let start = || Server::builder().service(LabServer::new(bench.clone())).listen(endpoint);
            // What was dropped holds no port and no name: the one that completes can have it.
            let (server, _) = dropped_everywhere("listen", start).await;
            let server = server.unwrap();
            let lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
            assert_eq!(lab.text("a").await.unwrap(), "A");
            server.shutdown().await;
        }
    }

    async fn the_closing_of_a_connection() {
        let scene = Scene::new().await;
        for waits in 1..4 {
            let connection = Connection::open(scene.server.endpoint()).await.unwrap();
            let lab: LabClient = connection.session().open().await.unwrap();
            let hanging = tokio::spawn(lab.hang(1));
            scene.events.started(1).await;
            let _ = dropped_at(waits, connection.close()).await;
            // It closes although nobody waits for it any more.
            soon("the connection closes", connection.closed()).await;
            assert!(soon("its calls fail", hanging).await.unwrap().is_err());
            scene.events.dropped(1).await;
            scene.good_as_new().await;
        }
    }

    async fn waiting_for_the_end_of_a_connection() {
        let scene = Scene::new().await;
        for _ in 0..50 {
            assert!(dropped_at(1, scene.connection.closed()).await.is_none());
        }
        scene.good_as_new().await;
        let waiting = tokio::spawn({
            let connection = scene.connection.clone();
            async move { connection.closed().await }
        });
        scene.connection.close().await;
        soon("who waits is told", waiting).await.unwrap();
    }

    async fn the_shutdown_of_a_server() {
        for waits in 1..4 {
            let scene = Scene::new().await;
            let hanging = tokio::spawn(scene.lab.hang(1));
            scene.events.started(1).await;
            let endpoint = scene.server.endpoint().clone();
            let _ = dropped_at(waits, scene.server.shutdown()).await;
            // It stops although nobody waits for it any more.
            soon("its connections end", scene.connection.closed()).await;
            assert!(soon("calls fail", hanging).await.unwrap().is_err());
            scene.bench.idle().await;
            let refused = async {
                while Connection::open(&endpoint).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            soon("it listens no more", refused).await;
        }
    }

    async fn the_closing_of_a_session() {
        let scene = Scene::new().await;
        for waits in 1..4 {
            let lab: LabClient = scene.connection.session().open().await.unwrap();
            let session = Session::of(&lab).unwrap();
            let hanging = tokio::spawn(lab.hang(1));
            scene.events.started(1).await;
            assert!(dropped_at(1, session.closed()).await.is_none(), "waiting closes nothing");
            assert!(!session.is_closing());
            let closed = async { tokio::time::timeout(Duration::from_millis(20), session.close()).await };
            let _ = dropped_at(waits, closed).await;
            // It closes although nobody waits for it any more, and not before the call has ended.
            assert!(session.is_closing());
            assert!(lab.text("a").await.is_err());
            assert!(!hanging.is_finished());
            hanging.abort();
            scene.events.dropped(1).await;
            assert_eq!(soon("it closes", session.closed()).await.untaken(), Some(0));
            scene.good_as_new().await;
        }
        let mut dropped_in_all = 0;
        for _ in 0..20 {
            let lab: LabClient = scene.connection.session().open().await.unwrap();
            let session = Session::of(&lab).unwrap();
            assert_eq!(lab.text("a").await.unwrap(), "A");
            let (closed, dropped) = dropped_everywhere("close", || session.close()).await;
            dropped_in_all += dropped;
            assert!(closed.is_confirmed(), "{closed}");
        }
        assert!(dropped_in_all > 0);
        scene.good_as_new().await;
    }

    async fn the_drain_of_a_connection() {
        let scene = Scene::new().await;
        for waits in 1..4 {
            let connection = Connection::open(scene.server.endpoint()).await.unwrap();
            let lab: LabClient = connection.session().open().await.unwrap();
            let hanging = tokio::spawn(lab.hang(1));
            scene.events.started(1).await;
            let drained = async { tokio::time::timeout(Duration::from_millis(20), connection.drain(LONG)).await };
            let _ = dropped_at(waits, drained).await;
            // The drain goes on although nobody waits for it any more.
            let session = Session::of(&lab).unwrap();
            soon("no further calls", async {
                while !session.is_closing() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert!(lab.text("a").await.is_err());
            assert!(!hanging.is_finished());
            hanging.abort();
            soon("the connection ends", connection.closed()).await;
            assert!(session.closed().await.is_confirmed());
            scene.events.dropped(1).await;
            scene.good_as_new().await;
        }
        let mut dropped_in_all = 0;
        for _ in 0..10 {
            let connection = Connection::open(scene.server.endpoint()).await.unwrap();
            let lab: LabClient = connection.session().open().await.unwrap();
            assert_eq!(lab.text("a").await.unwrap(), "A");
            let (drained, dropped) = dropped_everywhere("drain", || connection.drain(LONG)).await;
            dropped_in_all += dropped;
            assert!(drained.is_clean());
        }
        assert!(dropped_in_all > 0);
        scene.good_as_new().await;
    }

    async fn the_drain_of_a_server() {
        for waits in 1..4 {
            let scene = Scene::new().await;
            let hanging = tokio::spawn(scene.lab.hang(1));
            scene.events.started(1).await;
            let endpoint = scene.server.endpoint().clone();
            let drained = tokio::time::timeout(Duration::from_millis(20), scene.server.drain(LONG));
            assert!(dropped_at(waits, drained).await.is_none_or(|late| late.is_err()), "a call hangs");
            // It stops at once: nobody waits for what is under way any more.
            soon("its connections end", scene.connection.closed()).await;
            assert!(soon("calls fail", hanging).await.unwrap().is_err());
            scene.bench.idle().await;
            let refused = async {
                while Connection::open(&endpoint).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            soon("it listens no more", refused).await;
        }
    }
}
