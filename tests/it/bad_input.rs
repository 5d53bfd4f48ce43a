//! Peers that break the rules, beside a victim on the same server that goes on working.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use rpc::__private::Client;
use rpc::{Code, Connection, ConnectionError, FaultKind, Limits, OpenError, Server};
use rpc_core::id::{Sid, Xid};
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Beside, Mode, exchange_head, flag, kind, session_head};
use rpc_core::wire::hello::PREFACE;
use tokio::io::AsyncWriteExt;

use crate::harness::{eventually, limits, run, soon};
use crate::lab::{Bench, Events, LONG, LabClient, LabServer, pattern};
use crate::proxy::{Damage, Proxy, Way};
use crate::raw::{Raw, args, data, frame, greeting, hello, listener, method, open, session_open};

/// A server with a client that has nothing to do with what goes wrong.
struct Scene {
    server: Server,
    bench: Bench,
    events: Events,
    victim: LabClient,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let (bench, events) = Bench::new();
        let server = Server::builder().service(LabServer::new(bench.clone())).limits(limits(change));
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let victim = rpc::connect(server.endpoint()).await.unwrap();
        Self { server, bench, events, victim }
    }

    /// A peer that has shaken hands and has session 0.
    async fn raw(&self) -> Raw {
        let mut raw = Raw::client(self.server.endpoint()).await;
        raw.session(0).await;
        raw
    }

    async fn victim_works(&self) {
        assert_eq!(self.victim.text("still here").await.unwrap(), "STILL HERE");
        assert_eq!(self.victim.sum(stream::iter(0..10)).await.unwrap(), 45);
        self.bench.idle().await;
    }
}

fn default_limits(_: &mut Limits) {}

/// A session of the peer still answers.
async fn session_works(raw: &mut Raw, sid: u64, xid: u64) {
    raw.write(&open(sid, xid, method("after"), flag::END, &args(&(0u32,)))).await;
    assert_eq!(raw.next(kind::DATA).await.body(2), args(&0u32));
}

#[test]
fn strangers_are_sent_away() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let strangers: [&[u8]; 8] = [
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            &[0xFF; 5000],
            &[0xF5, b'R', b'P', b'C', 0x0D, 0x0A, 0x1A, 2],
            &[0xF5, b'R', b'P', b'X'],
        ];
        for stranger in strangers {
            let mut raw = Raw::connect(scene.server.endpoint()).await;
            raw.write(stranger).await;
            assert_eq!(raw.rest().await, b"", "nothing is said to whom speaks another protocol");
        }
        scene.victim_works().await;
    });
}

#[test]
fn a_client_that_dials_something_else_is_told_what_it_seems_to_be() {
    run(async {
        let others: [(&[u8], &str); 4] = [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP request or answer"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH banner"),
            (b"220 smtp.example ESMTP\r\n", "an unknown protocol"),
            (&[0xF5, b'R', b'P', b'C', 0x0D, 0x0A, 0x1A, 9], "another major version of this protocol"),
        ];
        for (answer, expected) in others {
            let (listener, endpoint) = listener().await;
            let server = tokio::spawn(async move {
                let (mut io, _) = listener.accept().await.unwrap();
                io.write_all(answer).await.unwrap();
                Raw { io }.rest().await
            });
            match soon("connect ends", rpc::connect::<LabClient>(&endpoint)).await {
                Err(OpenError::Connection(ConnectionError::NotRpc { seen })) => assert_eq!(seen, expected),
                other => panic!("{other:?}"),
            }
            server.await.unwrap();
        }
    });
}

#[test]
fn a_client_survives_servers_that_hang_up_echo_or_answer_nonsense() {
    run(async {
        let nonsense = frame(HeadBuf::new(kind::HELLO_ACK, 0), b"\xFF\xFF\xFF");
        let answers =
            [Vec::new(), PREFACE.to_vec(), greeting(kind::HELLO, &hello(Mode::Single)), [&PREFACE[..], &nonsense].concat()];
        for answer in answers {
            let (listener, endpoint) = listener().await;
            let server = tokio::spawn(async move {
                let (mut io, _) = listener.accept().await.unwrap();
                io.write_all(&answer).await.unwrap();
            });
            let error = soon("connect ends", rpc::connect::<LabClient>(&endpoint)).await.unwrap_err();
            assert!(matches!(error, OpenError::Connection(_)), "{error}");
            server.await.unwrap();
        }
    });
}

#[test]
fn a_frame_over_its_limit_closes_the_connection() {
    run(async {
        let scene = Scene::new(|limits| limits.max_frame = 4096).await;
        for (head, code) in [([0xA1, 0x01, 0x10, 0x00, 0], Code::TOO_LARGE), ([0xA1, 0, 0, 0, 0], Code::PROTOCOL)] {
            let mut raw = scene.raw().await;
            raw.write(&head).await;
            assert_eq!(raw.closed().await.expect("a reason is given").code, code);
        }
        // The same before the handshake is over, where a frame is worth 4 KiB.
        let mut raw = Raw::connect(scene.server.endpoint()).await;
        raw.write(&[&PREFACE[..], &[kind::HELLO, 0xFF, 0xFF, 0xFF, 0]].concat()).await;
        assert_eq!(raw.rest().await, b"");
        scene.victim_works().await;
    });
}

#[test]
fn every_frame_kind_that_is_not_known_is_refused_or_passed_over_by_its_bit() {
    run(async {
        let scene = Scene::new(default_limits).await;
        for ignorable in [0x4F, 0x5F, 0x7F, 0xFF] {
            let mut raw = scene.raw().await;
            raw.write(&frame(exchange_head(ignorable, 0, Some(Sid(0)), Xid(0)), b"whatever")).await;
            session_works(&mut raw, 0, 0).await;
        }
        for unknown in [0x0F, 0x8F] {
            let mut raw = scene.raw().await;
            raw.write(&frame(HeadBuf::new(unknown, 0), b"whatever")).await;
            assert_eq!(raw.closed().await.unwrap().code, Code::UNKNOWN_FRAME);
        }
        for unknown in [0x1F, 0x9F, 0x3F, 0xBF] {
            let mut raw = scene.raw().await;
            raw.write(&frame(exchange_head(unknown, 0, Some(Sid(0)), Xid(0)), b"whatever")).await;
            assert_eq!(raw.aborted().await, Code::UNKNOWN_FRAME);
            raw.session(2).await;
            session_works(&mut raw, 2, 0).await;
        }
        scene.victim_works().await;
    });
}

#[rpc::service]
trait Elsewhere {
    async fn anything(&self) -> rpc::Result<()>;
}

#[test]
fn an_unknown_service_is_rejected_with_the_names_that_there_are() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let connection = Connection::open(scene.server.endpoint()).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let hanging = tokio::spawn(lab.hang(1));
        scene.events.started(1).await;
        match connection.session().open::<ElsewhereClient>().await {
            Err(OpenError::Rejected { reason, .. }) => {
                assert_eq!(reason.code, Code::UNKNOWN_SERVICE);
                assert_eq!(reason.text, "no service is named `Elsewhere` here; there is: Lab");
            }
            other => panic!("{other:?}"),
        }
        assert!(!hanging.is_finished(), "the other session goes on");
        assert_eq!(lab.text("a").await.unwrap(), "A");
        hanging.abort();
        scene.victim_works().await;
    });
}

#[test]
fn an_unknown_method_number_fails_its_call_alone() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let mut raw = scene.raw().await;
        for (n, number) in [1000, u64::from(u32::MAX), u64::from(u32::MAX) + 1, (1 << 62) - 1].into_iter().enumerate() {
            raw.write(&open(0, 4 * n as u64, number, flag::END, &[])).await;
            assert_eq!(raw.reset().await, Code::UNKNOWN_METHOD);
            session_works(&mut raw, 0, 4 * n as u64 + 2).await;
        }
        scene.victim_works().await;
    });
}

#[test]
fn a_call_of_another_shape_than_its_method_is_refused() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let mut raw = scene.raw().await;
        // A stream to a method that takes none, none to one that takes one, and a one-way call of one that answers.
        raw.write(&open(0, 0, method("after"), 0, &args(&(0u32,)))).await;
        assert_eq!(raw.reset().await, Code::BAD_ARGUMENTS);
        raw.write(&open(0, 2, method("sum"), flag::END, &args(&()))).await;
        assert_eq!(raw.reset().await, Code::BAD_ARGUMENTS);
        raw.write(&open(0, 4, method("after"), flag::END | flag::ONEWAY, &args(&(0u32,)))).await;
        session_works(&mut raw, 0, 6).await;
        scene.victim_works().await;
    });
}

mod old {
    #[rpc::service]
    pub(crate) trait Store {
        async fn get(&self, key: &str) -> rpc::Result<u64>;
        async fn put(&self, key: &str, value: u64) -> rpc::Result<()>;
    }

    pub(crate) struct Service;

    impl Store for Service {
        async fn get(&self, key: &str) -> rpc::Result<u64> {
            Ok(key.len() as u64)
        }

        async fn put(&self, _: &str, _: u64) -> rpc::Result<()> {
            Ok(())
        }
    }
}

mod new {
    /// The same service, later: other methods around those that stayed, and `put` takes another type.
    #[rpc::service]
    pub(crate) trait Store {
        async fn all(&self) -> rpc::Result<Vec<String>>;
        async fn get(&self, key: &str) -> rpc::Result<u64>;
        async fn put(&self, key: &str, value: &str) -> rpc::Result<()>;
        async fn watch(&self, key: &str) -> rpc::Result<rpc::Streaming<u64>>;
        async fn zap(&self) -> rpc::Result<()>;
    }
}

#[test]
fn a_newer_client_calls_what_an_older_server_has() {
    run(async {
        let server = Server::builder().service(old::StoreServer::new(old::Service));
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let store: new::StoreClient = rpc::connect(server.endpoint()).await.unwrap();
        assert_eq!(store.get("four").await.unwrap(), 4);
        let absent = [store.all().await.unwrap_err(), store.watch("k").await.unwrap_err(), store.zap().await.unwrap_err()];
        for error in absent {
            let fault = error.fault().unwrap();
            assert_eq!(
                (fault.kind(), fault.code(), fault.may_have_run()),
                (FaultKind::Incompatible, Code::UNKNOWN_METHOD, false)
            );
        }
        assert_eq!(store.get("four").await.unwrap(), 4);
    });
}

#[test]
fn arguments_of_another_type_fail_at_that_call_alone() {
    run(async {
        let server = Server::builder().service(old::StoreServer::new(old::Service));
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let store: new::StoreClient = rpc::connect(server.endpoint()).await.unwrap();
        let error = store.put("key", "no number").await.unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Incompatible, false), "{error}");
        assert_eq!(store.get("four").await.unwrap(), 4);
    });
}

#[test]
fn messages_over_the_limit_fail_alone_and_say_so() {
    run(async {
        let scene = Scene::new(|limits| limits.max_message = 100_000).await;
        let small = limits(|limits| limits.max_message = 50_000);
        let connection = Connection::builder().limits(small).open(scene.server.endpoint()).await.unwrap();
        let lab: LabClient = connection.session().open().await.unwrap();
        let neighbour = tokio::spawn(lab.hang(1));
        scene.events.started(1).await;

        let error = lab.size(vec![0; 100_001].into()).await.unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::TooLarge, false), "{error}");
        assert_eq!(lab.size(vec![0; 90_000].into()).await.unwrap(), 90_000);

        let error = lab.zeros(50_001).await.unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::TooLarge, true), "{error}");
        assert_eq!(lab.zeros(40_000).await.unwrap().len(), 40_000);

        let error = lab.find(&"k".repeat(60_000)).await.unwrap_err();
        assert_eq!(error.fault().map(rpc::Fault::kind), Some(FaultKind::TooLarge), "{error}");

        let mut items = lab.items(3, 60_000).await.unwrap();
        let error = soon("an item that is too large ends the stream", items.next()).await.unwrap().unwrap_err();
        assert_eq!(error.fault().unwrap().kind(), FaultKind::TooLarge, "{error}");

        let large = stream::iter([Bytes::from_static(b"fits"), Bytes::from(vec![0; 110_000])]);
        let error = soon("an item that is too large ends the call", lab.total(large)).await.unwrap_err();
        assert_eq!(error.fault().unwrap().kind(), FaultKind::TooLarge, "{error}");

        assert!(!neighbour.is_finished(), "the session goes on");
        neighbour.abort();
        scene.victim_works().await;
    });
}

#[test]
fn a_flood_of_pings_is_answered_with_calm_down() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let mut raw = scene.raw().await;
        let ping = frame(HeadBuf::new(kind::PING, 0), &[7; 8]);
        raw.write(&ping).await;
        assert_eq!(raw.next(kind::PONG).await.rest, [7; 8]);
        raw.write(&ping.repeat(10_000)).await;
        assert_eq!(raw.closed().await.expect("a reason is given").code, Code::CALM);
        let mut raw = scene.raw().await;
        raw.write(&frame(HeadBuf::new(kind::PING, 0), b"short")).await;
        assert_eq!(raw.closed().await.expect("a reason is given").code, Code::PROTOCOL);
        scene.victim_works().await;
    });
}

#[test]
fn calls_beyond_those_granted_end_the_session() {
    run(async {
        let scene = Scene::new(|limits| limits.exchanges = 4).await;
        let mut raw = scene.raw().await;
        for n in 0..5u64 {
            raw.write(&open(0, 2 * n, method("hang"), flag::END, &args(&(n,)))).await;
        }
        assert_eq!(raw.aborted().await, Code::FLOW);
        for n in 0..4 {
            scene.events.dropped(n).await;
        }
        raw.session(2).await;
        session_works(&mut raw, 2, 0).await;
        scene.victim_works().await;
    });
}

#[test]
fn bytes_beyond_the_credit_end_what_the_credit_was_for() {
    run(async {
        let scene = Scene::new(|limits| {
            limits.stream_window = 1024;
            limits.session_window = 4096;
            limits.connection_window = 8192;
        })
        .await;
        // A stream's credit: the exchange ends.
        let mut raw = scene.raw().await;
        raw.write(&open(0, 0, method("hold"), 0, &args(&(1u64,)))).await;
        scene.events.started(1).await;
        let item = args(&Bytes::from(vec![0; 500]));
        raw.write(&data(0, 0, flag::EOM, &item).repeat(3)).await;
        assert_eq!(raw.reset().await, Code::FLOW);
        session_works(&mut raw, 0, 2).await;
        drop(raw);
        // A session's: the session ends.
        let mut raw = scene.raw().await;
        for n in 0..8u64 {
            raw.write(&open(0, 2 * n, method("hold"), 0, &args(&(10 + n,)))).await;
            raw.write(&data(0, 2 * n, flag::EOM, &args(&Bytes::from(vec![0; 700])))).await;
        }
        assert_eq!(raw.aborted().await, Code::FLOW);
        drop(raw);
        // A connection's: the connection ends.
        let mut raw = Raw::client(scene.server.endpoint()).await;
        // In one write: credit is given again for what was read before the rest comes.
        let mut bytes = Vec::new();
        for sid in 0..6u64 {
            bytes.extend(session_open(2 * sid, "Lab"));
            for n in 0..4u64 {
                bytes.extend(open(2 * sid, 2 * n, method("hold"), 0, &args(&(100 + n,))));
                bytes.extend(data(2 * sid, 2 * n, flag::EOM, &args(&Bytes::from(vec![0; 700]))));
            }
        }
        raw.write(&bytes).await;
        assert_eq!(raw.closed().await.expect("a reason is given").code, Code::FLOW);
        scene.victim_works().await;
    });
}

#[test]
fn the_handler_of_a_call_that_overran_its_credit_is_stopped() {
    run(async {
        let scene = Scene::new(|limits| limits.stream_window = 1024).await;
        let mut raw = scene.raw().await;
        raw.write(&open(0, 0, method("hold"), 0, &args(&(1u64,)))).await;
        scene.events.started(1).await;
        raw.write(&data(0, 0, flag::EOM, &args(&Bytes::from(vec![0; 500]))).repeat(3)).await;
        assert_eq!(raw.reset().await, Code::FLOW);
        // Nobody can have its answer any more.
        scene.events.dropped(1).await;
        scene.victim_works().await;
    });
}

#[test]
fn frames_out_of_place_end_the_session_or_the_connection() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let sid = Some(Sid(0));
        let behind_its_end = [open(0, 0, method("hang"), flag::END, &args(&(1u64,))), data(0, 0, flag::EOM, b"more")].concat();
        let cases = [
            ("DATA behind END", behind_its_end, Code::PROTOCOL),
            ("DATA of an exchange that never was", data(0, 8, flag::EOM, b"x"), Code::PROTOCOL),
            ("OPEN that leaves a gap", open(0, 2, method("after"), flag::END, &args(&(0u32,))), Code::PROTOCOL),
            ("OPEN with the other side's number", open(0, 1, method("after"), flag::END, &args(&(0u32,))), Code::PROTOCOL),
            ("ACCEPT of nothing", frame(exchange_head(kind::ACCEPT, 0, sid, Xid(1)), &[]), Code::PROTOCOL),
            ("RESET of nothing", frame(exchange_head(kind::RESET, 0, sid, Xid(0)), &[0, 7]), Code::PROTOCOL),
            ("CANCEL of the future", frame(exchange_head(kind::CANCEL, 0, sid, Xid(6)), &[7]), Code::PROTOCOL),
            ("ACK of what was not sent", frame(session_head(kind::ACK, 0, sid), &[9, 9]), Code::SEQ_DIVERGED),
            ("an empty MAX_SESSION", frame(session_head(kind::MAX_SESSION, 0, sid), &[]), Code::PROTOCOL),
        ];
        for (what, bytes, code) in cases {
            let mut raw = scene.raw().await;
            raw.write(&bytes).await;
            assert_eq!(raw.aborted().await, code, "{what}");
            raw.session(2).await;
            session_works(&mut raw, 2, 0).await;
        }
        let mut own_hello = Vec::new();
        hello(Mode::Multi).write(&mut own_hello);
        let whole = [
            ("a second HELLO", frame(HeadBuf::new(kind::HELLO, 0), &own_hello)),
            ("HELLO_ACK from a client", frame(HeadBuf::new(kind::HELLO_ACK, 0), &own_hello)),
            ("a second preface", PREFACE.to_vec()),
            ("a session that leaves a gap", session_open(8, "Lab")),
            ("a session with the server's number", session_open(1, "Lab")),
            ("S_OPEN of a session that is open", session_open(0, "Lab")),
            ("a frame of a session that never was", data(6, 0, flag::EOM, b"x")),
            ("S_ACCEPT of nothing", frame(session_head(kind::S_ACCEPT, 0, Some(Sid(1))), &[])),
            ("a frame that ends in its id", vec![0xA1, 2, 0, 0, 0, 0xC0]),
            ("an empty MAX_CONN_DATA", frame(HeadBuf::new(kind::MAX_CONN_DATA, 0), &[])),
        ];
        for (what, bytes) in whole {
            let mut raw = scene.raw().await;
            raw.write(&bytes).await;
            let reason = raw.closed().await.unwrap_or_else(|| panic!("{what}: no reason is given"));
            assert_ne!(reason.code, Code::NO_ERROR, "{what}");
        }
        scene.victim_works().await;
    });
}

#[test]
fn silence_during_the_handshake_is_not_waited_for() {
    run(async {
        let scene = Scene::new(|limits| limits.handshake = Duration::from_millis(50)).await;
        let whole = greeting(kind::HELLO, &hello(Mode::Multi));
        for sent in [0, 1, PREFACE.len(), whole.len() - 1] {
            let mut raw = Raw::connect(scene.server.endpoint()).await;
            raw.write(&whole[..sent]).await;
            assert_eq!(raw.rest().await, b"", "{sent} bytes were sent");
        }
        // Nor is a trickle, however long it goes on.
        let mut raw = Raw::connect(scene.server.endpoint()).await;
        let trickle = async {
            for byte in whole[..whole.len() - 1].iter().cycle() {
                if raw.io.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the trickle is cut off", trickle).await;
        scene.victim_works().await;
        // A server that accepts and says nothing is left just so.
        let (listener, endpoint) = listener().await;
        let patience = limits(|limits| limits.handshake = Duration::from_millis(50));
        let error = soon("open ends", Connection::builder().limits(patience).open(&endpoint)).await.unwrap_err();
        assert!(matches!(error, OpenError::Connection(ConnectionError::Handshake)), "{error}");
        drop(listener);
    });
}

#[test]
fn a_message_whose_length_is_a_lie_takes_no_memory_and_fails_alone() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let mut raw = scene.raw().await;
        for (n, total) in [5 << 20, 1 << 40, (1 << 62) - 1].into_iter().enumerate() {
            let mut head = exchange_head(kind::OPEN, 0, Some(Sid(0)), Xid(4 * n as u64));
            rpc_core::wire::frame::Open { method: method("size"), timeout_ms: None, total: Some(total) }.write(&mut head);
            raw.write(&frame(head, b"a few bytes")).await;
            assert_eq!(raw.reset().await, Code::TOO_LARGE, "a message of {total} bytes");
            session_works(&mut raw, 0, 4 * n as u64 + 2).await;
        }
        scene.victim_works().await;
    });
}

#[test]
fn metadata_over_the_limits_or_out_of_form_fail_alone() {
    run(async {
        let scene = Scene::new(|limits| (limits.metadata_bytes, limits.metadata_entries) = (100, 3)).await;
        let mut raw = scene.raw().await;
        let pair = |key: &str, size: usize| [&[key.len() as u8][..], key.as_bytes(), &[size as u8], &vec![7; size]].concat();
        let pairs = |keys: &[&str]| keys.iter().flat_map(|key| pair(key, 0)).collect::<Vec<_>>();
        let cases = [
            ("a byte less than the limit", [pair("a", 33), pair("b", 60)].concat(), None),
            ("as much as the limit", [pair("a", 34), pair("b", 60)].concat(), None),
            ("a byte more than the limit", [pair("a", 35), pair("b", 60)].concat(), Some(Code::TOO_LARGE)),
            ("a key less than the limit", pairs(&["a", "b"]), None),
            ("as many keys as the limit", pairs(&["a", "b", "c"]), None),
            ("a key more than the limit", pairs(&["a", "b", "c", "d"]), Some(Code::TOO_LARGE)),
            ("a key that stands twice", pairs(&["a", "b", "a"]), Some(Code::BAD_ARGUMENTS)),
            ("a key that is none", pairs(&["A"]), Some(Code::BAD_ARGUMENTS)),
            ("a value that is cut off", pair("a", 9)[..5].to_vec(), Some(Code::BAD_ARGUMENTS)),
        ];
        for (n, (what, metadata, code)) in cases.into_iter().enumerate() {
            let mut head = exchange_head(kind::OPEN, flag::EXT | flag::EOM | flag::END, Some(Sid(0)), Xid(2 * n as u64));
            let mut body = Vec::new();
            let open = rpc_core::wire::frame::Open { method: method("after"), timeout_ms: None, total: None };
            open.write_with(Beside { metadata: &metadata, ..Beside::NOTHING }, &mut head, &mut body);
            body.extend(args(&(0u32,)));
            raw.write(&frame(head, &body)).await;
            match code {
                Some(code) => assert_eq!(raw.reset().await, code, "{what}"),
                None => assert_eq!(raw.next(kind::DATA).await.body(2), args(&0u32), "{what}"),
            }
        }
        session_works(&mut raw, 0, 18).await;
        scene.victim_works().await;
    });
}

/// What a client does that is as good as any: every kind of call, one after the other.
async fn conversation(endpoint: &str, patience: Duration) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let own = limits(|limits| limits.handshake = patience);
    let connection = Connection::builder().limits(own).open(endpoint).await?;
    let lab: LabClient = connection.session().open().await?;
    lab.text("hello").timeout(patience).await?;
    let mut items = lab.items(4, 8).timeout(patience).await?;
    while let Some(item) = items.next().await {
        item?;
    }
    lab.sum(stream::iter(0..4)).timeout(patience).await?;
    lab.note(1).timeout(patience).await?;
    let mut items = lab.echo(stream::iter([Bytes::from_static(b"x")])).timeout(patience).await?;
    while let Some(item) = items.next().await {
        item?;
    }
    let _ = lab.find("none").timeout(patience).await;
    let _ = lab.hang(u64::MAX).timeout(Duration::from_millis(1)).await;
    let _ = lab.slice(&pattern(300, 0)).timeout(patience).await?;
    connection.session().open::<LabClient>().await?.text("bye").timeout(patience).await?;
    connection.close().await;
    Ok(())
}

/// How many bytes a conversation has each way.
async fn record(scene: &Scene) -> (usize, usize) {
    let proxy = Proxy::new(scene.server.endpoint(), Damage::None).await;
    conversation(&proxy.endpoint, LONG).await.expect("an undisturbed conversation succeeds");
    proxy.passed()
}

#[test]
fn a_client_that_vanishes_at_any_byte_leaves_nothing_behind() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let (to_server, _) = record(&scene).await;
        assert!(to_server > 500, "{to_server} bytes");
        for chunk in (0..to_server).collect::<Vec<_>>().chunks(32) {
            join_all(chunk.iter().map(|at| cut(&scene, Damage::Cut(Way::ToServer, *at)))).await;
            scene.victim_works().await;
        }
    });
}

#[test]
fn a_server_that_vanishes_at_any_byte_fails_its_clients_and_hangs_none() {
    run(async {
        let scene = Scene::new(default_limits).await;
        let (_, to_client) = record(&scene).await;
        assert!(to_client > 400, "{to_client} bytes");
        for chunk in (0..to_client).collect::<Vec<_>>().chunks(32) {
            join_all(chunk.iter().map(|at| cut(&scene, Damage::Cut(Way::ToClient, *at)))).await;
            scene.victim_works().await;
        }
    });
}

async fn cut(scene: &Scene, damage: Damage) {
    let proxy = Proxy::new(scene.server.endpoint(), damage).await;
    // Which calls still succeed depends on how far the bytes came; that it ends is the point.
    let _ = soon(&format!("{damage:?} ends the conversation"), conversation(&proxy.endpoint, LONG)).await;
}

/// A generator of numbers (splitmix64).
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) as usize
}

/// `FLIP_SEED=n` repeats one damage.
#[test]
fn a_flipped_byte_hurts_nobody_else() {
    run(async {
        let scene = Scene::new(|limits| limits.handshake = Duration::from_millis(500)).await;
        let (to_server, to_client) = record(&scene).await;
        let one = std::env::var("FLIP_SEED").ok().and_then(|seed| seed.parse().ok());
        let seeds: Vec<u64> = one.map_or_else(|| (0..256).collect(), |seed| vec![seed]);
        for chunk in seeds.chunks(64) {
            eprintln!("FLIP_SEED={}..={}", chunk[0], chunk[chunk.len() - 1]);
            join_all(chunk.iter().map(|seed| async {
                let mut state = *seed;
                let way = if random(&mut state).is_multiple_of(2) { Way::ToServer } else { Way::ToClient };
                let len = if way == Way::ToServer { to_server } else { to_client };
                let damage = Damage::Flip(way, random(&mut state) % len, 1 << (random(&mut state) % 8));
                let proxy = Proxy::new(scene.server.endpoint(), damage).await;
                // A flipped length makes one side wait for bytes that never come: nobody promises more than deadlines,
                // and opening a session has none.
                let patience = Duration::from_millis(500);
                let _ = tokio::time::timeout(4 * patience, conversation(&proxy.endpoint, patience)).await;
            }))
            .await;
            scene.victim_works().await;
        }
        eventually("all connections are gone", || scene.bench.live() == 0).await;
    });
}

#[test]
fn the_name_and_number_of_methods_are_what_the_raw_peer_thinks() {
    let info = LabClient::info();
    assert_eq!(info.name, "Lab");
    assert!(info.methods.is_sorted_by_key(|method| method.hash));
}
