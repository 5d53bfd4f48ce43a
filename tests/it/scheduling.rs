//! Who goes first where many have something to send, counted in the bytes that come before an answer and never in time.

use rpc::__private::Client;
use rpc::{Connection, OpenError, Server};
use rpc_core::id::{Sid, Xid};
use rpc_core::proto::outbox::QUANTUM;
use rpc_core::wire::HeadBuf;
use rpc_core::wire::frame::{Beside, Mode, Open, exchange_head, flag, kind, session_head};
use rpc_core::wire::hello::{Hello, SessionOpen};

use crate::harness::run;
use crate::lab::{Bench, LabClient, LabServer};
use crate::raw::{Raw, args, frame, greeting, hello, method, open, wide};

/// Bytes that the peer may have on their way: what lies in front of everything, whoever is urgent.
const WINDOW: u64 = 256 * 1024;

/// Sessions with an answer of 4 MiB under way each.
const BUSY: u64 = 8;

/// An OPEN with an urgency.
fn urgent(sid: u64, xid: u64, method: u64, urgency: u8, args: &[u8]) -> Vec<u8> {
    let mut head = exchange_head(kind::OPEN, flag::EXT | flag::EOM | flag::END, Some(Sid(sid)), Xid(xid));
    let mut behind = Vec::new();
    let open = Open { method, timeout_ms: None, total: None };
    open.write_with(Beside { urgency, ..Beside::NOTHING }, &mut head, &mut behind);
    frame(head, &[&behind, args].concat())
}

/// A session of this weight, and what answers it.
async fn session(raw: &mut Raw, sid: u64, weight: u16) {
    let fingerprint = LabClient::info().fingerprint;
    let open = SessionOpen { service: "Lab".into(), fingerprint, codecs: vec![1], windows: wide(), weight };
    let mut body = Vec::new();
    open.write(&mut body);
    raw.write(&frame(session_head(kind::S_OPEN, 0, Some(Sid(sid))), &body)).await;
    raw.next(kind::S_ACCEPT).await;
}

/// A client over TCP whose sessions 0, 2, … have large answers under way, as many bytes of which as it takes have come.
async fn busy(server: &Server, weight: impl Fn(u64) -> u16) -> Raw {
    let mut raw = Raw::connect(server.endpoint()).await;
    let hello = Hello { connection_window: WINDOW, ..hello(Mode::Multi) };
    raw.write(&greeting(kind::HELLO, &hello)).await;
    raw.preface().await;
    raw.next(kind::HELLO_ACK).await;
    for session_of in 0..=BUSY {
        session(&mut raw, 2 * session_of, weight(session_of)).await;
    }
    for session_of in 0..BUSY {
        raw.write(&open(2 * session_of, 0, method("zeros"), flag::END, &args(&((4u64 << 20) - 64,)))).await;
    }
    let mut came = 0;
    // A piece has 16 bytes at the least: with less than that and its length left, nothing comes any more.
    while came + 32 < WINDOW {
        came += next_data(&mut raw).await.1;
    }
    raw
}

/// The next DATA: its session, and the credit that it took.
async fn next_data(raw: &mut Raw) -> (u64, u64) {
    let data = raw.next(kind::DATA).await;
    let sid = u64::from(data.rest[0]);
    (sid, (data.body(2).len() as u64).max(16))
}

async fn grant(raw: &mut Raw, max: u64) {
    let mut head = HeadBuf::new(kind::MAX_CONN_DATA, 0);
    head.varint(max);
    raw.write(&frame(head, &[])).await;
}

async fn serve() -> Server {
    Server::builder().service(LabServer::new(Bench::new().0)).listen("tcp://127.0.0.1:0").await.unwrap()
}

/// The bytes that come before the answer of an urgent call, which is made while nothing may be sent.
async fn before_the_answer(urgency: u8) -> u64 {
    let server = serve().await;
    let mut raw = busy(&server, |_| 16).await;
    raw.write(&urgent(2 * BUSY, 0, method("nothing"), urgency, &[])).await;
    grant(&mut raw, 2 * WINDOW).await;
    let mut before = 0;
    loop {
        match next_data(&mut raw).await {
            (sid, _) if sid == 2 * BUSY => return before,
            (_, bytes) => before += bytes,
        }
    }
}

#[test]
fn an_urgent_answer_goes_before_the_large_ones_of_all_other_sessions() {
    let before = run(before_the_answer(0));
    assert!(before <= 32, "{before} bytes of others came first, where there was credit for none");
}

#[test]
fn an_answer_that_is_not_urgent_waits_for_a_quantum_of_each_session() {
    let before = run(before_the_answer(3));
    assert!(before <= (BUSY + 1) * QUANTUM as u64, "{before} bytes of others came first");
}

#[test]
fn the_weights_that_a_peer_wishes_for_hold_for_what_it_is_sent() {
    run(async {
        let server = serve().await;
        // Two weigh 4, the others 1; 256 would be cut to 64.
        let mut raw = busy(&server, |session| if session < 2 { 256 } else { 16 }).await;
        let (mut came, mut granted) = ([0u64; BUSY as usize], WINDOW);
        // A window is more than a round: when each has sent something in it, all of them wait for turns.
        while came.contains(&0) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            came = [0; BUSY as usize];
            granted += WINDOW;
            grant(&mut raw, granted).await;
            while came.iter().sum::<u64>() + 64 < WINDOW {
                let (sid, bytes) = next_data(&mut raw).await;
                came[sid as usize / 2] += bytes;
            }
        }
        grant(&mut raw, granted + 32 * WINDOW).await;
        came = [0; BUSY as usize];
        while came.iter().sum::<u64>() < 8 * WINDOW {
            let (sid, bytes) = next_data(&mut raw).await;
            came[sid as usize / 2] += bytes;
        }
        // Shares that lie apart by what F4 allows, and by a batch that may be cut anywhere.
        let shares: Vec<f64> =
            came.iter().enumerate().map(|(at, bytes)| *bytes as f64 / if at < 2 { 65536.0 } else { 16384.0 }).collect();
        for pair in shares.windows(2) {
            assert!((pair[0] - pair[1]).abs() <= 6.0, "{shares:?}");
        }
        assert!(came[0] > 3 * came[BUSY as usize - 1], "{came:?}");
    });
}

#[test]
fn urgencies_and_weights_out_of_range_are_named_and_nothing_is_sent() {
    run(async {
        let server = serve().await;
        let connection = Connection::open(server.endpoint()).await.unwrap();
        for (weight, ok) in [(0, false), (1, true), (256, true), (257, false)] {
            match connection.session().weight(weight).open::<LabClient>().await {
                Ok(client) => {
                    assert!(ok, "{weight}");
                    client.nothing().urgency(0).await.unwrap();
                }
                Err(OpenError::Config(text)) => {
                    let says = format!("SessionBuilder::weight is {weight}; give it at least 1 and at most 256");
                    assert_eq!((ok, text), (false, says));
                }
                Err(other) => panic!("{other}"),
            }
        }
        let client: LabClient = connection.session().open().await.unwrap();
        for urgency in 0..=7 {
            assert_eq!(client.text("hi").urgency(urgency).await.unwrap(), "HI");
        }
        let fault = client.text("hi").urgency(8).await.unwrap_err().into_fault();
        assert!(!fault.may_have_run() && fault.to_string().contains("Call::urgency is 8"), "{fault}");
    });
}
