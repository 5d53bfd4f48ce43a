//! What the inspector knows, as numbers for the crate `metrics`, behind which the exporters stand.
//!
//! Nothing is counted for it on the way of a call: whoever records asks the connections, as the inspector does, and adds what
//! was counted where something ended or was refused. A service whose numbers nobody records pays nothing.
//!
//! ```
//! use std::time::Duration;
//!
//! use rpc_transport::metrics::Mirror;
//!
//! # fn start(server: &rpc_transport::Server) {
//! // Behind the installation of a recorder, such as that of `metrics-exporter-prometheus`.
//! tokio::spawn(Mirror::new().budget("kv", server.budget()).every(Duration::from_secs(10)));
//! # }
//! ```
//!
//! | name | kind | unit | label | is |
//! |---|---|---|---|---|
//! | `rpc_connections` | gauge | count | `side`: dialed, accepted | Connections of this process. |
//! | `rpc_connections_held_up` | gauge | count | `cause`: connection_credit, socket, handler | Connections that are held up as a whole; of those whose driver a handler holds, the other numbers lack. |
//! | `rpc_sessions` | gauge | count | `state`: awake, at_rest | Sessions. |
//! | `rpc_exchanges` | gauge | count | `direction`: made, served | Exchanges that are not over. |
//! | `rpc_exchanges_waiting` | gauge | count | `cause`: stream_credit, session_credit, connection_credit, places, socket, turn, handler, application, peer | What exchanges wait for. |
//! | `rpc_longest_wait_seconds` | gauge | seconds | `cause`: stream_credit, session_credit, connection_credit, places, socket, turn, handler, application, peer | How long the exchange has waited that has waited longest, of those of which it is known. |
//! | `rpc_handlers` | gauge | count | | Handlers that have a task. |
//! | `rpc_unsent_bytes` | gauge | bytes | | Bytes that wait for sockets. |
//! | `rpc_owed_bytes` | gauge | bytes | | Bytes of replies that peers have not taken. |
//! | `rpc_untaken_bytes` | gauge | bytes | | Bytes received that the application has not taken. |
//! | `rpc_memory_held_bytes` | gauge | bytes | `budget` | Bytes of the budget that are held. |
//! | `rpc_memory_limit_bytes` | gauge | bytes | `budget` | Bytes of the budget. |
//! | `rpc_memory_level` | gauge | count | `budget` | 0: there is room; 1: sessions are refused; 2: no connection is accepted. |
//! | `rpc_calls_total` | counter | count | `direction`: made, served | Calls over connections. |
//! | `rpc_sent_bytes_total` | counter | bytes | | Bytes sent against credit: messages, without what frames add. |
//! | `rpc_received_bytes_total` | counter | bytes | | Bytes received against credit. |
//! | `rpc_connections_ended_total` | counter | count | `reason`: closed, closed_by_peer, failed_by_peer, protocol, hung_up, io, silent, handshake, write_stall | Connections that have ended. |
//! | `rpc_connections_refused_total` | counter | count | `reason`: per_peer, setup | Connections of clients that were not taken, or came to nothing before the handshake. |
//! | `rpc_sessions_refused_total` | counter | count | `reason`: memory, sessions, service, codec, methods | Sessions of peers that were refused. |
//! | `rpc_calls_refused_total` | counter | count | `reason`: busy, unsent | Calls of peers that were refused for too many handlers or answers that wait. |
//!
//! Labels have the values of the table, and `budget` those that the application gives: no peer brings one about. Direct calls
//! ([`local`](crate::local())) go over no connection and are not counted. A counter may lag behind by what ended while it was
//! recorded, and never falls.

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::{Label, SharedString, Unit};

use crate::budget::{Budget, BudgetLevel};
use crate::inspect;
use crate::report::{Cause, ConnectionInfo, Waiting};
use crate::tally::Event;

/// The shortest time between two records of [`Mirror::every`]: each takes every driver a look.
const FASTEST: Duration = Duration::from_millis(100);

struct Metric {
    name: &'static str,
    counts: bool,
    unit: Unit,
    label: &'static str,
    is: &'static str,
}

const fn gauge(name: &'static str, unit: Unit, label: &'static str, is: &'static str) -> Metric {
    Metric { name, counts: false, unit, label, is }
}

const fn counter(name: &'static str, unit: Unit, label: &'static str, is: &'static str) -> Metric {
    Metric { name, counts: true, unit, label, is }
}

const CONNECTIONS: Metric = gauge("rpc_connections", Unit::Count, "side", "Connections of this process.");
const HELD_UP: Metric = gauge(
    "rpc_connections_held_up",
    Unit::Count,
    "cause",
    "Connections that are held up as a whole; of those whose driver a handler holds, the other numbers lack.",
);
const SESSIONS: Metric = gauge("rpc_sessions", Unit::Count, "state", "Sessions.");
const EXCHANGES: Metric = gauge("rpc_exchanges", Unit::Count, "direction", "Exchanges that are not over.");
const WAITING: Metric = gauge("rpc_exchanges_waiting", Unit::Count, "cause", "What exchanges wait for.");
const LONGEST: Metric = gauge(
    "rpc_longest_wait_seconds",
    Unit::Seconds,
    "cause",
    "How long the exchange has waited that has waited longest, of those of which it is known.",
);
const HANDLERS: Metric = gauge("rpc_handlers", Unit::Count, "", "Handlers that have a task.");
const UNSENT: Metric = gauge("rpc_unsent_bytes", Unit::Bytes, "", "Bytes that wait for sockets.");
const OWED: Metric = gauge("rpc_owed_bytes", Unit::Bytes, "", "Bytes of replies that peers have not taken.");
const UNTAKEN: Metric = gauge("rpc_untaken_bytes", Unit::Bytes, "", "Bytes received that the application has not taken.");
const MEMORY_HELD: Metric = gauge("rpc_memory_held_bytes", Unit::Bytes, "budget", "Bytes of the budget that are held.");
const MEMORY_LIMIT: Metric = gauge("rpc_memory_limit_bytes", Unit::Bytes, "budget", "Bytes of the budget.");
const MEMORY_LEVEL: Metric =
    gauge("rpc_memory_level", Unit::Count, "budget", "0: there is room; 1: sessions are refused; 2: no connection is accepted.");
const CALLS: Metric = counter("rpc_calls_total", Unit::Count, "direction", "Calls over connections.");
const SENT: Metric =
    counter("rpc_sent_bytes_total", Unit::Bytes, "", "Bytes sent against credit: messages, without what frames add.");
const RECEIVED: Metric = counter("rpc_received_bytes_total", Unit::Bytes, "", "Bytes received against credit.");
const ENDED: Metric = counter("rpc_connections_ended_total", Unit::Count, "reason", "Connections that have ended.");
const REFUSED: Metric = counter(
    "rpc_connections_refused_total",
    Unit::Count,
    "reason",
    "Connections of clients that were not taken, or came to nothing before the handshake.",
);
const SESSIONS_REFUSED: Metric =
    counter("rpc_sessions_refused_total", Unit::Count, "reason", "Sessions of peers that were refused.");
const CALLS_REFUSED: Metric = counter(
    "rpc_calls_refused_total",
    Unit::Count,
    "reason",
    "Calls of peers that were refused for too many handlers or answers that wait.",
);

const ALL: [&Metric; 20] = [
    &CONNECTIONS,
    &HELD_UP,
    &SESSIONS,
    &EXCHANGES,
    &WAITING,
    &LONGEST,
    &HANDLERS,
    &UNSENT,
    &OWED,
    &UNTAKEN,
    &MEMORY_HELD,
    &MEMORY_LIMIT,
    &MEMORY_LEVEL,
    &CALLS,
    &SENT,
    &RECEIVED,
    &ENDED,
    &REFUSED,
    &SESSIONS_REFUSED,
    &CALLS_REFUSED,
];

/// What is counted as it happens, and for which reason.
const EVENTS: [(&Metric, &str, Event); 18] = [
    (&ENDED, "closed", Event::Closed),
    (&ENDED, "closed_by_peer", Event::ClosedByPeer),
    (&ENDED, "failed_by_peer", Event::FailedByPeer),
    (&ENDED, "protocol", Event::Protocol),
    (&ENDED, "hung_up", Event::HungUp),
    (&ENDED, "io", Event::Io),
    (&ENDED, "silent", Event::Silent),
    (&ENDED, "handshake", Event::Handshake),
    (&ENDED, "write_stall", Event::WriteStall),
    (&REFUSED, "per_peer", Event::PerPeer),
    (&REFUSED, "setup", Event::Setup),
    (&SESSIONS_REFUSED, "memory", Event::Memory),
    (&SESSIONS_REFUSED, "sessions", Event::Sessions),
    (&SESSIONS_REFUSED, "service", Event::Service),
    (&SESSIONS_REFUSED, "codec", Event::Codec),
    (&SESSIONS_REFUSED, "methods", Event::Methods),
    (&CALLS_REFUSED, "busy", Event::Busy),
    (&CALLS_REFUSED, "unsent", Event::Unsent),
];

impl Metric {
    fn describe(&self) {
        if self.counts {
            ::metrics::describe_counter!(self.name, self.unit, self.is);
        } else {
            ::metrics::describe_gauge!(self.name, self.unit, self.is);
        }
    }

    fn set(&self, value: u64) {
        self.put(Vec::new(), value);
    }

    fn set_of(&self, label: impl Into<SharedString>, value: u64) {
        self.put(vec![Label::new(self.label, label)], value);
    }

    fn put(&self, labels: Vec<Label>, value: u64) {
        match self.unit {
            // Times are in milliseconds here.
            Unit::Seconds => ::metrics::gauge!(self.name, labels).set(value as f64 / 1000.0),
            _ if self.counts => ::metrics::counter!(self.name, labels).absolute(value),
            _ => ::metrics::gauge!(self.name, labels).set(value as f64),
        }
    }
}

/// What is recorded: all connections of this process, and the budgets that it is told of.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is recorded before `record` or `every`"]
pub struct Mirror {
    budgets: Vec<(SharedString, Budget)>,
}

impl Mirror {
    /// The connections of this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// A budget as well, that of a server for example, by a name that becomes its label.
    pub fn budget(mut self, name: impl Into<String>, budget: &Budget) -> Self {
        self.budgets.push((name.into().into(), budget.clone()));
        self
    }

    /// Records everything once, for example when an exporter is asked. It takes each driver a look, and a quarter of a second
    /// where one of 256 does not answer because a handler holds it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future records nothing.
    pub async fn record(&self) {
        // Before the connections are asked: one that ends meanwhile is counted the next time, and never twice.
        let over = [Event::Made, Event::Served, Event::Sent, Event::Received].map(Event::count);
        let events = EVENTS.map(|(metric, reason, event)| (metric, reason, event.count()));
        let mut totals = Totals::default();
        let mut from = Some(0);
        while let Some(first) = from {
            let connections = inspect::connections(first).await;
            connections.page.iter().for_each(|info| totals.add(info));
            from = connections.next;
        }
        ALL.iter().for_each(|metric| metric.describe());
        totals.record(over);
        events.into_iter().for_each(|(metric, reason, times)| metric.set_of(reason, times));
        for (name, budget) in &self.budgets {
            MEMORY_HELD.set_of(name.clone(), budget.held());
            MEMORY_LIMIT.set_of(name.clone(), budget.most());
            MEMORY_LEVEL.set_of(name.clone(), level(budget.level()));
        }
    }

    /// Records everything at once and then again every so often, 100 ms at the least. It never ends: spawn it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future ends it; what was recorded stays.
    pub async fn every(self, period: Duration) {
        let mut ticks = tokio::time::interval(period.max(FASTEST));
        // A record that took longer than the period is not caught up with.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.record().await;
        }
    }
}

fn level(level: BudgetLevel) -> u64 {
    match level {
        BudgetLevel::Room => 0,
        BudgetLevel::Tight => 1,
        BudgetLevel::Full => 2,
    }
}

/// The sums over all connections.
#[derive(Default)]
struct Totals {
    dialed: u64,
    accepted: u64,
    held_up: BTreeMap<Cause, u64>,
    awake: u64,
    at_rest: u64,
    opened_here: u64,
    opened_there: u64,
    /// How many exchanges wait, and how long the first of them has, in milliseconds.
    waiting: BTreeMap<Cause, (u64, u64)>,
    handlers: u64,
    unsent: u64,
    owed: u64,
    untaken: u64,
    made: u64,
    served: u64,
    sent: u64,
    received: u64,
}

impl Totals {
    fn add(&mut self, info: &ConnectionInfo) {
        self.dialed += u64::from(info.dialed);
        self.accepted += u64::from(!info.dialed);
        if let Some(stall) = info.stall {
            *self.held_up.entry(stall.cause).or_default() += 1;
        }
        self.awake += info.sessions - info.at_rest;
        self.at_rest += info.at_rest;
        self.opened_here += info.opened_here;
        self.opened_there += info.exchanges - info.opened_here;
        for Waiting { cause, exchanges, longest_ms } in &info.waiting {
            let (all, longest) = self.waiting.entry(*cause).or_default();
            *all += exchanges;
            *longest = (*longest).max(longest_ms.unwrap_or_default());
        }
        self.handlers += info.handlers;
        self.unsent += info.unsent;
        self.owed += info.owed;
        self.untaken += info.held;
        self.made += info.calls_made;
        self.served += info.calls_served;
        self.sent += info.sent;
        self.received += info.received;
    }

    /// Records what there is, and what is `over`: calls made and served, bytes sent and received. What there is none of is
    /// recorded too, so that nothing stays that is no more.
    fn record(&self, [made, served, sent, received]: [u64; 4]) {
        CONNECTIONS.set_of("dialed", self.dialed);
        CONNECTIONS.set_of("accepted", self.accepted);
        for cause in [Cause::ConnectionCredit, Cause::Socket, Cause::Handler] {
            HELD_UP.set_of(cause.name(), self.held_up.get(&cause).copied().unwrap_or_default());
        }
        SESSIONS.set_of("awake", self.awake);
        SESSIONS.set_of("at_rest", self.at_rest);
        EXCHANGES.set_of("made", self.opened_here);
        EXCHANGES.set_of("served", self.opened_there);
        for cause in Cause::ALL {
            let (exchanges, longest_ms) = self.waiting.get(&cause).copied().unwrap_or_default();
            WAITING.set_of(cause.name(), exchanges);
            LONGEST.set_of(cause.name(), longest_ms);
        }
        HANDLERS.set(self.handlers);
        UNSENT.set(self.unsent);
        OWED.set(self.owed);
        UNTAKEN.set(self.untaken);
        CALLS.set_of("made", self.made + made);
        CALLS.set_of("served", self.served + served);
        SENT.set(self.sent + sent);
        RECEIVED.set(self.received + received);
    }
}
