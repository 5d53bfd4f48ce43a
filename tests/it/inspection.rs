//! What can be seen from outside: every cause of waiting is brought about for real, and is found under its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use rpc::inspect::{self, Cause, ConnectionDetail, ExchangeInfo, InspectorClient, Stage};
use rpc::{Connection, Endpoint, Limits, Server};
use rpc_core::id::Sid;
use rpc_core::wire::frame::{Mode, flag, kind, session_head};
use rpc_core::wire::hello::{Hello, SessionAccept, SessionOpen, Windows};
use rpc_core::wire::varint;
use tokio::sync::oneshot;

use crate::harness::{HANG, run, run_on, soon};
use crate::lab::{Bench, Events, LONG, LabClient, LabServer};
use crate::raw::{Raw, args, frame, greeting, hello, listener, method, open, wide};
use rpc::__private::Client;

async fn serve(limits: Limits) -> (Server, Bench, Events) {
    serve_at("tcp://127.0.0.1:0", limits).await
}

async fn serve_at(endpoint: &str, limits: Limits) -> (Server, Bench, Events) {
    let (bench, events) = Bench::new();
    let server = Server::builder().service(LabServer::new(bench.clone())).service(rpc::inspector()).limits(limits);
    (server.listen(endpoint).await.unwrap(), bench, events)
}

/// The connection with this peer, from the side that connected or the other.
async fn look(peer: &str, dialed: bool) -> Option<ConnectionDetail> {
    let mut from = Some(0);
    while let Some(first) = from {
        let connections = inspect::connections(first).await;
        if let Some(found) = connections.page.iter().find(|known| known.peer == peer && known.dialed == dialed) {
            return inspect::connection(found.id, 0).await;
        }
        from = connections.next;
    }
    None
}

/// Waits until the connection looks as it is to look, and yields what was found.
async fn until<T>(peer: &str, dialed: bool, mut found: impl FnMut(&ConnectionDetail) -> Option<T>) -> T {
    let mut last = None;
    for _ in 0..5000 {
        let detail = look(peer, dialed).await;
        if let Some(found) = detail.as_ref().and_then(&mut found) {
            return found;
        }
        last = detail;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it never looked so; at last: {last:#?}");
}

/// The one exchange, once it waits for `cause`, and has for a while. The sum over the connection says the same.
async fn waits(peer: &str, dialed: bool, cause: Cause) -> ExchangeInfo {
    until(peer, dialed, |detail| {
        let [exchange] = &detail.exchanges[..] else { return None };
        let [all] = &detail.connection.waiting[..] else { return None };
        let for_long = exchange.for_ms.is_some_and(|ms| ms >= 20);
        (exchange.waits_for == cause && for_long && all.cause == cause && all.exchanges == 1).then(|| exchange.clone())
    })
    .await
}

/// A peer by hand that has asked for a stream of items and gives this much credit for it.
async fn asks_for_items(server: &Endpoint, window: u64, windows: Windows) -> (Raw, String) {
    let mut raw = Raw::connect(server).await;
    let peer = format!("tcp://{}", raw.io.local_addr().unwrap());
    raw.write(&greeting(kind::HELLO, &Hello { connection_window: window, ..hello(Mode::Multi) })).await;
    raw.preface().await;
    raw.next(kind::HELLO_ACK).await;
    let ask =
        SessionOpen { service: "Lab".into(), fingerprint: LabClient::info().fingerprint, codecs: vec![1], windows, weight: 16 };
    let mut body = Vec::new();
    ask.write(&mut body);
    raw.write(&frame(session_head(kind::S_OPEN, 0, Some(Sid(0))), &body)).await;
    raw.next(kind::S_ACCEPT).await;
    raw.write(&open(0, 0, method("items"), flag::END, &args(&(u64::MAX, 1000u32)))).await;
    (raw, peer)
}

/// Announces a maximum for the session.
fn max_session(max: u64, exchanges: u64) -> Vec<u8> {
    let mut head = session_head(kind::MAX_SESSION, 0, Some(Sid(0)));
    head.varint(max);
    head.varint(exchanges);
    frame(head, &[])
}

#[test]
fn each_level_of_credit_is_named_where_it_is_used_up() {
    run(async {
        let (server, ..) = serve(Limits::default()).await;
        let narrow = 4096;
        let cases = [
            (Cause::StreamCredit, 1 << 40, Windows { stream: narrow, ..wide() }),
            (Cause::SessionCredit, 1 << 40, Windows { session: narrow, ..wide() }),
            (Cause::ConnectionCredit, narrow, wide()),
        ];
        for (cause, window, windows) in cases {
            let (_raw, peer) = asks_for_items(server.endpoint(), window, windows).await;
            let found = waits(&peer, false, cause).await;
            assert_eq!((found.method.as_deref(), found.opened_here, found.xid), (Some("items"), false, Some(0)), "{cause}");
            assert!(found.queued > 0, "{cause}: {found:?}");
            let detail = look(&peer, false).await.unwrap();
            let stall = detail.connection.stall.map(|stall| stall.cause);
            assert_eq!(stall, (cause == Cause::ConnectionCredit).then_some(cause), "{cause}");
            let [session] = &detail.sessions[..] else { panic!("{detail:?}") };
            assert_eq!((session.service.as_str(), session.stage, session.opened_here), ("Lab", Stage::Open, false));
            let left = match cause {
                Cause::StreamCredit => found.send_credit,
                // Items leave a quarter of it to calls and answers.
                Cause::SessionCredit => session.send_credit - narrow / 4,
                _ => detail.connection.send_credit,
            };
            assert!(left < 1000, "{cause}: {left} bytes of credit are left");
        }
    });
}

#[test]
fn a_wait_begins_anew_when_something_was_sent_and_not_before() {
    run(async {
        let (server, ..) = serve(Limits::default()).await;
        let windows = Windows { session: 4096, ..wide() };
        let (mut raw, peer) = asks_for_items(server.endpoint(), 1 << 40, windows).await;
        let first = waits(&peer, false, Cause::SessionCredit).await;
        // Too little for any piece: it was looked at, and nothing was sent.
        raw.write(&max_session(4097, 1 << 20)).await;
        let mut longest = first.for_ms;
        for _ in 0..10 {
            let now = waits(&peer, false, Cause::SessionCredit).await.for_ms;
            assert!(now >= longest, "{now:?} behind {longest:?}");
            longest = now;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while raw.next(kind::DATA).await.body(2).len() < 16 {}
        let sent = look(&peer, false).await.unwrap().connection.sent;
        raw.write(&max_session(9000, 1 << 20)).await;
        let anew = |detail: &ConnectionDetail| {
            let later = detail.exchanges.first()?;
            (detail.connection.sent > sent && later.waits_for == Cause::SessionCredit).then_some(later.for_ms)
        };
        // Not stamped yet, or a moment ago.
        let anew = until(&peer, false, anew).await;
        assert!(anew < longest, "{anew:?} behind {longest:?}");
    });
}

#[test]
fn a_socket_that_takes_nothing_is_named_for_the_connection_and_what_waits_behind_it() {
    run(async {
        let (server, ..) = serve(Limits::default().write_stall(HANG)).await;
        let (_raw, peer) = asks_for_items(server.endpoint(), 1 << 40, wide()).await;
        waits(&peer, false, Cause::Socket).await;
        let connection = look(&peer, false).await.unwrap().connection;
        let stall = connection.stall.unwrap();
        assert_eq!(stall.cause, Cause::Socket);
        assert!(stall.for_ms.unwrap() >= 20, "{stall:?}");
        assert!(connection.unsent > 0, "{connection:?}");
    });
}

#[test]
fn calls_beyond_the_places_that_the_peer_gives_wait_for_them() {
    run(async {
        let (listener, endpoint) = listener().await;
        let server = tokio::spawn(async move {
            let mut raw = Raw::server(&listener, |_| {}).await;
            let open = raw.next(kind::S_OPEN).await;
            let sid = varint::read(&mut &open.rest[..], "the session id").unwrap();
            let mut body = Vec::new();
            SessionAccept { codec: 1, windows: Windows { exchanges: 1, ..wide() }, methods: None }.write(&mut body);
            raw.write(&frame(session_head(kind::S_ACCEPT, 0, Some(Sid(sid))), &body)).await;
            raw.next(kind::OPEN).await;
            raw
        });
        let connection = Connection::open(&endpoint).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let first = tokio::spawn(lab.text("first"));
        let _raw = soon("the first call arrives", server).await.unwrap();
        let _second = tokio::spawn(lab.text("second"));
        let (here, there) = until(&endpoint, true, |detail| {
            let of = |cause| detail.exchanges.iter().find(|exchange| exchange.waits_for == cause).cloned();
            let (here, there) = (of(Cause::Places)?, of(Cause::Peer)?);
            (here.for_ms.is_some_and(|ms| ms >= 20) && there.for_ms.is_some_and(|ms| ms >= 20)).then_some((here, there))
        })
        .await;
        assert_eq!((here.xid, there.xid), (None, Some(0)), "one was sent");
        assert!(here.opened_here && there.opened_here);
        assert!(there.ends_in_ms.is_some_and(|ms| ms <= 30_000), "{there:?}");
        let detail = look(&endpoint, true).await.unwrap();
        assert_eq!(detail.sessions[0].places, 0);
        first.abort();
    });
}

#[test]
fn a_handler_that_hangs_is_named_here_and_its_peer_there() {
    run(async {
        let (server, _bench, events) = serve(Limits::default()).await;
        let endpoint = server.endpoint().to_string();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        tokio::spawn(lab.hang(1));
        events.started(1).await;
        let there = waits(&endpoint, true, Cause::Peer).await;
        assert_eq!(there.method.as_deref(), Some("hang"));
        let handler = handler_of(&endpoint).await;
        assert_eq!((handler.waits_for, handler.method.as_deref(), handler.opened_here), (Cause::Handler, Some("hang"), false));
        assert!(handler.for_ms.is_some_and(|ms| ms >= 20), "{handler:?}");
    });
}

/// What the server whose client `endpoint` is has to say of the only exchange.
async fn handler_of(endpoint: &str) -> ExchangeInfo {
    // Of the two ends the client's peer is known; the other is the one whose method is under way and was not opened there.
    let client = look(endpoint, true).await.unwrap().exchanges[0].clone();
    for _ in 0..1000 {
        let mut from = Some(0);
        while let Some(first) = from {
            let connections = inspect::connections(first).await;
            for known in connections.page.iter().filter(|known| !known.dialed && known.exchanges == 1) {
                let Some(detail) = inspect::connection(known.id, 0).await else { continue };
                if let [exchange] = &detail.exchanges[..]
                    && exchange.method == client.method
                    && exchange.for_ms.is_some_and(|ms| ms >= 20)
                {
                    return exchange.clone();
                }
            }
            from = connections.next;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no server handles {:?}", client.method);
}

#[test]
fn items_that_nobody_takes_and_items_that_nobody_sends_are_the_applications() {
    run(async {
        let (server, ..) = serve(Limits::default()).await;
        let endpoint = server.endpoint().to_string();
        let lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        let unread = lab.items(u64::MAX, 1000).await.unwrap();
        let found = until(&endpoint, true, |detail| {
            let exchange = detail.exchanges.first()?;
            (exchange.waits_for == Cause::Application && exchange.untaken > 100).then(|| exchange.clone())
        })
        .await;
        assert_eq!(found.method.as_deref(), Some("items"));
        let detail = look(&endpoint, true).await.unwrap();
        assert!(detail.connection.single_session && detail.sessions[0].held > 0, "{detail:?}");
        drop(unread);
        until(&endpoint, true, |detail| (detail.connection.exchanges == 0).then_some(())).await;
        tokio::spawn(lab.sum(stream::pending::<u64>()));
        until(&endpoint, true, |detail| {
            let exchange = detail.exchanges.first()?;
            (exchange.waits_for == Cause::Application && exchange.method.as_deref() == Some("sum")).then_some(())
        })
        .await;
    });
}

#[rpc::service]
trait Stubborn {
    async fn block(&self) -> rpc::Result<()>;
}

/// Lets the handler go, however the test ends.
struct LetGo(Arc<AtomicBool>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Blocks(Arc<AtomicBool>);

impl Stubborn for Blocks {
    async fn block(&self) -> rpc::Result<()> {
        while !self.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

#[test]
fn a_handler_that_holds_its_driver_is_named_and_holds_up_no_inspection() {
    run(async {
        let open = Arc::new(AtomicBool::new(false));
        let let_go = LetGo(Arc::clone(&open));
        // On a runtime of its own: a thread that is held may be the one that the timers of its runtime need.
        let (told, endpoint) = oneshot::channel();
        let (_end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            run_on(1, async {
                let server = Server::builder().service(StubbornServer::new(Blocks(open)));
                let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
                told.send(server.endpoint().clone()).unwrap();
                let _ = ended.await;
            });
        });
        let mut raw = Raw::client(&endpoint.await.unwrap()).await;
        let peer = format!("tcp://{}", raw.io.local_addr().unwrap());
        let ask = SessionOpen {
            service: "Stubborn".into(),
            fingerprint: StubbornClient::info().fingerprint,
            codecs: vec![1],
            windows: wide(),
            weight: 16,
        };
        let mut body = Vec::new();
        ask.write(&mut body);
        raw.write(&frame(session_head(kind::S_OPEN, 0, Some(Sid(0))), &body)).await;
        raw.next(kind::S_ACCEPT).await;
        raw.write(&self::open(0, 0, 0, flag::END, &args(&()))).await;
        let held = |detail: &ConnectionDetail| detail.connection.stall.filter(|stall| stall.cause == Cause::Handler);
        until(&peer, false, held).await;
        drop(let_go);
        raw.next(kind::DATA).await;
        until(&peer, false, |detail| detail.connection.stall.is_none().then_some(())).await;
    });
}

#[test]
fn what_is_seen_under_load_adds_up() {
    run(async {
        let (server, bench, _events) = serve(Limits::default()).await;
        let endpoint = server.endpoint().to_string();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let mut callers = Vec::new();
        for n in 0..8 {
            let lab: LabClient = connection.session().open().await.unwrap();
            let done = Arc::clone(&done);
            callers.push(tokio::spawn(async move {
                let mut calls = 0u64;
                while !done.load(Ordering::Relaxed) {
                    let (text, items) = tokio::join!(lab.text("load"), lab.items(20, 3000));
                    assert_eq!(text.unwrap(), "LOAD");
                    assert_eq!(items.unwrap().count().await, 20);
                    calls += 2;
                }
                assert_eq!(lab.total(stream::iter(vec![Bytes::from_static(b"bytes"); n])).await.unwrap(), 5 * n as u64);
                (lab, calls + 1)
            }));
        }
        for _ in 0..200 {
            let detail = look(&endpoint, true).await.expect("the connection is there");
            let info = &detail.connection;
            assert_eq!(info.waiting.iter().map(|waiting| waiting.exchanges).sum::<u64>(), info.exchanges);
            assert_eq!((info.sessions, detail.sessions.len()), (8, 8));
            assert!(info.exchanges <= 16, "{detail:#?}");
            let of_sessions: u64 = detail.sessions.iter().map(|session| session.exchanges).sum();
            // Sessions are looked at one after the other, and twice.
            assert!(of_sessions <= 16 && detail.left_out == 0, "{detail:#?}");
            assert!(detail.exchanges.iter().all(|exchange| exchange.method.is_some()));
        }
        done.store(true, Ordering::Relaxed);
        let mut made = 0;
        let mut labs = Vec::new();
        for caller in callers {
            let (lab, calls) = caller.await.unwrap();
            made += calls;
            labs.push(lab);
        }
        bench.idle().await;
        let calls = until(&endpoint, true, |detail| {
            let quiet = detail.connection.exchanges == 0 && detail.exchanges.is_empty();
            quiet.then(|| detail.sessions.iter().map(|session| session.calls).sum::<u64>())
        })
        .await;
        assert_eq!(calls, made, "every call was counted once");
    });
}

/// Sessions of the peer that has just connected, all pages of them.
async fn all_sessions(peer: &str) -> Vec<inspect::SessionInfo> {
    let id = until(peer, false, |detail| Some(detail.connection.id)).await;
    let (mut from, mut sessions) = (Some(0), Vec::new());
    while let Some(first) = from {
        let detail = inspect::connection(id, first).await.unwrap();
        assert!(detail.sessions.len() <= 256, "a page is bounded");
        sessions.extend(detail.sessions);
        from = detail.next;
    }
    sessions
}

#[test]
fn sessions_at_rest_are_counted_and_listed_by_the_page() {
    run(async {
        let (server, ..) = serve(Limits::default().sessions(1000)).await;
        let mut raw = Raw::client(server.endpoint()).await;
        let peer = format!("tcp://{}", raw.io.local_addr().unwrap());
        for n in 0..600 {
            raw.session(2 * n).await;
        }
        raw.write(&open(2 * 599, 0, method("hang"), flag::END, &args(&9u64))).await;
        let info = until(&peer, false, |detail| (detail.connection.exchanges == 1).then(|| detail.connection.clone())).await;
        assert_eq!((info.sessions, info.at_rest), (600, 599));
        let sessions = all_sessions(&peer).await;
        assert!(sessions.iter().map(|session| session.sid).eq((0..600).map(|n| 2 * n)), "each once and in order");
        let (last, others) = sessions.split_last().unwrap();
        assert_eq!((last.stage, last.exchanges, last.calls), (Stage::Open, 1, 1));
        for session in others {
            assert_eq!((session.stage, session.service.as_str(), session.codec.as_str()), (Stage::AtRest, "Lab", "postcard"));
            assert!(session.resting_bytes.is_some_and(|bytes| bytes < 100) && session.send_credit == wide().session);
        }
    });
}

#[test]
fn exchanges_and_connections_beyond_a_page_are_counted_and_left_out() {
    run(async {
        let (server, bench, _events) = serve(Limits::default().exchanges(2000)).await;
        let endpoint = server.endpoint().to_string();
        let lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        let calls: Vec<_> = (0..1100).map(|tag| tokio::spawn(lab.hang(tag).timeout(LONG))).collect();
        let detail = until(&endpoint, true, |detail| (detail.connection.exchanges == 1100).then(|| detail.clone())).await;
        assert_eq!((detail.exchanges.len(), detail.left_out, detail.sessions[0].exchanges), (1024, 76, 1100));
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        bench.idle().await;

        let (crowd, ..) = serve_at("mem://a crowd", Limits::default()).await;
        let at = crowd.endpoint().to_string();
        let mut labs: Vec<Connection> = Vec::new();
        for _ in 0..300 {
            labs.push(Connection::open(crowd.endpoint()).await.unwrap());
        }
        let (mut from, mut seen) = (Some(0), BTreeMap::new());
        while let Some(first) = from {
            let connections = inspect::connections(first).await;
            assert!(connections.page.len() <= 256 && connections.total >= 600, "{}", connections.total);
            for info in connections.page {
                assert!(seen.insert(info.id, info).is_none(), "each is on one page");
            }
            from = connections.next;
        }
        let of_crowd = |dialed: bool| seen.values().filter(|info| info.dialed == dialed && info.peer == at).count();
        assert_eq!(of_crowd(true), 300, "each is listed");
        let before = inspect::connections(0).await.total;
        drop(labs);
        crowd.shutdown().await;
        for _ in 0..5000 {
            if inspect::connections(u64::MAX).await.total + 600 <= before + 50 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("connections that have ended are listed");
    });
}

#[test]
fn the_inspector_is_a_service_as_any_other() {
    run(async {
        for at in ["mem://the inspected", "tcp://127.0.0.1:0"] {
            let (server, _bench, events) = serve_at(at, Limits::default()).await;
            let endpoint = server.endpoint().to_string();
            let connection = Connection::open(server.endpoint()).await.unwrap();
            let lab: LabClient = connection.session().open().await.unwrap();
            let inspector: InspectorClient = connection.session().open().await.unwrap();
            tokio::spawn(lab.hang(3));
            events.started(3).await;
            // The server tells of both ends, as they are in one process; and of the question itself.
            let id = until(&endpoint, true, |detail| Some(detail.connection.id)).await;
            let detail = inspector.connection(id, 0).await.unwrap().expect("it is there");
            assert_eq!((detail.connection.peer.as_str(), detail.connection.sessions), (endpoint.as_str(), 2));
            let mut methods: Vec<_> = detail.exchanges.iter().filter_map(|exchange| exchange.method.as_deref()).collect();
            methods.sort_unstable();
            assert_eq!(methods, ["connection", "hang"]);
            assert_eq!(inspector.connection(u64::MAX, 0).await.unwrap(), None);
            let page = inspector.connections(id).await.unwrap();
            assert_eq!(page.page.first().map(|info| info.id), Some(id));
            let mut watched = inspector.watch(id, 1).await.unwrap();
            for _ in 0..2 {
                let seen = soon("it is told again", watched.next()).await.unwrap().unwrap();
                assert!(seen.page.iter().any(|info| info.id == id && info.exchanges >= 2), "{seen:?}");
            }
        }
    });
}
