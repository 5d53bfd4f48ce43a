//! How connections, sessions and servers begin and end, and what they do to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use rpc::{Code, Connection, ConnectionError, FaultKind, Limits, OpenError, ServeError, Server, Streaming};
use rpc_core::wire::frame::{flag, kind};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::harness::{eventually, limits, run, run_on, soon};
use crate::lab::{Bench, Events, LONG, LabClient, LabServer, pattern};
use crate::raw::{Raw, args, listener, method, open};

struct Scene {
    server: Server,
    bench: Bench,
    events: Events,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let (bench, events) = Bench::new();
        let server = Server::builder().service(LabServer::new(bench.clone())).limits(limits(change));
        Self { server: server.listen("tcp://127.0.0.1:0").await.unwrap(), bench, events }
    }

    async fn connection(&self) -> Connection {
        Connection::open(self.server.endpoint()).await.unwrap()
    }
}

fn default_limits(_: &mut Limits) {}

async fn session(connection: &Connection) -> LabClient {
    connection.session().open().await.unwrap()
}

// ---- beginnings ----------------------------------------------------------------------------------------------------

mod second {
    #[rpc::service]
    pub(crate) trait Second {
        async fn twice(&self, n: u64) -> rpc::Result<u64>;
    }

    pub(crate) struct Service;

    impl Second for Service {
        async fn twice(&self, n: u64) -> rpc::Result<u64> {
            Ok(2 * n)
        }
    }
}

#[test]
fn several_services_share_a_listener_and_a_connection() {
    run(async {
        let (bench, _events) = Bench::new();
        let server = Server::builder()
            .service(LabServer::new(bench))
            .service(second::SecondServer::new(second::Service))
            .listen("tcp://127.0.0.1:0")
            .await
            .unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let lab = session(&connection).await;
        let second: second::SecondClient = connection.session().open().await.unwrap();
        assert_eq!(second.twice(21).await.unwrap(), 42);
        assert_eq!(lab.text("a").await.unwrap(), "A");
    });
}

#[test]
fn one_name_is_offered_once() {
    run(async {
        let (bench, _events) = Bench::new();
        let twice = Server::builder().service(LabServer::new(bench.clone())).service(LabServer::new(bench));
        match twice.listen("tcp://127.0.0.1:0").await {
            Err(ServeError::Config(text)) => assert!(text.contains("`Lab`"), "{text}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_endpoint_in_use_or_with_nobody_behind_it_says_so() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let error = Server::builder().listen(scene.server.endpoint()).await.unwrap_err();
        assert!(matches!(error, ServeError::Listen { .. }), "{error}");
        let endpoint = scene.server.endpoint().clone();
        scene.server.shutdown().await;
        let error = Connection::open(&endpoint).await.unwrap_err();
        assert!(matches!(error, OpenError::Unreachable { kind: std::io::ErrorKind::ConnectionRefused, .. }), "{error}");
        let error = Connection::open("mem://nobody").await.unwrap_err();
        assert!(matches!(error, OpenError::Unreachable { kind: std::io::ErrorKind::ConnectionRefused, .. }), "{error}");
        // The port is free again at once.
        Server::builder().listen(&endpoint).await.unwrap().shutdown().await;
    });
}

#[test]
fn a_mode_that_is_not_offered_is_refused_by_name() {
    run(async {
        let (bench, _events) = Bench::new();
        let builder = || Server::builder().service(LabServer::new(bench.clone()));
        let single = builder().single_session_only().listen("tcp://127.0.0.1:0").await.unwrap();
        let multi = builder().multi_session_only().listen("tcp://127.0.0.1:0").await.unwrap();
        let refused =
            [Connection::open(single.endpoint()).await.map(drop), rpc::connect::<LabClient>(multi.endpoint()).await.map(drop)];
        for refused in refused {
            match refused {
                Err(OpenError::Connection(ConnectionError::Rejected { reason, .. })) => assert_eq!(reason.code, Code::MODE),
                other => panic!("{other:?}"),
            }
        }
        let lab: LabClient = rpc::connect(single.endpoint()).await.unwrap();
        assert_eq!(lab.text("a").await.unwrap(), "A");
        let connection = Connection::open(multi.endpoint()).await.unwrap();
        assert_eq!(session(&connection).await.text("a").await.unwrap(), "A");
    });
}

#[test]
fn a_connection_for_one_session_has_one() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = Connection::builder().single_session().open(scene.server.endpoint()).await.unwrap();
        let lab = session(&connection).await;
        match connection.session().open::<LabClient>().await {
            Err(OpenError::Rejected { reason, .. }) => assert_eq!(reason.code, Code::MODE),
            other => panic!("{other:?}"),
        }
        assert_eq!(lab.text("a").await.unwrap(), "A");
    });
}

/// Opens sessions, for as long as places of earlier ones are still to come back.
async fn hold(connection: &Connection, count: usize) -> Vec<LabClient> {
    let mut held = Vec::new();
    let opened = async {
        while held.len() < count {
            held.extend(connection.session().open().await.ok());
        }
    };
    soon("places for sessions", opened).await;
    held
}

#[test]
fn sessions_beyond_the_limit_are_refused_and_places_come_back() {
    run(async {
        let scene = Scene::new(|limits| limits.sessions = 3).await;
        let connection = scene.connection().await;
        for _ in 0..20 {
            let held = hold(&connection, 3).await;
            match connection.session().open::<LabClient>().await {
                Err(OpenError::Rejected { reason, .. }) => assert_eq!(reason.code, Code::REFUSED),
                other => panic!("{other:?}"),
            }
            for lab in &held {
                assert_eq!(lab.text("a").await.unwrap(), "A");
            }
            drop(held);
            // The places are given back in good order, which takes a message each way.
            let all = async {
                loop {
                    let opened = join_all((0..3).map(|_| connection.session().open::<LabClient>())).await;
                    if opened.iter().all(Result::is_ok) {
                        break;
                    }
                }
            };
            soon("all places are free again", all).await;
        }
    });
}

#[test]
fn limits_that_cannot_work_are_refused_with_the_fix() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let small = limits(|limits| limits.stream_window = 100);
        let error = Connection::builder().limits(small.clone()).open(scene.server.endpoint()).await.unwrap_err();
        assert_eq!(error.to_string(), "Limits::stream_window is 100; give it at least 512 bytes and at most 2^40");
        let error = Server::builder().limits(small).listen("tcp://127.0.0.1:0").await.unwrap_err();
        assert_eq!(error.to_string(), "Limits::stream_window is 100; give it at least 512 bytes and at most 2^40");
        let error = scene.connection().await.session().window(3).open::<LabClient>().await.unwrap_err();
        assert!(matches!(error, OpenError::Config(_)), "{error}");
    });
}

#[test]
fn the_smallest_limits_carry_every_kind_of_call() {
    run(async {
        let tiny = |limits: &mut Limits| {
            limits.max_frame = 4096;
            limits.stream_window = 512;
            limits.session_window = 512;
            limits.connection_window = 512;
            limits.exchanges = 1;
            limits.sessions = 1;
        };
        let scene = Scene::new(tiny).await;
        let connection = Connection::builder().limits(limits(tiny)).open(scene.server.endpoint()).await.unwrap();
        let lab = session(&connection).await;
        for size in [0, 400, 500, 512, 600, 5000, 50_000] {
            let bytes = pattern(size, 1);
            assert!(lab.shared(bytes.clone().into()).await.unwrap() == bytes, "{size} bytes");
        }
        assert_eq!(lab.sum(stream::iter(0..500)).await.unwrap(), 124_750);
        let mut items = lab.items(50, 700).await.unwrap();
        for n in 0..50 {
            assert_eq!(soon("an item", items.next()).await.unwrap().unwrap(), vec![n; 700]);
        }
        assert!(items.next().await.is_none());
        let calls: Vec<_> = (0..50).map(|n| tokio::spawn(lab.after(n % 3))).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        scene.bench.idle().await;
    });
}

// ---- ends ----------------------------------------------------------------------------------------------------------

#[test]
fn the_last_handle_closes_the_connection() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let (lab, clone) = (session(&connection).await, connection.clone());
        drop((connection, clone));
        // The client is a handle too, and so is a call.
        assert_eq!(lab.text("a").await.unwrap(), "A");
        let call = lab.hang(1);
        drop(lab);
        let call = tokio::spawn(call);
        scene.events.started(1).await;
        call.abort();
        scene.events.dropped(1).await;
        // On the other side, a raw server sees the goodbye.
        let (listener, endpoint) = listener().await;
        let peer = tokio::spawn(async move { Raw::server(&listener, |_| {}).await.closed().await });
        drop(Connection::open(&endpoint).await.unwrap());
        assert_eq!(soon("the peer is told", peer).await.unwrap().unwrap().code, Code::NO_ERROR);
    });
}

#[test]
fn what_was_sent_one_way_before_the_last_handle_goes_still_arrives() {
    run(async {
        let scene = Scene::new(default_limits).await;
        for round in 1..=50 {
            let lab: LabClient = rpc::connect(scene.server.endpoint()).await.unwrap();
            for _ in 0..10 {
                lab.note(1).await.unwrap();
            }
            lab.large_note(Bytes::from(vec![0; 90])).await.unwrap();
            drop(lab);
            eventually("all notes arrive", || scene.bench.notes() == (11 * round, 100 * round)).await;
        }
    });
}

#[test]
fn a_closed_connection_says_so_to_all() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let lab = session(&connection).await;
        let mut stuck = lab.stuck(2).await.unwrap();
        stuck.next().await.unwrap().unwrap();
        let hanging = tokio::spawn(lab.hang(1));
        scene.events.started(1).await;
        soon("it closes", connection.close()).await;
        assert_eq!(connection.closed().await, ConnectionError::Closed);
        let error = soon("calls fail", hanging).await.unwrap().unwrap_err();
        assert!(error.fault().unwrap().may_have_run());
        let error = soon("streams break", stuck.next()).await.unwrap().unwrap_err();
        assert_eq!(error.fault().unwrap().kind(), FaultKind::Indeterminate);
        let error = lab.text("a").await.unwrap_err();
        assert_eq!((error.fault().unwrap().kind(), error.fault().unwrap().may_have_run()), (FaultKind::NotStarted, false));
        let error = connection.session().open::<LabClient>().await.unwrap_err();
        assert!(matches!(error, OpenError::Connection(ConnectionError::Closed)), "{error}");
        scene.events.dropped(1).await;
        scene.events.dropped(2).await;
    });
}

#[test]
fn a_shutdown_tells_clients_and_waits_for_nobody() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let lab = session(&connection).await;
        let hanging = tokio::spawn(lab.hang(1));
        scene.events.started(1).await;
        soon("the server ends", scene.server.shutdown()).await;
        match soon("the client is told", connection.closed()).await {
            ConnectionError::ClosedByPeer(reason) => assert_eq!(reason.code, Code::NO_ERROR),
            other => panic!("{other}"),
        }
        let error = hanging.await.unwrap().unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Indeterminate, true));
        assert_eq!(error.to_string(), "the call may or may not have run: the peer closed the connection");
        let error = lab.text("a").await.unwrap_err();
        assert_eq!(error.fault().unwrap().kind(), FaultKind::NotStarted);
        scene.bench.idle().await;
    });
}

#[test]
fn a_server_that_is_dropped_stops() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        drop(scene.server);
        soon("the client is told", connection.closed()).await;
    });
}

#[test]
fn a_lost_connection_tells_what_may_have_run() {
    // On one thread, so that the calls are made in the order in which they stand here.
    run_on(1, async {
        let (listener, endpoint) = listener().await;
        let (vanish, vanished) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let mut raw = Raw::server(&listener, |hello| hello.connection_window = 4096).await;
            raw.accept_session().await;
            raw.next(kind::OPEN).await;
            vanished.await.unwrap();
        });
        let connection = Connection::open(&endpoint).await.unwrap();
        let lab = session(&connection).await;
        let sent = tokio::spawn(lab.hang(1));
        // Takes all that is left of the connection's credit, and waits for more.
        let half_sent = tokio::spawn(lab.size(vec![0; 100_000].into()));
        // Waits behind it.
        let unsent: Vec<_> = (0..5).map(|n| tokio::spawn(lab.after(n))).collect();
        while !unsent.iter().all(|call| !call.is_finished()) {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        vanish.send(()).unwrap();
        server.await.unwrap();
        let kind = |error: rpc::Error| error.fault().map(|fault| (fault.kind(), fault.may_have_run())).unwrap();
        assert_eq!(kind(soon("it fails", sent).await.unwrap().unwrap_err()), (FaultKind::Indeterminate, true));
        // A handler starts when its arguments are there whole.
        assert_eq!(kind(soon("it fails", half_sent).await.unwrap().unwrap_err()), (FaultKind::NotStarted, false));
        for call in unsent {
            assert_eq!(kind(soon("it fails", call).await.unwrap().unwrap_err()), (FaultKind::NotStarted, false));
        }
        assert!(matches!(connection.closed().await, ConnectionError::Io { .. }));
    });
}

#[test]
fn an_answer_with_the_end_right_behind_it_is_still_found() {
    run(async {
        for round in 0..200 {
            let (listener, endpoint) = listener().await;
            let server = tokio::spawn(async move {
                let mut raw = Raw::server(&listener, |_| {}).await;
                raw.accept_session().await;
                raw.next(kind::OPEN).await;
                raw.write(&crate::raw::data(0, 0, flag::EOM | flag::END, &args(&7u32))).await;
            });
            let connection = Connection::open(&endpoint).await.unwrap();
            let lab = session(&connection).await;
            let answer = tokio::time::timeout(Duration::from_secs(5), lab.after(7).timeout(LONG)).await;
            let answer = answer.unwrap_or_else(|_| panic!("round {round}: the caller is not woken"));
            assert!(answer.is_ok_and(|answer| answer == 7), "the answer came before the end");
            server.await.unwrap();
        }
    });
}

#[test]
fn a_peer_that_went_silent_is_found_out() {
    run(async {
        // A server that answers no PING.
        let (listener, endpoint) = listener().await;
        let server = tokio::spawn(async move {
            let mut raw = Raw::server(&listener, |hello| {
                hello.keepalive_interval_ms = 100;
                hello.keepalive_timeout_ms = 100;
            })
            .await;
            raw.next(kind::PING).await;
            raw.closed().await
        });
        let connection = Connection::open(&endpoint).await.unwrap();
        assert_eq!(soon("the silence is noticed", connection.closed()).await, ConnectionError::Silent);
        server.await.unwrap();
        // And a client that answers none, with a handler that works for it.
        let scene = Scene::new(|limits| {
            limits.keepalive_interval = Duration::from_millis(100);
            limits.keepalive_timeout = Duration::from_millis(100);
        })
        .await;
        let live = session(&scene.connection().await).await;
        let mut raw = Raw::client(scene.server.endpoint()).await;
        raw.session(0).await;
        raw.write(&open(0, 0, method("hang"), flag::END, &args(&(1u64,)))).await;
        scene.events.started(1).await;
        scene.events.dropped(1).await;
        assert_eq!(raw.closed().await, None);
        // A client that answers is kept, however little it says.
        assert_eq!(live.text("a").await.unwrap(), "A");
        let hanging = tokio::spawn(live.hang(2));
        scene.events.started(2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!hanging.is_finished());
        assert_eq!(live.text("a").await.unwrap(), "A");
    });
}

#[test]
fn a_peer_that_takes_no_bytes_is_given_up() {
    run(async {
        // A server that reads nothing.
        let (listener, endpoint) = listener().await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let mut raw = Raw::server(&listener, |hello| hello.connection_window = 1 << 40).await;
            raw.accept_session().await;
            let _ = stopped.await;
        });
        let impatient = limits(|limits| limits.write_stall = Duration::from_millis(100));
        let connection = Connection::builder().limits(impatient).open(&endpoint).await.unwrap();
        let lab = session(&connection).await;
        let calls: Vec<_> = (0..20).map(|_| tokio::spawn(lab.size(vec![0; 4_000_000].into()))).collect();
        assert_eq!(soon("the stall is noticed", connection.closed()).await, ConnectionError::WriteStall);
        for call in calls {
            assert!(soon("calls fail", call).await.unwrap().is_err());
        }
        stop.send(()).unwrap();
        server.await.unwrap();
        // And a client that asks for much and reads nothing.
        let scene = Scene::new(|limits| limits.write_stall = Duration::from_millis(100)).await;
        let mut raw = Raw::client(scene.server.endpoint()).await;
        raw.session(0).await;
        for n in 0..20u64 {
            raw.write(&open(0, 2 * n, method("endless"), flag::END, &args(&(n,)))).await;
        }
        for n in 0..20 {
            scene.events.dropped(n).await;
        }
        scene.bench.idle().await;
    });
}

// ---- neighbours ----------------------------------------------------------------------------------------------------

/// Streams that nobody reads, as many as it takes to use up what their session may have under way.
async fn unread_streams(lab: &LabClient, first: u64) -> Vec<Streaming<u64>> {
    let mut unread = Vec::new();
    for tag in first..first + 4 {
        unread.push(soon("a stream is accepted", lab.endless(tag)).await.unwrap());
    }
    unread
}

/// So that all that can be under way is.
async fn everything_stands_still() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn is_lively(lab: &LabClient) {
    let lively = async {
        for _ in 0..100 {
            assert_eq!(lab.text("a").await.unwrap(), "A");
        }
        assert_eq!(lab.zeros(4_000_000).await.unwrap().len(), 4_000_000);
        assert_eq!(lab.size(vec![0; 4_000_000].into()).await.unwrap(), 4_000_000);
        assert_eq!(lab.sum(stream::iter(0..10_000)).await.unwrap(), 49_995_000);
    };
    soon("the calls of another session", lively).await;
}

#[test]
fn a_reader_that_stands_still_holds_nobody_up() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let (stalled, lively) = (session(&connection).await, session(&connection).await);
        let unread = unread_streams(&stalled, 0).await;
        everything_stands_still().await;
        is_lively(&lively).await;
        drop(unread);
        scene.bench.idle().await;
    });
}

#[test]
fn a_handler_that_does_not_read_holds_nobody_up() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let (stalled, lively) = (session(&connection).await, session(&connection).await);
        let source = || stream::repeat(Bytes::from(vec![0; 10_000]));
        let held: Vec<_> = (0..4).map(|tag| tokio::spawn(stalled.hold(tag, source()))).collect();
        for tag in 0..4 {
            scene.events.started(tag).await;
        }
        everything_stands_still().await;
        is_lively(&lively).await;
        held.iter().for_each(|call| call.abort());
        scene.bench.idle().await;
    });
}

/// docs: "a quiet server stream must not hang the caller" (ACCEPT needs no credit).
#[test]
fn a_stream_is_accepted_while_its_session_has_no_credit() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let lab = session(&scene.connection().await).await;
        let unread = unread_streams(&lab, 0).await;
        everything_stands_still().await;
        let mut more = Vec::new();
        for tag in 10..14 {
            more.push(soon("a stream is accepted", lab.endless(tag)).await.unwrap());
        }
        drop((unread, more));
        scene.bench.idle().await;
    });
}

/// reliability.md, row 25: no deadlock when all but one stall.
#[test]
fn many_stalled_sessions_hold_nobody_up() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let lively = session(&connection).await;
        let mut unread = Vec::new();
        for n in 0..8 {
            let lab = session(&connection).await;
            unread.push(tokio::spawn(async move {
                let _unread = unread_streams(&lab, 10 * n).await;
                std::future::pending::<()>().await;
            }));
        }
        everything_stands_still().await;
        is_lively(&lively).await;
        unread.iter().for_each(tokio::task::JoinHandle::abort);
        scene.bench.idle().await;
    });
}

/// As many as a connection has by default: a session that does not read stalls only itself (docs/PROTOCOL.md §7.2).
#[test]
fn all_sessions_but_one_stand_still_and_it_does_not_notice() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let mut unread = Vec::new();
        for n in 0..127 {
            let lab = session(&connection).await;
            unread.push(unread_streams(&lab, 4 * n).await);
        }
        everything_stands_still().await;
        let lively = soon("the last session opens", connection.session().open::<LabClient>()).await.unwrap();
        is_lively(&lively).await;
        let mut items = lively.endless(1000).await.unwrap();
        for n in 0..50_000 {
            assert_eq!(soon("an item", items.next()).await.unwrap().unwrap(), n);
        }
        // And those that stood still go on where they stopped, once their neighbours in the session let them.
        for streams in unread.iter_mut().step_by(42) {
            streams.truncate(1);
            for n in 0..50_000 {
                assert_eq!(soon("an item", streams[0].next()).await.unwrap().unwrap(), n);
            }
        }
        drop((items, unread));
        scene.bench.idle().await;
    });
}

#[test]
fn a_large_message_lets_small_calls_through() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let (bulk, small) = (session(&connection).await, session(&connection).await);
        let (done, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let caller = tokio::spawn({
            let (done, progress) = (Arc::clone(&done), Arc::clone(&progress));
            async move {
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(small.after(0).await.unwrap(), 0);
                    progress.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let bytes = Bytes::from(pattern(4_000_000, 0));
        let mut held_up = 0;
        for _ in 0..20 {
            let before = progress.load(Ordering::SeqCst);
            assert!(bulk.shared(bytes.clone()).await.unwrap() == bytes);
            // 8 MB went by; a small call takes its turn behind a quantum of 16 KiB, not behind a message.
            held_up += usize::from(progress.load(Ordering::SeqCst) - before < 2);
        }
        done.store(true, Ordering::SeqCst);
        caller.await.unwrap();
        // A busy machine may leave the small caller no time in some rounds; if messages went whole, it would be all of them.
        // `rpc-core/tests/interleaving.rs` counts the same in bytes.
        assert!(held_up < 18, "in {held_up} of 20 rounds small calls waited for the large message");
    });
}

#[test]
fn a_handler_that_computes_for_long_is_given_a_task_of_its_own() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = scene.connection().await;
        let lab = session(&connection).await;
        let (up, mut items) = mpsc::channel::<Bytes>(1);
        let source = stream::poll_fn(move |cx| items.poll_recv(cx));
        let mut down = lab.echo(source).await.unwrap();
        for n in 0..100u64 {
            let calls: Vec<_> = (0..20).map(|_| tokio::spawn(lab.zeros(200_000))).collect();
            up.send(pattern(10, n).into()).await.unwrap();
            assert_eq!(soon("an item", down.next()).await.unwrap().unwrap(), pattern(10, n));
            for call in calls {
                call.await.unwrap().unwrap();
            }
        }
    });
}

// ---- leaks ---------------------------------------------------------------------------------------------------------

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Runs alone in its process (`tests/it/main.rs` is one binary): see [`nothing_is_left_of_connections`].
async fn connect_call_drop(endpoint: &rpc::Endpoint) {
    let connection = Connection::open(endpoint).await.unwrap();
    let lab = session(&connection).await;
    lab.text("a").await.unwrap();
    let mut items = lab.items(100, 100).await.unwrap();
    items.next().await.unwrap().unwrap();
    let hanging = tokio::spawn(lab.hang(1));
    let single: LabClient = rpc::connect(endpoint).await.unwrap();
    single.sum(stream::iter(0..10)).await.unwrap();
    hanging.abort();
}

#[test]
fn nothing_is_left_of_connections() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let mem = Server::builder().service(LabServer::new(scene.bench.clone())).listen("mem://leaks").await.unwrap();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for endpoint in [scene.server.endpoint(), mem.endpoint()] {
            let before = tasks();
            for _ in 0..200 {
                connect_call_drop(endpoint).await;
            }
            scene.bench.idle().await;
            // Connections linger for a second, so that last words are not lost.
            eventually("all tasks end", || tasks() <= before).await;
        }
    });
}

/// Other tests open files in this process meanwhile: the count is that of a process of its own.
#[test]
fn no_file_is_left_open_by_connections() {
    const ALONE: &str = "RPC_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().unwrap();
        let name = "connections::no_file_is_left_open_by_connections";
        let output = std::process::Command::new(this).args([name, "--exact"]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    run(async {
        let scene = Scene::new(default_limits).await;
        connect_call_drop(scene.server.endpoint()).await;
        let mut raw = Raw::connect(scene.server.endpoint()).await;
        raw.write(b"not rpc at all").await;
        assert_eq!(raw.io.read(&mut [0; 8]).await.unwrap_or(0), 0);
        drop(raw);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let before = open_files();
        for _ in 0..200 {
            connect_call_drop(scene.server.endpoint()).await;
        }
        eventually("all files are closed", || open_files() <= before).await;
    });
}
