//! What is recorded for exporters of metrics: the whole table of the documentation and nothing beside it, with the numbers that
//! are true. It has a process of its own, because it counts what the process has, and its cases have their turns in it.

// What they have for other tests is not used here.
#[allow(dead_code)]
#[path = "it/harness.rs"]
mod harness;
#[allow(dead_code)]
#[path = "it/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "it/raw.rs"]
mod raw;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use rpc::metrics::Mirror;
use rpc::{BoxFuture, Budget, Connected, Connection, Endpoint, Incoming, Limits, Listener, Peer, Server};
use rpc_core::wire::frame::{flag, kind};
use tokio::io::duplex;
use tokio::sync::mpsc;

use harness::{HANG, soon};
use lab::{Bench, Events, LabClient, LabServer};
use raw::{Raw, args, method, open, session_open, session_open_in};

/// The cases have their turns: each looks at all connections of the process.
static TURN: Mutex<()> = Mutex::new(());

/// Name, and label with its value.
type Name = (String, Option<(String, String)>);

/// Kind, unit and words.
type Described = (&'static str, Option<Unit>, String);

/// A recorder that remembers.
#[derive(Default)]
struct Seen {
    counters: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
    described: Mutex<BTreeMap<String, Described>>,
}

fn name(key: &Key) -> Name {
    let mut labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
    let label = labels.next();
    assert_eq!(labels.next(), None, "{key} has one label at the most");
    (key.name().to_owned(), label)
}

impl Recorder for Seen {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), ("counter", unit, text.into_owned()));
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), ("gauge", unit, text.into_owned()));
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("{} is a histogram, and there is none", key.as_str());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counters.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(self.gauges.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{key} is a histogram, and there is none");
    }
}

impl Seen {
    fn gauge(&self, name: &str, label: impl Into<Option<(&'static str, &'static str)>>) -> f64 {
        f64::from_bits(find(&self.gauges, name, label.into()))
    }

    fn counter(&self, name: &str, label: impl Into<Option<(&'static str, &'static str)>>) -> u64 {
        find(&self.counters, name, label.into())
    }

    /// Every name with each of its labels.
    fn names(&self) -> Vec<Name> {
        self.gauges.lock().unwrap().keys().chain(self.counters.lock().unwrap().keys()).cloned().collect()
    }

    /// Records until it is so.
    async fn until(&self, what: &str, mirror: &Mirror, so: impl Fn(&Self) -> bool) {
        let bound = async {
            loop {
                mirror.record().await;
                if so(self) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon(what, bound).await;
    }
}

#[track_caller]
fn find(all: &Mutex<BTreeMap<Name, Arc<AtomicU64>>>, name: &str, label: Option<(&str, &str)>) -> u64 {
    let key = (name.to_owned(), label.map(|(label, value)| (label.to_owned(), value.to_owned())));
    let all = all.lock().unwrap();
    let value = all.get(&key).unwrap_or_else(|| panic!("{key:?} was not recorded; there is: {:?}", all.keys()));
    value.load(Ordering::Relaxed)
}

/// Runs a case, alone, with a recorder of its own. All runs on the thread that has the recorder.
fn recorded(case: impl AsyncFnOnce(&Seen)) {
    recorded_in(|case| harness::run_on(1, case), case);
}

fn recorded_in(run: impl FnOnce(Pin<Box<dyn Future<Output = ()> + '_>>), case: impl AsyncFnOnce(&Seen)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = Seen::default();
    metrics::with_local_recorder(&seen, || run(Box::pin(case(&seen))));
}

async fn serve(limits: Limits) -> (Server, Events) {
    let (bench, events) = Bench::new();
    let server = Server::builder().service(LabServer::new(bench)).limits(limits);
    (server.listen("tcp://127.0.0.1:0").await.unwrap(), events)
}

/// A row of the table: kind, unit, label with the values that it can have, words.
type Row = (String, String, Option<(String, Vec<String>)>, String);

/// The table of the documentation, by name.
fn table() -> BTreeMap<String, Row> {
    let bare = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let mut rows = BTreeMap::new();
    for line in include_str!("../rpc-transport/src/metrics.rs").lines() {
        let Some(row) = line.strip_prefix("//! | `rpc_") else { continue };
        let cells: Vec<_> = row.trim_end_matches('|').split('|').collect();
        let [name, kind, unit, label, is] = &cells[..] else { panic!("{line}") };
        let label = (!label.trim().is_empty()).then(|| {
            let (label, values) = label.split_once(':').unwrap_or((label, ""));
            (bare(label), values.split(',').map(bare).filter(|value| !value.is_empty()).collect())
        });
        let row = (bare(kind), bare(unit), label, is.trim().to_owned());
        assert!(rows.insert(format!("rpc_{}", bare(name)), row).is_none(), "{line}");
    }
    rows
}

#[test]
fn the_table_of_the_documentation_has_what_is_recorded_and_nothing_else() {
    recorded(async |seen| {
        let (server, _events) = serve(Limits::default()).await;
        let _lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        Mirror::new().budget("the lab", server.budget()).record().await;
        let table = table();
        assert!(table.len() > 15, "the table is found: {table:#?}");
        let described = seen.described.lock().unwrap();
        assert!(described.keys().eq(table.keys()), "{:#?}", described.keys());
        for (name, (kind, unit, text)) in &*described {
            let (of_kind, of_unit, _, is) = &table[name];
            assert_eq!((*kind, unit.unwrap().as_str(), text), (of_kind.as_str(), of_unit.as_str(), is), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            let in_name = name.trim_end_matches("_total").rsplit('_').next().unwrap();
            assert_eq!(
                matches!(in_name, "bytes" | "seconds").then_some(in_name),
                (of_unit != "count").then_some(of_unit.as_str())
            );
        }
        let mut expected = Vec::new();
        for (name, (_, _, label, _)) in &table {
            match label {
                None => expected.push((name.clone(), None)),
                Some((label, values)) if values.is_empty() => {
                    expected.push((name.clone(), Some((label.clone(), "the lab".to_owned()))));
                }
                Some((label, values)) => {
                    expected.extend(values.iter().map(|value| (name.clone(), Some((label.clone(), value.clone())))));
                }
            }
        }
        let mut names = seen.names();
        names.sort();
        expected.sort();
        assert_eq!(names, expected);
    });
}

#[test]
fn connections_sessions_and_calls_are_counted_on_both_sides_and_calls_stay_counted() {
    recorded(async |seen| {
        let mirror = Mirror::new();
        mirror.record().await;
        let before = ["made", "served"].map(|way| seen.counter("rpc_calls_total", ("direction", way)));
        let ended = ["closed", "closed_by_peer"].map(|why| seen.counter("rpc_connections_ended_total", ("reason", why)));
        let bytes = ["rpc_sent_bytes_total", "rpc_received_bytes_total"].map(|name| seen.counter(name, None));
        let (server, events) = serve(Limits::default()).await;
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let labs: [LabClient; 2] = [connection.session().open().await.unwrap(), connection.session().open().await.unwrap()];
        for n in 0..5 {
            labs[n % 2].text("counted").await.unwrap();
        }
        let hanging = tokio::spawn(labs[0].hang(1));
        events.started(1).await;
        let longest = ("cause", "handler");
        let waits = |seen: &Seen| seen.gauge("rpc_longest_wait_seconds", longest) >= 0.02;
        seen.until("the handler waits for a while", &mirror, waits).await;
        for side in ["dialed", "accepted"] {
            assert_eq!(seen.gauge("rpc_connections", ("side", side)), 1.0, "{side}");
        }
        let sessions = ["awake", "at_rest"].map(|state| seen.gauge("rpc_sessions", ("state", state)));
        assert_eq!(sessions.iter().sum::<f64>(), 4.0, "{sessions:?}");
        for way in ["made", "served"] {
            assert_eq!(seen.gauge("rpc_exchanges", ("direction", way)), 1.0, "{way}");
        }
        let waiting = |cause| seen.gauge("rpc_exchanges_waiting", ("cause", cause));
        assert_eq!([waiting("handler"), waiting("peer"), waiting("socket")], [1.0, 1.0, 0.0]);
        assert_eq!(seen.gauge("rpc_handlers", None), 1.0);
        assert!(seen.gauge("rpc_longest_wait_seconds", longest) < HANG.as_secs_f64(), "it is in seconds");
        let calls = |seen: &Seen| ["made", "served"].map(|way| seen.counter("rpc_calls_total", ("direction", way)));
        assert_eq!(calls(seen), before.map(|calls| calls + 6));
        hanging.abort();
        drop(labs);
        // Of the connection that stands, with sessions that are over.
        let no_sessions =
            |seen: &Seen| ["awake", "at_rest"].into_iter().all(|of| seen.gauge("rpc_sessions", ("state", of)) == 0.0);
        seen.until("the sessions have closed", &mirror, no_sessions).await;
        // A counter never falls, so that only a further call shows what is still counted.
        let lab: LabClient = connection.session().open().await.unwrap();
        lab.text("one more").await.unwrap();
        mirror.record().await;
        assert_eq!(calls(seen), before.map(|calls| calls + 7));
        connection.close().await;
        let none =
            |seen: &Seen| ["dialed", "accepted"].into_iter().all(|side| seen.gauge("rpc_connections", ("side", side)) == 0.0);
        seen.until("the connections have ended", &mirror, none).await;
        // Of one that ended while it was recorded, the counters tell the next time.
        mirror.record().await;
        let lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        lab.text("one more").await.unwrap();
        mirror.record().await;
        assert_eq!(calls(seen), before.map(|calls| calls + 8), "what has ended stays counted, and once");
        drop(lab);
        seen.until("the last connection has ended", &mirror, none).await;
        mirror.record().await;
        assert_eq!([waiting("handler"), waiting("peer")], [0.0, 0.0], "nothing stays that is no more");
        let now = ["closed", "closed_by_peer"].map(|why| seen.counter("rpc_connections_ended_total", ("reason", why)));
        assert_eq!(now, ended.map(|times| times + 2));
        let now = ["rpc_sent_bytes_total", "rpc_received_bytes_total"].map(|name| seen.counter(name, None));
        let [sent, received] = [now[0] - bytes[0], now[1] - bytes[1]];
        assert!(sent == received && sent > 60, "both ends are here: {sent} and {received}");
    });
}

#[test]
fn calls_in_a_session_that_rests_and_wakes_are_counted_once() {
    // Time passes by itself where all wait: a minute in a moment, so that the bound for what hangs would be of no use.
    let run = |case: Pin<Box<dyn Future<Output = ()> + '_>>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(case);
    };
    recorded_in(run, async |seen| {
        let mirror = Mirror::new();
        mirror.record().await;
        let served = |seen: &Seen| seen.counter("rpc_calls_total", ("direction", "served"));
        let (before, server) = (served(seen), Server::builder().service(LabServer::new(Bench::new().0)));
        let server = server.listen("mem://those at rest").await.unwrap();
        let lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        // A session rests after two looks.
        for calls in 1..=3 {
            lab.text("and sleep").await.unwrap();
            mirror.record().await;
            assert_eq!((served(seen) - before, seen.gauge("rpc_sessions", ("state", "at_rest"))), (calls, 0.0));
            tokio::time::sleep(Duration::from_secs(45)).await;
            mirror.record().await;
            assert_eq!((served(seen) - before, seen.gauge("rpc_sessions", ("state", "at_rest"))), (calls, 1.0));
        }
        drop(lab);
        let none = |seen: &Seen| seen.gauge("rpc_connections", ("side", "accepted")) == 0.0;
        seen.until("the connection has ended", &mirror, none).await;
        mirror.record().await;
        assert_eq!(served(seen) - before, 3);
    });
}

/// Yields what is sent to it.
struct Door(mpsc::UnboundedReceiver<Incoming>);

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Incoming>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(incoming) => Ok(incoming),
                None => std::future::pending().await,
            }
        })
    }

    fn endpoint(&self) -> Endpoint {
        "mem://a door".parse().unwrap()
    }
}

#[test]
fn what_is_refused_is_counted_by_its_reason_and_no_peer_makes_a_name() {
    recorded(async |seen| {
        let mirror = Mirror::new();
        mirror.record().await;
        let connections = ["per_peer", "setup"].map(|why| seen.counter("rpc_connections_refused_total", ("reason", why)));
        let reasons = ["service", "codec", "sessions", "memory"];
        let sessions = |seen: &Seen| reasons.map(|why| seen.counter("rpc_sessions_refused_total", ("reason", why)));
        let calls = |seen: &Seen| ["busy", "unsent"].map(|why| seen.counter("rpc_calls_refused_total", ("reason", why)));
        let (before, refused) = (sessions(seen), calls(seen));

        let budget = Budget::new(100 << 20);
        let server = Server::builder().service(LabServer::new(Bench::new().0)).budget(budget.clone());
        let server =
            server.limits(Limits::default().sessions(1).handlers(1).unsent(0)).listen("tcp://127.0.0.1:0").await.unwrap();
        let mut raw = Raw::client(server.endpoint()).await;
        raw.write(&session_open(0, "A-name-of-the-peer's")).await;
        raw.next(kind::S_REJECT).await;
        raw.write(&session_open_in(2, "Lab", 0, &[99])).await;
        raw.next(kind::S_REJECT).await;
        let mut others = budget.share();
        others.set(90 << 20);
        for sid in [4, 6] {
            raw.write(&session_open(sid, "Lab")).await;
            raw.next(kind::S_REJECT).await;
        }
        mirror.clone().budget("shared", &budget).record().await;
        let memory = ["rpc_memory_held_bytes", "rpc_memory_limit_bytes", "rpc_memory_level"];
        let [held, limit, level] = memory.map(|name| seen.gauge(name, ("budget", "shared")));
        assert!(held >= f64::from(90 << 20) && held < limit, "{held}");
        assert_eq!((limit, level), (f64::from(100 << 20), 1.0));
        drop(others);
        raw.session(8).await;
        for sid in [10, 12, 14] {
            raw.write(&session_open(sid, "Lab")).await;
            raw.next(kind::S_REJECT).await;
        }
        // An answer that waits is too much here, but not for a call that has none.
        let large = open(8, 0, method("zeros"), flag::END, &args(&(1u64 << 20,)));
        let note = open(8, 2, method("note"), flag::END | flag::ONEWAY, &args(&(1u64,)));
        let small = open(8, 4, method("text"), flag::END, &args(&("refused",)));
        raw.write(&[large, note, small].concat()).await;
        let (mut answered, mut reset) = (false, false);
        while !(answered && reset) {
            let frame = raw.frame().await.expect("the connection goes on");
            answered |= frame.kind == kind::DATA && frame.flags & flag::END != 0;
            reset |= frame.kind == kind::RESET;
        }
        // The first has its task by the time the second is looked at, in its own turn.
        raw.write(&open(8, 6, method("hang"), flag::END, &args(&1u64))).await;
        seen.until("the first waits", &mirror, |seen| seen.gauge("rpc_handlers", None) == 1.0).await;
        raw.write(&open(8, 8, method("hang"), flag::END, &args(&2u64))).await;
        raw.next(kind::RESET).await;

        let (to, door) = mpsc::unbounded_channel();
        let server = Server::builder().service(LabServer::new(Bench::new().0)).limits(Limits::default().per_peer(1));
        let _server = server.serve(Door(door)).unwrap();
        to.send(Incoming::new(async { Err(io::ErrorKind::PermissionDenied.into()) })).unwrap();
        let mut ours = Vec::new();
        for port in [1, 2] {
            let (here, there) = duplex(4096);
            to.send(Incoming::ready(Connected::new(there, Peer::new(format!("tcp://192.0.2.1:{port}"))))).unwrap();
            let opened = Connection::builder().open_over(Connected::new(here, Peer::new("odd://server"))).await;
            assert_eq!(opened.is_ok(), port == 1, "{opened:?}");
            ours.push(opened);
        }

        mirror.record().await;
        let now = ["per_peer", "setup"].map(|why| seen.counter("rpc_connections_refused_total", ("reason", why)));
        assert_eq!(now, connections.map(|times| times + 1));
        let now = sessions(seen);
        assert_eq!([0, 1, 2, 3].map(|n| now[n] - before[n]), [1, 1, 3, 2], "{reasons:?}");
        assert_eq!(calls(seen), refused.map(|times| times + 1));
        let all = format!("{:?}", seen.names());
        assert!(all.contains("shared") && !all.contains("A-name") && !all.contains("192.0.2"), "{all}");
    });
}

#[test]
fn connections_are_counted_by_how_they_ended() {
    recorded(async |seen| {
        let mirror = Mirror::new();
        mirror.record().await;
        let reasons = ["failed_by_peer", "protocol", "hung_up", "handshake", "write_stall"];
        let ended = |seen: &Seen| reasons.map(|why| seen.counter("rpc_connections_ended_total", ("reason", why)));
        let before = ended(seen);
        let patience = Duration::from_millis(300);
        let (server, _events) = serve(Limits::default().handshake(patience).write_stall(patience)).await;
        let silent = Raw::connect(server.endpoint()).await;
        let mut stranger = Raw::connect(server.endpoint()).await;
        stranger.write(b"GET / HTTP/1.1\r\n\r\n").await;
        drop(Raw::client(server.endpoint()).await);
        let single = Server::builder().service(LabServer::new(Bench::new().0)).single_session_only();
        let single = single.listen("tcp://127.0.0.1:0").await.unwrap();
        Connection::open(single.endpoint()).await.unwrap_err();
        let mut deaf = Raw::client(server.endpoint()).await;
        deaf.session(0).await;
        deaf.write(&open(0, 0, method("items"), flag::END, &args(&(u64::MAX, 100_000u32)))).await;
        let held_up = |seen: &Seen| seen.gauge("rpc_connections_held_up", ("cause", "socket")) == 1.0;
        seen.until("the socket takes nothing", &mirror, held_up).await;
        assert!(seen.gauge("rpc_unsent_bytes", None) > 0.0 && seen.gauge("rpc_exchanges_waiting", ("cause", "socket")) == 1.0);
        // `protocol` twice: a server that refuses a client counts that it asked for what is not offered.
        let expected = [1, 2, 1, 1, 1];
        let so = |seen: &Seen| {
            let now = ended(seen);
            (0..5).all(|n| now[n] - before[n] >= expected[n])
        };
        seen.until("all have ended", &mirror, so).await;
        let now = ended(seen);
        assert_eq!([0, 1, 2, 3, 4].map(|n| now[n] - before[n]), expected, "{reasons:?}");
        drop((silent, stranger, deaf));
    });
}

#[test]
fn it_is_recorded_again_and_again_until_it_is_dropped() {
    recorded(async |seen| {
        let dialed = |seen: &Seen| seen.gauge("rpc_connections", ("side", "dialed"));
        let (server, _events) = serve(Limits::default()).await;
        let mirrored = Mirror::new().every(Duration::ZERO);
        tokio::pin!(mirrored);
        let a_while = Duration::from_millis(350);
        assert!(tokio::time::timeout(a_while, &mut mirrored).await.is_err());
        assert_eq!(dialed(seen), 0.0);
        let _lab: LabClient = rpc::connect(server.endpoint()).await.unwrap();
        assert!(tokio::time::timeout(a_while, &mut mirrored).await.is_err());
        assert_eq!(dialed(seen), 1.0);
    });
}
