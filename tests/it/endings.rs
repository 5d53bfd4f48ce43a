//! Ends in good order, and ends at once: of a session, of a connection, of a server. Whatever it is, each call was served,
//! or is known not to have run, or is known to be unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use rpc::{Closed, Code, Connection, ConnectionError, Drained, Error, Fault, FaultKind, Limits, OpenError, Server, Session};
use rpc_core::id::Sid;
use rpc_core::wire::frame::{Abort, GoAway, Reason, flag, kind, session_head};
use rpc_core::wire::{HeadBuf, varint};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cases::received;
use crate::harness::{eventually, limits, run, soon};
use crate::lab::{Bench, Events, LONG, LabClient, LabServer};
use crate::raw::{Raw, args, data, frame, listener, method, open, session_open};

/// How the two sides are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    TcpSingle,
    Memory,
    #[cfg(windows)]
    Pipe,
}

impl Way {
    /// What a client is told whose server lives and takes no further connections.
    fn when_nobody_accepts(self) -> std::io::ErrorKind {
        match self {
            // It is there, and busy, for as long as it has connections.
            #[cfg(windows)]
            Self::Pipe => std::io::ErrorKind::TimedOut,
            _ => std::io::ErrorKind::ConnectionRefused,
        }
    }
}

/// A server with a client that has one session.
struct Scene {
    server: Server,
    bench: Bench,
    events: Events,
    connection: Connection,
    lab: LabClient,
    way: Way,
}

impl Scene {
    async fn new(way: Way) -> Self {
        Self::with(way, Limits::default()).await
    }

    async fn with(way: Way, limits: Limits) -> Self {
        let (bench, events) = Bench::new();
        let server = serve(way, &bench, limits).await;
        let connection = connect(way, &server).await;
        let lab = connection.session().open().await.unwrap();
        Self { server, bench, events, connection, lab, way }
    }

    /// This side's session, and the other side's.
    async fn both_sides(&self) -> (Session, Session) {
        self.lab.introduce().await.unwrap();
        (Session::of(&self.lab).unwrap(), self.bench.met().0)
    }
}

async fn serve(way: Way, bench: &Bench, limits: Limits) -> Server {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let endpoint = match way {
        Way::Tcp | Way::TcpSingle => "tcp://127.0.0.1:0".to_owned(),
        Way::Memory => format!("mem://endings-{}", NAMES.fetch_add(1, Ordering::Relaxed)),
        #[cfg(windows)]
        Way::Pipe => crate::windows_pipes::fresh(),
    };
    Server::builder().service(LabServer::new(bench.clone())).limits(limits).listen(endpoint).await.unwrap()
}

async fn connect(way: Way, server: &Server) -> Connection {
    let builder = Connection::builder();
    let builder = if way == Way::TcpSingle { builder.single_session() } else { builder };
    builder.open(server.endpoint()).await.unwrap()
}

/// A case for each way.
macro_rules! on_every_way {
    ($($(#[$attr:meta])* async fn $case:ident($scene:ident: Scene) $body:block)*) => {$(
        mod $case {
            use super::*;

            async fn case($scene: Scene) $body

            #[test]
            $(#[$attr])*
            fn tcp() {
                run(async { case(Scene::new(Way::Tcp).await).await });
            }

            #[test]
            $(#[$attr])*
            fn tcp_single_session() {
                run(async { case(Scene::new(Way::TcpSingle).await).await });
            }

            #[test]
            $(#[$attr])*
            fn memory() {
                run(async { case(Scene::new(Way::Memory).await).await });
            }

            #[test]
            #[cfg(windows)]
            $(#[$attr])*
            fn pipe() {
                run(async { case(Scene::new(Way::Pipe).await).await });
            }
        }
    )*};
}

/// What a call failed with.
#[track_caller]
fn fault<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, Error<E>>) -> Fault {
    match result {
        Err(Error::Fault(fault)) => fault,
        other => panic!("it did not fail by a fault: {other:?}"),
    }
}

#[track_caller]
fn assert_not_started<T: std::fmt::Debug>(result: rpc::Result<T>) {
    let fault = fault(result);
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::NotStarted, false), "{fault}");
}

#[track_caller]
fn assert_unknown<T: std::fmt::Debug>(result: rpc::Result<T>) {
    let fault = fault(result);
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Indeterminate, true), "{fault}");
}

#[track_caller]
fn assert_drained(drained: Drained, connections: u64, cut: u64) {
    assert_eq!((drained.connections, drained.cut), (connections, cut));
    assert_eq!(drained.is_clean(), cut == 0);
}

/// The peer ended the connection in good order.
async fn assert_peer_left(connection: &Connection) {
    match soon("the connection ends", connection.closed()).await {
        ConnectionError::ClosedByPeer(reason) => assert_eq!(reason.code, Code::NO_ERROR),
        other => panic!("{other}"),
    }
}

/// Calls of every kind under way: each goes on until the test lets it end.
struct UnderWay {
    answer: JoinHandle<rpc::Result<u64>>,
    sum: JoinHandle<rpc::Result<u64>>,
    numbers: mpsc::Sender<u64>,
    up: mpsc::Sender<Bytes>,
    down: rpc::Streaming<Bytes>,
}

impl UnderWay {
    async fn new(scene: &Scene) -> Self {
        let answer = tokio::spawn(scene.lab.wait(1));
        scene.lab.late_note(2).await.unwrap();
        let (numbers, coming) = mpsc::channel(1);
        let sum = tokio::spawn(scene.lab.sum(received(coming)));
        let (up, items) = mpsc::channel(1);
        let down = scene.lab.echo(received(items)).await.unwrap();
        scene.events.started(1).await;
        scene.events.started(2).await;
        numbers.send(40).await.unwrap();
        Self { answer, sum, numbers, up, down }
    }

    /// An item goes up and comes down: streams run on.
    async fn goes_on(&mut self) {
        self.up.send(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(soon("an item comes back", self.down.next()).await.unwrap().unwrap(), "x");
        self.numbers.send(1).await.unwrap();
    }

    /// Brings everything to its end.
    async fn complete(self, bench: &Bench, sum: u64) {
        let Self { answer, sum: summing, numbers, up, mut down } = self;
        drop((numbers, up));
        assert!(soon("the stream ends", down.next()).await.is_none());
        assert_eq!(soon("items are summed", summing).await.unwrap().unwrap(), sum);
        bench.open_gate();
        assert_eq!(soon("it is answered", answer).await.unwrap().unwrap(), 1);
    }
}

// ---- a session closes ----------------------------------------------------------------------------------------------

on_every_way! {
    async fn a_close_sees_everything_that_is_under_way_through_and_is_confirmed(scene: Scene) {
        let mut under_way = UnderWay::new(&scene).await;
        let session = Session::of(&scene.lab).unwrap();
        assert!(!session.is_closing());
        let closing = tokio::spawn({
            let session = session.clone();
            async move { session.close().await }
        });
        eventually("the session closes", || session.is_closing()).await;
        assert_not_started(scene.lab.text("behind the close").await);
        assert_not_started(scene.lab.note(7).await);
        assert_not_started(scene.lab.items(1, 1).await.map(drop));
        for _ in 0..10 {
            under_way.goes_on().await;
        }
        assert!(!closing.is_finished(), "it waits for what is under way");
        under_way.complete(&scene.bench, 50).await;
        let closed = soon("it closes", closing).await.unwrap();
        assert!(closed.is_confirmed(), "{closed}");
        assert_eq!((closed.untaken(), closed.reason()), (Some(0), None));
        assert_eq!(scene.bench.notes(), (1, 2), "one-way calls were served before it was confirmed");
        assert_eq!(scene.bench.calls(), 4, "and nothing behind the close was");
        assert_not_started(scene.lab.text("behind the end").await);
    }

    async fn a_close_waits_for_a_one_way_call_alone(scene: Scene) {
        let session = Session::of(&scene.lab).unwrap();
        scene.lab.late_note(3).await.unwrap();
        scene.events.started(3).await;
        let closing = tokio::spawn(async move { session.close().await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!closing.is_finished(), "its handler still runs");
        scene.bench.open_gate();
        assert!(soon("it closes", closing).await.unwrap().is_confirmed());
        assert_eq!(scene.bench.notes(), (1, 3));
    }

    async fn a_close_tells_of_input_that_a_handler_let_go_of(scene: Scene) {
        assert_eq!(scene.lab.first(3, stream::iter(1..)).await.unwrap(), 6);
        assert_eq!(scene.lab.first(0, stream::pending()).await.unwrap(), 0);
        assert_eq!(scene.lab.sum(stream::iter(0..10)).await.unwrap(), 45);
        let (here, there) = scene.both_sides().await;
        let closed = soon("it closes", here.close()).await;
        assert!(!closed.is_confirmed());
        assert_eq!((closed.untaken(), closed.reason()), (Some(2), None), "{closed}");
        // What the server sent was taken.
        assert!(soon("the other side ends", there.closed()).await.is_confirmed());
    }

    async fn a_close_tells_of_streams_that_the_caller_let_go_of(scene: Scene) {
        let (here, there) = scene.both_sides().await;
        for tag in 0..3 {
            let mut items = scene.lab.endless(tag).await.unwrap();
            assert_eq!(items.next().await.unwrap().unwrap(), 0);
        }
        let call = tokio::spawn(scene.lab.hang(7));
        scene.events.started(7).await;
        call.abort();
        let mut all = scene.lab.items(100, 10).await.unwrap();
        while all.next().await.is_some() {}
        let (closed, of_server) = tokio::join!(soon("it closes", here.close()), soon("it ends", there.closed()));
        // The server took what the client sent, but not the other way round: three streams, and an answer.
        assert!(closed.is_confirmed(), "{closed}");
        assert_eq!((of_server.is_confirmed(), of_server.untaken()), (false, Some(4)), "{of_server}");
    }

    async fn everybody_who_waits_for_the_end_is_told_of_it(scene: Scene) {
        let (here, there) = scene.both_sides().await;
        let waiting: Vec<_> = [&here, &there, &here, &there, &here]
            .map(|session| {
                let session = session.clone();
                tokio::spawn(async move { session.closed().await })
            })
            .into();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiting.iter().any(JoinHandle::is_finished), "waiting for the end closes nothing");
        assert_eq!(scene.lab.text("a").await.unwrap(), "A");
        // The side that serves may close as well.
        assert!(soon("it closes", there.close()).await.is_confirmed());
        for told in waiting {
            assert!(soon("whoever waits is told", told).await.unwrap().is_confirmed());
        }
        // Behind the end, at once; and to close it again is no fault.
        for session in [here, there] {
            assert!(session.closed().await.is_confirmed());
            assert!(session.close().await.is_confirmed());
            session.abort("too late");
            assert!(session.closed().await.is_confirmed());
            assert!(session.is_closing());
        }
        assert_not_started(scene.lab.text("a").await);
    }

    async fn both_sides_close_at_once(scene: Scene) {
        let mut under_way = UnderWay::new(&scene).await;
        let (here, there) = scene.both_sides().await;
        let both = tokio::spawn(async move { tokio::join!(here.close(), there.close()) });
        under_way.goes_on().await;
        under_way.complete(&scene.bench, 41).await;
        let (of_client, of_server) = soon("both close", both).await.unwrap();
        assert!(of_client.is_confirmed() && of_server.is_confirmed(), "{of_client}, {of_server}");
        assert_eq!(scene.bench.notes(), (1, 2));
    }

    async fn a_session_that_lost_its_connection_is_not_confirmed(scene: Scene) {
        let (here, there) = scene.both_sides().await;
        let hanging = tokio::spawn(scene.lab.hang(1));
        scene.events.started(1).await;
        scene.connection.close().await;
        for session in [here, there] {
            let closed: Closed = soon("it ends", session.closed()).await;
            assert_eq!((closed.is_confirmed(), closed.untaken()), (false, None));
            assert_eq!(closed.reason().map(|reason| reason.code), Some(Code::CLOSED));
            assert!(Connection::of(&session).is_none());
        }
        assert_unknown(hanging.await.unwrap());
    }
}

#[test]
fn other_sessions_live_on_when_one_closes() {
    run(async {
        for way in [Way::Tcp, Way::Memory] {
            let scene = Scene::new(way).await;
            let other: LabClient = scene.connection.session().open().await.unwrap();
            let mut items = other.endless(1).await.unwrap();
            assert!(Session::of(&scene.lab).unwrap().close().await.is_confirmed());
            assert!(!Session::of(&other).unwrap().is_closing());
            assert_eq!(other.text("a").await.unwrap(), "A");
            for n in 0..10_000 {
                assert_eq!(items.next().await.unwrap().unwrap(), n);
            }
        }
    });
}

// ---- a session is aborted ------------------------------------------------------------------------------------------

/// Room for two calls at a time: a third waits for its place, so its arguments cannot have been received.
fn two_places() -> Limits {
    limits(|limits| limits.exchanges = 2)
}

/// Two calls that run, two that wait for their places.
async fn two_run_two_wait(scene: &Scene) -> [JoinHandle<rpc::Result<()>>; 4] {
    let running = [1, 2].map(|tag| tokio::spawn(scene.lab.hang(tag)));
    scene.events.started(1).await;
    scene.events.started(2).await;
    let waiting = [3, 4].map(|tag| tokio::spawn(scene.lab.hang(tag)));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let ([a, b], [c, d]) = (running, waiting);
    [a, b, c, d]
}

async fn assert_aborted(calls: [JoinHandle<rpc::Result<()>>; 4], text: &str) {
    for (n, call) in calls.into_iter().enumerate() {
        let fault = fault(soon("a call is told of the abort", call).await.unwrap());
        let expected = if n < 2 { (FaultKind::Indeterminate, true) } else { (FaultKind::NotStarted, false) };
        assert_eq!((fault.kind(), fault.may_have_run()), expected, "call {n}: {fault}");
        assert_eq!(fault.detail(), text, "call {n}");
    }
}

#[test]
fn an_abort_of_either_side_tells_every_call_whether_it_can_have_run() {
    run(async {
        for way in [Way::Tcp, Way::TcpSingle, Way::Memory] {
            for by_client in [true, false] {
                let scene = Scene::with(way, two_places()).await;
                let (here, there) = scene.both_sides().await;
                let other = if way == Way::TcpSingle { None } else { Some(scene.connection.session().open().await.unwrap()) };
                let calls = two_run_two_wait(&scene).await;
                if by_client { &here } else { &there }.abort("enough of it");
                assert_aborted(calls, "enough of it").await;
                scene.events.dropped(1).await;
                scene.events.dropped(2).await;
                for session in [here, there] {
                    let closed = soon("it ends", session.closed()).await;
                    assert_eq!((closed.is_confirmed(), closed.untaken()), (false, None));
                    assert_eq!(closed.reason(), Some(&Reason::new(Code::CLOSED, "enough of it")));
                }
                assert_not_started(scene.lab.text("a").await);
                scene.bench.idle().await;
                // The neighbours did not notice.
                if let Some(other) = other {
                    let other: LabClient = other;
                    assert_eq!(other.text("a").await.unwrap(), "A");
                    let again: LabClient = scene.connection.session().open().await.unwrap();
                    assert_eq!(again.text("a").await.unwrap(), "A");
                }
            }
        }
    });
}

on_every_way! {
    async fn a_handler_aborts_its_own_session(scene: Scene) {
        let hanging = tokio::spawn(scene.lab.hang(1));
        let mut items = scene.lab.stuck(2).await.unwrap();
        items.next().await.unwrap().unwrap();
        scene.events.started(1).await;
        let own = fault(soon("the call is told", scene.lab.abort_session(3, "why")).await);
        assert_eq!((own.kind(), own.may_have_run(), own.detail()), (FaultKind::Indeterminate, true, "why"));
        assert_eq!(fault(soon("its neighbour is told", hanging).await.unwrap()).detail(), "why");
        assert_eq!(fault(soon("the stream breaks", items.next()).await.unwrap()).detail(), "why");
        for tag in 1..=3 {
            scene.events.dropped(tag).await;
        }
        scene.bench.idle().await;
    }
}

/// What the peer says that it has received decides: calls behind that cannot have run.
#[test]
fn a_call_that_the_aborting_peer_had_not_received_was_not_started() {
    run(async {
        let (listener, endpoint) = listener().await;
        let server = tokio::spawn(async move {
            let mut raw = Raw::server(&listener, |_| {}).await;
            raw.accept_session().await;
            for _ in 0..3 {
                raw.next(kind::OPEN).await;
            }
            let mut body = Vec::new();
            Abort { rx_next: 2, reason: Reason::new(Code::CLOSED, "two of three") }.write(&mut body);
            raw.write(&frame(session_head(kind::S_ABORT, 0, Some(Sid(0))), &body)).await;
            raw
        });
        let connection = Connection::open(&endpoint).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let calls = join_all([lab.hang(1), lab.hang(2), lab.hang(3)]);
        let faults: Vec<_> = soon("the calls fail", calls).await.into_iter().map(fault).collect();
        let of = |fault: &Fault| (fault.kind(), fault.may_have_run());
        assert_eq!(
            faults.iter().map(of).collect::<Vec<_>>(),
            [(FaultKind::Indeterminate, true), (FaultKind::Indeterminate, true), (FaultKind::NotStarted, false)]
        );
        assert!(faults.iter().all(|fault| fault.detail() == "two of three"));
        server.await.unwrap();
    });
}

// ---- a server drains -----------------------------------------------------------------------------------------------

/// A session that is refused tells that nothing was started.
fn assert_refused(opened: Result<LabClient, OpenError>, way: Way) {
    let error = opened.map(drop).unwrap_err();
    let code = if way == Way::TcpSingle { [Code::REFUSED, Code::MODE] } else { [Code::REFUSED; 2] };
    assert!(error.code().is_some_and(|refused| code.contains(&refused)), "{error}");
    assert!(!Fault::from(error).may_have_run());
}

on_every_way! {
    async fn a_drain_serves_what_is_under_way_and_starts_nothing_new(scene: Scene) {
        let mut under_way = UnderWay::new(&scene).await;
        let (session, there) = scene.both_sides().await;
        let endpoint = scene.server.endpoint().clone();
        let calls = scene.bench.calls();
        let draining = tokio::spawn(scene.server.drain(LONG));
        eventually("the client learns of it", || session.is_closing()).await;
        assert_not_started(scene.lab.text("too late").await);
        assert_not_started(scene.lab.note(100).await);
        assert_refused(scene.connection.session().open().await, scene.way);
        match Connection::open(&endpoint).await {
            Err(OpenError::Unreachable { kind, .. }) => assert_eq!(kind, scene.way.when_nobody_accepts()),
            other => panic!("{other:?}"),
        }
        for _ in 0..10 {
            under_way.goes_on().await;
        }
        assert!(!draining.is_finished(), "it waits for what is under way");
        under_way.complete(&scene.bench, 50).await;
        assert_drained(soon("it ends", draining).await.unwrap(), 1, 0);
        assert_peer_left(&scene.connection).await;
        assert!(session.closed().await.is_confirmed() && there.closed().await.is_confirmed());
        assert_eq!((scene.bench.notes(), scene.bench.calls()), ((1, 2), calls));
    }

    async fn a_drain_of_an_idle_server_ends_at_once(scene: Scene) {
        let connections = join_all((0..5).map(|_| connect(scene.way, &scene.server))).await;
        assert_drained(soon("it ends", scene.server.drain(LONG)).await, 6, 0);
        for connection in connections.iter().chain([&scene.connection]) {
            assert_peer_left(connection).await;
        }
    }

    async fn a_drain_cuts_off_what_hangs_and_says_so(scene: Scene) {
        let hanging = tokio::spawn(scene.lab.hang(1));
        let mut stuck = scene.lab.stuck(2).await.unwrap();
        stuck.next().await.unwrap().unwrap();
        scene.events.started(1).await;
        let drained = soon("handlers that never end do not hold it up", scene.server.drain(Duration::from_millis(50))).await;
        assert_drained(drained, 1, 2);
        let cut = fault(soon("the caller is told", hanging).await.unwrap());
        assert_eq!((cut.kind(), cut.may_have_run()), (FaultKind::Indeterminate, true));
        assert_eq!(cut.detail(), "the peer went away, and its time is up");
        assert_eq!(fault(soon("the stream breaks", stuck.next()).await.unwrap()).kind(), FaultKind::Indeterminate);
        scene.events.dropped(1).await;
        scene.events.dropped(2).await;
        scene.bench.idle().await;
        assert_peer_left(&scene.connection).await;
    }

    async fn a_drain_that_nobody_waits_for_stops_at_once(scene: Scene) {
        let hanging = tokio::spawn(scene.lab.hang(1));
        scene.events.started(1).await;
        let session = Session::of(&scene.lab).unwrap();
        let draining = tokio::spawn(scene.server.drain(LONG));
        eventually("the client learns of it", || session.is_closing()).await;
        assert!(!hanging.is_finished());
        draining.abort();
        assert_unknown(soon("it is cut off", hanging).await.unwrap());
        assert_peer_left(&scene.connection).await;
        scene.bench.idle().await;
    }

    async fn both_sides_drain_at_once(scene: Scene) {
        let mut under_way = UnderWay::new(&scene).await;
        let session = Session::of(&scene.lab).unwrap();
        let connection = scene.connection.clone();
        let both = tokio::spawn(async move { tokio::join!(scene.server.drain(LONG), connection.drain(LONG)) });
        eventually("the session closes", || session.is_closing()).await;
        assert_not_started(scene.lab.text("too late").await);
        under_way.goes_on().await;
        under_way.complete(&scene.bench, 41).await;
        let (of_server, of_client) = soon("both end", both).await.unwrap();
        assert_drained(of_server, 1, 0);
        assert_drained(of_client, 1, 0);
        assert!(session.closed().await.is_confirmed());
    }

    async fn a_client_drains_its_connection(scene: Scene) {
        let mut under_way = UnderWay::new(&scene).await;
        let (session, there) = scene.both_sides().await;
        let connection = scene.connection.clone();
        let draining = tokio::spawn(async move { connection.drain(LONG).await });
        eventually("the server learns of it", || there.is_closing()).await;
        assert_not_started(scene.lab.text("too late").await);
        assert_refused(scene.connection.session().open().await, scene.way);
        under_way.goes_on().await;
        assert!(!draining.is_finished());
        under_way.complete(&scene.bench, 41).await;
        assert_drained(soon("it ends", draining).await.unwrap(), 1, 0);
        assert!(session.closed().await.is_confirmed() && there.closed().await.is_confirmed());
        assert_eq!(scene.connection.closed().await, ConnectionError::Closed);
        // The server serves others.
        let other: LabClient = connect(scene.way, &scene.server).await.session().open().await.unwrap();
        assert_eq!(other.text("a").await.unwrap(), "A");
    }

    async fn a_client_that_drains_cuts_off_what_hangs(scene: Scene) {
        let hanging = tokio::spawn(scene.lab.hang(1));
        scene.events.started(1).await;
        assert_drained(soon("it ends", scene.connection.drain(Duration::from_millis(50))).await, 1, 1);
        assert_unknown(hanging.await.unwrap());
        scene.events.dropped(1).await;
    }

    async fn a_signal_begins_the_drain(scene: Scene) {
        let (signal, signalled) = oneshot::channel::<()>();
        let session = Session::of(&scene.lab).unwrap();
        let serving = tokio::spawn(scene.server.drain_on(signalled));
        assert_eq!(scene.lab.text("a").await.unwrap(), "A");
        let call = tokio::spawn(scene.lab.wait(1));
        scene.events.started(1).await;
        assert!(!session.is_closing());
        signal.send(()).unwrap();
        eventually("the client learns of it", || session.is_closing()).await;
        scene.bench.open_gate();
        assert_eq!(call.await.unwrap().unwrap(), 1);
        assert_drained(soon("it ends", serving).await.unwrap(), 1, 0);
    }
}

#[test]
fn a_drain_on_a_signal_has_the_time_that_the_limits_give_it() {
    run(async {
        let scene = Scene::with(Way::Tcp, limits(|limits| limits.drain = Duration::from_millis(50))).await;
        let hanging = tokio::spawn(scene.lab.hang(1));
        scene.events.started(1).await;
        assert_drained(soon("it ends", scene.server.drain_on(async {})).await, 1, 1);
        assert_unknown(hanging.await.unwrap());
    });
}

#[test]
fn a_peer_that_reads_nothing_does_not_hold_a_drain_up() {
    run(async {
        let scene = Scene::new(Way::Tcp).await;
        let mut raw = Raw::client(scene.server.endpoint()).await;
        raw.session(0).await;
        for n in 0..8u64 {
            raw.write(&open(0, 2 * n, method("endless"), flag::END, &args(&(n,)))).await;
        }
        for n in 0..8 {
            scene.events.started(n).await;
        }
        let call = tokio::spawn(scene.lab.wait(100));
        scene.events.started(100).await;
        // Until its socket takes no more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let draining = tokio::spawn(scene.server.drain(Duration::from_secs(1)));
        scene.bench.open_gate();
        assert_eq!(soon("others are served", call).await.unwrap().unwrap(), 100);
        // A second, and another one for last words; the write stall would take ten.
        let drained = tokio::time::timeout(Duration::from_secs(7), draining).await.expect("the drain does not end").unwrap();
        assert_drained(drained, 2, 8);
        scene.bench.idle().await;
        drop(raw);
    });
}

/// The deadline rings by itself: no byte of the peer's reminds the server of it.
#[test]
fn a_peer_that_says_nothing_does_not_hold_a_drain_up() {
    run(async {
        let mut broken = Broken::new().await;
        broken.raw.write(&open(0, 0, method("hang"), flag::END, &args(&(1u64,)))).await;
        broken.events.started(1).await;
        let connection = broken.leaving.clone();
        let draining = tokio::spawn(async move { connection.drain(Duration::from_millis(50)).await });
        // The keepalive would ring after 15 s.
        let drained = tokio::time::timeout(Duration::from_secs(7), draining).await.expect("the drain does not end").unwrap();
        assert_drained(drained, 1, 1);
        broken.raw.next(kind::S_ABORT).await;
        assert_eq!(broken.raw.closed().await.map(|reason| reason.code), Some(Code::NO_ERROR));
        broken.victim_works().await;
    });
}

#[test]
fn a_drain_does_not_wait_for_handshakes() {
    run(async {
        let scene = Scene::new(Way::Tcp).await;
        let mut silent = Raw::connect(scene.server.endpoint()).await;
        let mut half = Raw::connect(scene.server.endpoint()).await;
        half.write(&rpc_core::wire::hello::PREFACE).await;
        assert_eq!(scene.lab.text("a").await.unwrap(), "A");
        soon("it ends", scene.server.drain(LONG)).await;
        assert_eq!(silent.rest().await, b"");
        assert_eq!(half.rest().await, b"");
        assert_peer_left(&scene.connection).await;
    });
}

#[test]
fn whoever_opens_a_connection_while_its_server_drains_is_answered_or_told() {
    run(async {
        for way in [Way::Tcp, Way::TcpSingle, Way::Memory] {
            for round in 0..40 {
                let (bench, _events) = Bench::new();
                let server = serve(way, &bench, Limits::default()).await;
                let endpoint = server.endpoint().clone();
                let opening: Vec<_> = (0..8u64)
                    .map(|ticket| {
                        let endpoint = endpoint.clone();
                        tokio::spawn(async move {
                            let builder = Connection::builder();
                            let builder = if way == Way::TcpSingle { builder.single_session() } else { builder };
                            let connection = builder.open(&endpoint).await.map_err(Fault::from)?;
                            let lab: LabClient = connection.session().open().await.map_err(Fault::from)?;
                            lab.redeem(ticket).await
                        })
                    })
                    .collect();
                for _ in 0..round {
                    tokio::task::yield_now().await;
                }
                let drained = soon("it ends", server.drain(LONG)).await;
                assert_eq!(drained.cut, 0, "{way:?}, round {round}");
                for (ticket, opened) in opening.into_iter().enumerate() {
                    let redeemed = bench.redeemed(ticket as u64);
                    match soon("an opening ends", opened).await.unwrap() {
                        Ok(_) => assert_eq!(redeemed, 1, "{way:?}, round {round}"),
                        Err(error) => {
                            assert!(!fault::<(), _>(Err(error)).may_have_run(), "{way:?}, round {round}");
                            assert_eq!(redeemed, 0, "{way:?}, round {round}");
                        }
                    }
                }
            }
        }
    });
}

// ---- a drain under load --------------------------------------------------------------------------------------------

/// Eight clients: four share a connection, two have one of their own, two are alone on theirs.
async fn eight_clients(way: Way, server: &Server) -> Vec<LabClient> {
    let shared = connect(Way::Tcp, server).await;
    let mut clients = Vec::new();
    for n in 0..8 {
        let own = if n < 4 { shared.clone() } else { connect(if n < 6 { Way::Tcp } else { way }, server).await };
        clients.push(own.session().open().await.unwrap());
    }
    clients
}

#[test]
fn every_call_under_a_drain_is_answered_once_or_known_not_to_have_run() {
    run(async {
        for round in 0..60u64 {
            let way = if round % 3 == 0 { Way::Memory } else { Way::TcpSingle };
            let (bench, _events) = Bench::new();
            let server = serve(way, &bench, Limits::default()).await;
            let tickets = Arc::new(AtomicU64::new(0));
            let clients = eight_clients(way, &server).await.into_iter().map(|lab| {
                let (tickets, bench) = (Arc::clone(&tickets), bench.clone());
                tokio::spawn(async move {
                    // A few behind the first failure, so that calls are made in every phase of the end.
                    let (mut answered, mut failed) = (0, 0);
                    while failed < 5 {
                        let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                        match lab.redeem(ticket).await {
                            Ok(back) => {
                                assert_eq!((back, bench.redeemed(ticket)), (ticket, 1), "round {round}, ticket {ticket}");
                                assert_eq!(failed, 0, "round {round}: a call behind one that came too late was served");
                                answered += 1;
                            }
                            Err(error) => {
                                let fault = fault::<(), _>(Err(error));
                                assert!(!fault.may_have_run(), "round {round}, ticket {ticket}: {fault}");
                                assert_eq!(bench.redeemed(ticket), 0, "round {round}, ticket {ticket}");
                                failed += 1;
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                    answered
                })
            });
            let clients: Vec<_> = clients.collect();
            let begin = 20 * (1 + round % 10);
            eventually("clients call", || tickets.load(Ordering::Relaxed) > begin).await;
            let drained = soon("the drain ends", server.drain(LONG)).await;
            assert_eq!(drained.cut, 0, "round {round}");
            let mut answered = 0;
            for client in clients {
                answered += soon("a client stops", client).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
            let tickets = tickets.load(Ordering::Relaxed);
            assert_eq!((0..tickets).map(|ticket| u64::from(bench.redeemed(ticket))).sum::<u64>(), answered, "round {round}");
            assert!(answered > 0, "round {round}: nobody was served");
        }
    });
}

/// A rolling restart: whoever is told that a call was not started makes it on the next server.
#[test]
fn a_rolling_restart_costs_no_call() {
    run(async {
        for round in 0..20u64 {
            let way = if round % 2 == 0 { Way::Tcp } else { Way::TcpSingle };
            // Both servers redeem tickets in one book.
            let (bench, _events) = Bench::new();
            let (first, second) = (serve(way, &bench, Limits::default()).await, serve(way, &bench, Limits::default()).await);
            let calls = Arc::new(AtomicU64::new(0));
            let clients: Vec<_> = (0..8u64)
                .map(|client| {
                    let (calls, bench) = (Arc::clone(&calls), bench.clone());
                    let endpoints = [first.endpoint().clone(), second.endpoint().clone()];
                    tokio::spawn(async move {
                        let open = async |endpoint| {
                            let builder = Connection::builder();
                            let builder = if way == Way::TcpSingle { builder.single_session() } else { builder };
                            let connection = builder.open(endpoint).await.map_err(Fault::from)?;
                            connection.session().open::<LabClient>().await.map_err(Fault::from)
                        };
                        // Whoever comes too late for the first server goes to the second one.
                        let (mut lab, mut moved) = match open(&endpoints[0]).await {
                            Ok(lab) => (lab, 0),
                            Err(_) => (open(&endpoints[1]).await.unwrap(), 1),
                        };
                        for n in 0..200 {
                            let ticket = client * 1000 + n;
                            let mut answer = lab.redeem(ticket).await;
                            if let Err(error) = &answer {
                                let fault = error.fault().unwrap();
                                assert!(!fault.may_have_run(), "round {round}, ticket {ticket}: {fault}");
                                lab = open(&endpoints[1]).await.unwrap();
                                moved += 1;
                                answer = lab.redeem(ticket).await;
                            }
                            let back = answer.unwrap_or_else(|error| panic!("round {round}, ticket {ticket}: {error}"));
                            assert_eq!((back, bench.redeemed(ticket)), (ticket, 1), "round {round}");
                            calls.fetch_add(1, Ordering::Relaxed);
                        }
                        moved
                    })
                })
                .collect();
            eventually("clients call", || calls.load(Ordering::Relaxed) > 50 + 40 * (round % 8)).await;
            let drained = soon("the first server drains", first.drain(LONG)).await;
            assert_eq!(drained.cut, 0, "round {round}");
            let mut moved = 0;
            for client in clients {
                moved += soon("a client is done", client).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
            assert!((1..=8).contains(&moved), "round {round}: {moved} clients moved over");
        }
    });
}

// ---- peers that break the rules of ends -----------------------------------------------------------------------------

/// A server that can be told to leave one of its connections, a client that has nothing to do with it, and a peer by
/// hand with session 0.
struct Broken {
    bench: Bench,
    events: Events,
    victim: LabClient,
    raw: Raw,
    /// The server's side of the connection by hand.
    leaving: Connection,
    _server: Server,
}

impl Broken {
    async fn new() -> Self {
        let (bench, events) = Bench::new();
        let (tell, mut told) = mpsc::unbounded_channel();
        let server = Server::builder().service(LabServer::new(bench.clone()));
        let server = server.on_connection(move |connection| drop(tell.send(connection)));
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let victim = rpc::connect(server.endpoint()).await.unwrap();
        told.recv().await.unwrap();
        let mut raw = Raw::client(server.endpoint()).await;
        raw.session(0).await;
        let leaving = told.recv().await.unwrap();
        Self { bench, events, victim, raw, leaving, _server: server }
    }

    /// The server leaves the connection, and has said so.
    async fn leave(&mut self) -> JoinHandle<Drained> {
        let connection = self.leaving.clone();
        let draining = tokio::spawn(async move { connection.drain(LONG).await });
        let goaway = self.raw.next(kind::GOAWAY).await;
        let goaway = GoAway::read(&goaway.rest).unwrap();
        assert!((1..=LONG.as_millis() as u64).contains(&goaway.deadline_ms));
        assert_eq!(goaway.reason.code, Code::NO_ERROR);
        draining
    }

    async fn the_connection_ends(mut self) {
        let reason = self.raw.closed().await.expect("it is told why");
        assert_eq!(reason.code, Code::PROTOCOL, "{reason}");
        self.victim_works().await;
    }

    /// Session 0 ends; session 2 of the same connection, opened before, goes on.
    async fn the_session_ends(mut self, what: &str) {
        assert_eq!(self.raw.aborted().await, Code::PROTOCOL, "{what}");
        self.raw.write(&open(2, 0, method("after"), flag::END, &args(&(0u32,)))).await;
        assert_eq!(self.raw.next(kind::DATA).await.body(2), args(&0u32));
        self.victim_works().await;
    }

    async fn victim_works(&self) {
        assert_eq!(self.victim.text("still here").await.unwrap(), "STILL HERE");
        assert_eq!(self.victim.sum(stream::iter(0..10)).await.unwrap(), 45);
        self.bench.idle().await;
    }
}

#[test]
fn a_drain_without_time_does_not_say_that_it_has_all() {
    run(async {
        let mut broken = Broken::new().await;
        let connection = broken.leaving.clone();
        let draining = tokio::spawn(async move { connection.drain(Duration::ZERO).await });
        let goaway = broken.raw.next(kind::GOAWAY).await;
        assert_eq!(GoAway::read(&goaway.rest).unwrap().deadline_ms, 1, "0 stands for no deadline");
        soon("the drain is over", draining).await.unwrap();
        broken.victim_works().await;
    });
}

fn goaway() -> Vec<u8> {
    let mut body = Vec::new();
    GoAway { deadline_ms: 0, reason: Reason::new(Code::NO_ERROR, "") }.write(&mut body);
    frame(HeadBuf::new(kind::GOAWAY, 0), &body)
}

fn goaway_ack(sessions: u64) -> Vec<u8> {
    let mut body = Vec::new();
    varint::push(sessions, &mut body);
    frame(HeadBuf::new(kind::GOAWAY_ACK, 0), &body)
}

fn session_close(sid: u64) -> Vec<u8> {
    frame(session_head(kind::S_CLOSE, 0, Some(Sid(sid))), &[])
}

fn session_close_done(sid: u64) -> Vec<u8> {
    frame(session_head(kind::S_CLOSE_DONE, 0, Some(Sid(sid))), &[0])
}

#[test]
fn an_acknowledgement_of_a_departure_must_come_once_when_asked_for_and_with_the_right_number() {
    run(async {
        // Nobody goes.
        let mut broken = Broken::new().await;
        broken.raw.write(&goaway_ack(1)).await;
        broken.the_connection_ends().await;
        for wrong in [0, 2, 1 << 40] {
            let mut broken = Broken::new().await;
            let draining = broken.leave().await;
            broken.raw.write(&goaway_ack(wrong)).await;
            broken.the_connection_ends().await;
            soon("the drain ends", draining).await.unwrap();
        }
        let mut broken = Broken::new().await;
        let draining = broken.leave().await;
        broken.raw.write(&[goaway_ack(1), goaway_ack(1)].concat()).await;
        broken.the_connection_ends().await;
        soon("the drain ends", draining).await.unwrap();
    });
}

#[test]
fn a_peer_goes_away_once() {
    run(async {
        let mut broken = Broken::new().await;
        broken.raw.write(&goaway()).await;
        let ack = broken.raw.next(kind::GOAWAY_ACK).await;
        assert_eq!(ack.rest, [0], "the server has opened no session");
        broken.raw.write(&goaway()).await;
        broken.the_connection_ends().await;
    });
}

#[test]
fn a_session_behind_the_acknowledgement_of_a_departure_ends_the_connection() {
    run(async {
        let mut broken = Broken::new().await;
        let draining = broken.leave().await;
        // One that crossed GOAWAY is refused, and counts.
        broken.raw.write(&session_open(2, "Lab")).await;
        broken.raw.next(kind::S_REJECT).await;
        broken.raw.write(&goaway_ack(2)).await;
        broken.raw.write(&session_open(4, "Lab")).await;
        broken.the_connection_ends().await;
        soon("the drain ends", draining).await.unwrap();
    });
}

#[test]
fn a_departure_by_hand_goes_its_way() {
    run(async {
        let mut broken = Broken::new().await;
        broken.raw.write(&open(0, 0, method("wait"), flag::END, &args(&(1u64,)))).await;
        broken.events.started(1).await;
        let draining = broken.leave().await;
        broken.raw.write(&goaway_ack(1)).await;
        broken.raw.next(kind::S_CLOSE).await;
        broken.raw.write(&session_close(0)).await;
        assert!(!draining.is_finished());
        broken.bench.open_gate();
        assert_eq!(broken.raw.next(kind::DATA).await.body(2), args(&1u64));
        assert_eq!(broken.raw.next(kind::S_CLOSE_DONE).await.body(1), [0]);
        broken.raw.write(&session_close_done(0)).await;
        assert_eq!(broken.raw.closed().await.map(|reason| reason.code), Some(Code::NO_ERROR));
        assert_drained(soon("the drain ends", draining).await.unwrap(), 1, 0);
        broken.victim_works().await;
    });
}

#[test]
fn a_session_that_closes_by_other_rules_is_aborted_alone() {
    run(async {
        let hang = open(0, 0, method("hang"), flag::END, &args(&(1u64,)));
        let after = |xid| open(0, xid, method("after"), flag::END, &args(&(0u32,)));
        let (close, done) = (session_close(0), session_close_done(0));
        let empty_done = frame(session_head(kind::S_CLOSE_DONE, 0, Some(Sid(0))), &[]);
        let broken_ends = [
            ("S_CLOSE twice", [&close[..], &close]),
            ("S_CLOSE_DONE in a session that is live", [&[], &done]),
            ("S_CLOSE_DONE before S_CLOSE", [&hang, &done]),
            ("OPEN behind S_CLOSE", [&close, &after(0)]),
            ("OPEN behind S_CLOSE while a call is under way", [&[&hang[..], &close].concat(), &after(2)]),
            ("S_CLOSE_DONE with a body that is none", [&close, &empty_done]),
            ("an item behind the end of a direction", [&[&hang[..], &close].concat(), &data(0, 0, flag::EOM, &args(&0u64))]),
        ]
        .map(|(what, parts)| (what, parts.concat()));
        for (what, bytes) in broken_ends {
            let mut broken = Broken::new().await;
            broken.raw.session(2).await;
            broken.raw.write(&bytes).await;
            broken.the_session_ends(what).await;
        }
    });
}

#[test]
fn the_second_last_word_of_a_session_is_one_too_many() {
    run(async {
        // The session has to live on for the second: a call keeps it.
        let mut broken = Broken::new().await;
        broken.raw.session(2).await;
        broken.raw.write(&open(0, 0, method("hang"), flag::END, &args(&(1u64,)))).await;
        broken.events.started(1).await;
        broken.raw.write(&session_close(0)).await;
        broken.raw.next(kind::S_CLOSE).await;
        broken.raw.write(&[session_close_done(0), session_close_done(0)].concat()).await;
        broken.the_session_ends("S_CLOSE_DONE twice").await;
    });
}
