//! Limits that only a whole server has: what a peer can make it hold, and who else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use rpc::{Allowance, Budget, Code, Connection, ConnectionError, FaultKind, Limits, OpenError, Server};
use rpc_core::id::{Sid, Xid};
use rpc_core::wire::frame::{Mode, Open, Reset, exchange_head, flag, kind};
use rpc_core::wire::hello::Hello;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{HANG, eventually, run, soon};
use crate::lab::{Bench, Events, LabClient, LabServer};
use crate::raw::{Raw, args, frame, greeting, hello, listener, method, open, session_open};

async fn serve(limits: Limits) -> (Server, Bench, Events) {
    let (bench, events) = Bench::new();
    let server = Server::builder().service(LabServer::new(bench.clone())).limits(limits);
    (server.listen("tcp://127.0.0.1:0").await.unwrap(), bench, events)
}

/// Sessions of a service that nobody offers, one after the other: each is answered, and the answer is longer.
fn provocations(first: u64) -> Vec<u8> {
    (first..first + 256).flat_map(|n| session_open(2 * n, "No such service as this")).collect()
}

/// Rejections are not the limit here.
const UNCOUNTED: Allowance = Allowance::new(1 << 31, 0);

/// More than what the buffers of two sockets and the limits of the server hold.
const TOO_MUCH: u64 = 64 << 20;

/// X1: a peer that provokes replies and takes none is not read any more; when it takes them, it is read again.
#[test]
fn a_peer_that_takes_no_replies_is_not_read_and_holds_nobody_up() {
    run(async {
        let (server, ..) = serve(Limits::default().write_stall(HANG).errors(UNCOUNTED)).await;
        let victim: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        let (mut answers, mut questions) = Raw::client(server.endpoint()).await.io.into_split();
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let flood = tokio::spawn(async move {
            for first in (0..).step_by(256) {
                let bytes = provocations(first);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let Ok(n) = questions.write(rest).await else { return };
                    count.fetch_add(n as u64, Ordering::Relaxed);
                    rest = &rest[n..];
                }
            }
        });
        let stands_still = |taken: Arc<AtomicU64>| async move {
            let (mut before, mut looks) = (0, 0);
            while looks < 50 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let now = taken.load(Ordering::Relaxed);
                (before, looks) = (now, if now == before { looks + 1 } else { 0 });
                assert!(now < TOO_MUCH, "the server goes on reading: {now} bytes");
            }
            before
        };
        let stopped = soon("the server stops reading", stands_still(Arc::clone(&taken))).await;
        assert_eq!(victim.text("still here").await.unwrap(), "STILL HERE");
        // The replies are there, in order and whole, and with room for further ones the server reads on.
        let mut bytes = vec![0; 64 * 1024];
        let take = async {
            while taken.load(Ordering::Relaxed) < stopped + (1 << 20) {
                assert!(answers.read(&mut bytes).await.unwrap() > 0, "the connection goes on");
            }
        };
        soon("the server reads again", take).await;
        soon("and stops again", stands_still(taken)).await;
        assert_eq!(victim.text("still here").await.unwrap(), "STILL HERE");
        flood.abort();
    });
}

#[test]
fn a_peer_that_never_takes_its_replies_is_cut_off() {
    run(async {
        let (server, ..) = serve(Limits::default().write_stall(Duration::from_millis(300)).errors(UNCOUNTED)).await;
        let victim: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        let mut raw = Raw::client(server.endpoint()).await;
        let flood = async {
            for first in (0..).step_by(256) {
                if raw.io.write_all(&provocations(first)).await.is_err() {
                    return first * provocations(0).len() as u64 / 256;
                }
            }
            unreachable!("the flood does not end by itself")
        };
        let sent = soon("the peer is cut off", flood).await;
        assert!(sent < TOO_MUCH, "{sent} bytes were read of a peer that reads none");
        assert_eq!(victim.text("still here").await.unwrap(), "STILL HERE");
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_one_to_end() {
    run(async {
        let (server, ..) = serve(Limits::default().connections(2)).await;
        // The first is below the limit, the second at it.
        let first = Connection::open(server.endpoint()).await.unwrap();
        let second: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        let endpoint = server.endpoint().to_string();
        let third = tokio::spawn(async move { rpc::connect::<LabClient>(&endpoint).await });
        for _ in 0..100 {
            assert_eq!(second.text("mine").await.unwrap(), "MINE");
        }
        assert!(!third.is_finished(), "it waits to be accepted");
        first.close().await;
        let third = soon("the third has its turn", third).await.unwrap().unwrap();
        assert_eq!(third.text("mine too").await.unwrap(), "MINE TOO");
        // A server that is full still ends.
        soon("the server ends", server.shutdown()).await;
    });
}

#[test]
fn handlers_at_the_limit_run_and_a_call_beyond_is_refused_unstarted() {
    run(async {
        let (server, bench, events) = serve(Limits::default().handlers(3).exchanges(2)).await;
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let (one, two): (LabClient, LabClient) =
            (connection.session().open().await.unwrap(), connection.session().open().await.unwrap());
        let mut hanging = Vec::new();
        for (tag, lab) in [&one, &one, &two].into_iter().enumerate() {
            assert_eq!(two.text("room is left").await.unwrap(), "ROOM IS LEFT");
            hanging.push(tokio::spawn(lab.hang(tag as u64)));
            events.started(tag as u64).await;
        }
        let calls = bench.calls();
        let error = two.hang(3).await.unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind(), fault.code(), fault.may_have_run()), (FaultKind::Overloaded, Code::REFUSED, false), "{error}");
        assert_eq!(bench.calls(), calls, "nothing was started");
        let elsewhere: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        assert_eq!(elsewhere.text("others").await.unwrap(), "OTHERS");
        hanging.remove(0).abort();
        events.dropped(0).await;
        // The handler is gone before its place is.
        eventually("the handler is gone", || bench.live() == 2).await;
        let again = async {
            while two.text("again").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        soon("there is room again", again).await;
    });
}

#[test]
fn what_is_under_way_when_the_drain_is_over_is_cut_off() {
    run(async {
        // With time enough, and without.
        for (within, cut) in [(HANG, 0), (Duration::from_millis(100), 1)] {
            let (server, _, events) = serve(Limits::default().drain(within)).await;
            let lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
            let call = tokio::spawn(lab.hang(0));
            events.started(0).await;
            if cut == 0 {
                call.abort();
                events.dropped(0).await;
            }
            let drained = soon("the drain is over", server.drain_on(std::future::ready(()))).await;
            assert_eq!((drained.connections, drained.cut), (1, cut));
            if cut == 1 {
                let error = soon("the call is over", call).await.unwrap().unwrap_err();
                assert!(error.fault().unwrap().may_have_run(), "{error}");
            }
        }
    });
}

/// The time of a call runs from when it was made, whether or not its bytes can leave.
#[test]
fn a_call_to_a_peer_that_reads_nothing_keeps_its_deadline() {
    run(async {
        let (listener, endpoint) = listener().await;
        let silent = tokio::spawn(async move {
            let mut raw = Raw::server(&listener, |hello| hello.connection_window = 1 << 40).await;
            raw.accept_session().await;
            raw
        });
        let patient = Limits::default().write_stall(HANG);
        let connection = Connection::builder().limits(patient).open(endpoint).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let raw = soon("the peer has its session", silent).await.unwrap();
        // 64 MB are more than the buffers of a socket hold.
        let filling: Vec<_> = (0..16).map(|_| tokio::spawn(lab.size(vec![0; 4_000_000].into()))).collect();
        for _ in 0..10 {
            let error = soon("the deadline comes", lab.text("late").timeout(Duration::from_millis(50))).await.unwrap_err();
            assert_eq!(error.fault().unwrap().kind(), FaultKind::Deadline, "{error}");
        }
        filling.iter().for_each(|call| call.abort());
        drop(raw);
    });
}

#[test]
fn an_answer_that_its_peer_lets_nobody_write_keeps_the_deadline_of_its_call() {
    run(async {
        let (server, _, _) = serve(Limits::default()).await;
        let mut raw = Raw::connect(server.endpoint()).await;
        raw.write(&greeting(kind::HELLO, &Hello { connection_window: 2000, ..hello(Mode::Multi) })).await;
        raw.preface().await;
        raw.next(kind::HELLO_ACK).await;
        raw.session(0).await;
        let mut head = exchange_head(kind::OPEN, flag::EOM | flag::END | flag::EXT, Some(Sid(0)), Xid(0));
        Open { method: method("zeros"), timeout_ms: Some(100), total: None }.write(&mut head);
        raw.write(&frame(head, &args(&(100_000u64,)))).await;
        let reset = loop {
            let frame = raw.frame().await.expect("the connection goes on");
            if frame.kind == kind::RESET {
                break frame;
            }
        };
        let reset = Reset::read(reset.body(2)).unwrap();
        assert_eq!(reset.reason.code, Code::DEADLINE, "{reset:?}");
    });
}

#[test]
fn a_server_that_holds_much_refuses_sessions_and_then_connections_until_it_holds_less() {
    run(async {
        const ALL: u64 = 100 << 20;
        let budget = Budget::new(ALL);
        let server = Server::builder().service(LabServer::new(Bench::new().0)).budget(budget.clone());
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let mut others = budget.share();
        // What the connection holds is little beside a hundredth.
        others.set(ALL / 100 * 84);
        let _below: LabClient = connection.session().open().await.unwrap();
        others.set(ALL / 100 * 85);
        match connection.session().open::<LabClient>().await {
            Err(OpenError::Rejected { reason, .. }) => assert_eq!(reason.code, Code::REFUSED, "{reason}"),
            other => panic!("{other:?}"),
        }
        // Connections are taken still, and sessions that there are go on.
        let _further = Connection::open(server.endpoint()).await.unwrap();
        others.set(ALL / 100 * 95);
        // One may have been waited for already.
        let _last = Connection::open(server.endpoint()).await.unwrap();
        let endpoint = server.endpoint().to_string();
        let waiting = tokio::spawn(async move { rpc::connect::<LabClient>(&endpoint).await });
        for _ in 0..100 {
            assert_eq!(lab.text("mine").await.unwrap(), "MINE");
        }
        assert!(!waiting.is_finished(), "it waits to be accepted");
        drop(others);
        let waiting = soon("there is room again", waiting).await.unwrap().unwrap();
        assert_eq!(waiting.text("mine too").await.unwrap(), "MINE TOO");
    });
}

#[test]
fn what_nobody_takes_is_counted_in_both_directions_and_not_for_longer_than_it_is_there() {
    run(async {
        let (server, _, events) = serve(Limits::default().write_stall(HANG)).await;
        let held = || server.budget().held();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let base = held();
        assert!(base > 0, "a connection counts for something");
        // Items that the handler does not read.
        let items = stream::iter((0..10).map(|_| Bytes::from(vec![0; 20_000]))).chain(stream::pending());
        let call = tokio::spawn(lab.hold(7, items));
        events.started(7).await;
        eventually("they are counted", || held() >= base + 200_000).await;
        call.abort();
        events.dropped(7).await;
        eventually("they are gone", || held() < base + 200_000).await;
        // Answers that the peer does not take.
        let mut raw = Raw::client(server.endpoint()).await;
        raw.session(0).await;
        for n in 0..20 {
            raw.write(&open(0, 2 * n, method("zeros"), flag::END, &args(&(4_000_000u64,)))).await;
        }
        eventually("they are counted", || held() >= 60_000_000).await;
        drop((raw, connection, lab));
        eventually("nothing is left", || held() == 0).await;
    });
}

#[test]
fn who_takes_no_answers_is_given_no_more_and_is_served_again_when_he_does() {
    run(async {
        let (server, _, _) = serve(Limits::default().write_stall(HANG).unsent(8 << 20)).await;
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let neighbour: LabClient = connection.session().open().await.unwrap();
        let mut raw = Raw::client(server.endpoint()).await;
        raw.session(0).await;
        // Twice the limit, at once and then one by one.
        let call = |n: u64| open(0, 2 * n, method("zeros"), flag::END, &args(&(4_000_000u64,)));
        for n in 0..4 {
            raw.write(&call(n)).await;
        }
        let mut calls = 4;
        let held = || server.budget().held();
        eventually("answers wait", || held() >= 8_000_000).await;
        while calls < 100 {
            raw.write(&call(calls)).await;
            calls += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(held() < 20_000_000, "{} bytes are held", held());
        assert_eq!(neighbour.text("mine").await.unwrap(), "MINE", "others are served");
        // He takes what there is, and is served again.
        let (mut answered, mut refused) = (0, 0);
        while answered + refused < calls {
            let frame = raw.frame().await.expect("the connection goes on");
            answered += u64::from(frame.kind == kind::DATA && frame.flags & flag::END != 0);
            if frame.kind == kind::RESET {
                assert_eq!(Reset::read(frame.body(2)).unwrap().reason.code, Code::REFUSED);
                refused += 1;
            }
        }
        assert!(refused >= 90 && answered >= 2, "{refused} refused, {answered} answered");
        eventually("nothing waits any more", || held() < 4_000_000).await;
        raw.write(&call(calls)).await;
        let answer = raw.next(kind::DATA).await;
        assert!(!answer.body(2).is_empty());
    });
}

#[test]
fn a_server_goes_away_from_a_connection_without_sessions_and_from_no_other() {
    run(async {
        let short = Duration::from_millis(150);
        let (server, ..) = serve(Limits::default().idle(short).keepalive_interval(Duration::from_millis(100))).await;
        let used: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        let unused = Connection::open(server.endpoint()).await.unwrap();
        let reason = soon("the server goes away", unused.closed()).await;
        assert!(matches!(&reason, ConnectionError::ClosedByPeer(why) if why.code == Code::NO_ERROR), "{reason}");
        // One whose session has closed counts from then on.
        let let_go = Connection::open(server.endpoint()).await.unwrap();
        let lab: LabClient = let_go.session().open().await.unwrap();
        tokio::time::sleep(2 * short).await;
        assert_eq!(lab.text("still here").await.unwrap(), "STILL HERE");
        drop(lab);
        soon("the server goes away", let_go.closed()).await;
        assert_eq!(used.text("still here").await.unwrap(), "STILL HERE");
    });
}
