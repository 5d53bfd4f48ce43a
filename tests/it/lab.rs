//! The service of all tests: every shape of method, and handlers that tell when they start and when they are dropped.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use rpc::{Connection, Fault, FaultKind, OrApp, ResultExt, Session, Streaming};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::harness::{eventually, soon};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) counts: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum LabError {
    #[error("no such key: {0}")]
    NoSuchKey(String),
    #[error("disk: {0}")]
    Disk(String),
    #[error("full")]
    Full,
    #[error("at {0}, {1}")]
    At(i64, String),
    #[error("{most:?} at most")]
    TooLong { most: Option<u64> },
}

impl From<std::io::Error> for LabError {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("gate: {0}")]
pub(crate) struct GateError(pub(crate) String);

/// A variant of every form, each in itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Form {
    Unit,
    Newtype(Box<Self>),
    Tuple(u8, Vec<Self>),
    Struct { name: String, next: Option<Box<Self>> },
}

/// Numbers at their edges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scalars {
    pub(crate) signed: (i8, i16, i32, i64, i128),
    pub(crate) unsigned: (u8, u16, u32, u64, u128),
    pub(crate) floats: Vec<f64>,
    pub(crate) short: Vec<f32>,
    pub(crate) letters: Vec<char>,
    pub(crate) yes: bool,
}

/// Maps by every kind of key that all codecs have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Maps {
    pub(crate) words: BTreeMap<String, u64>,
    pub(crate) signed: BTreeMap<i64, String>,
    pub(crate) wide: HashMap<u128, Option<bool>>,
    pub(crate) letters: BTreeMap<char, Vec<u8>>,
    pub(crate) empty: HashMap<u8, ()>,
}

impl From<LabError> for GateError {
    fn from(error: LabError) -> Self {
        Self(error.to_string())
    }
}

/// Metadata as the lab reports it.
pub(crate) type Pairs = Vec<(String, Vec<u8>)>;

#[rpc::service]
pub(crate) trait Lab {
    async fn text(&self, text: &str) -> rpc::Result<String>;
    async fn slice(&self, bytes: &[u8]) -> rpc::Result<Vec<u8>>;
    async fn vector(&self, bytes: Vec<u8>) -> rpc::Result<Vec<u8>>;
    async fn shared(&self, bytes: Bytes) -> rpc::Result<Bytes>;
    async fn maybe(&self, bytes: Option<Vec<u8>>) -> rpc::Result<Option<Vec<u8>>>;
    async fn record(&self, record: &Record) -> rpc::Result<Record>;
    async fn numbers(&self, numbers: &[u64]) -> rpc::Result<u64>;
    async fn size(&self, bytes: Bytes) -> rpc::Result<u64>;
    async fn zeros(&self, size: u64) -> rpc::Result<Bytes>;

    async fn nothing(&self) -> rpc::Result<()>;
    async fn form(&self, form: &Form) -> rpc::Result<Form>;
    async fn forms(&self, forms: Streaming<Form>) -> rpc::Result<Streaming<Form>>;
    async fn scalars(&self, scalars: &Scalars) -> rpc::Result<Scalars>;
    async fn wide(&self, signed: i128, unsigned: u128) -> rpc::Result<(i128, u128)>;
    async fn maps(&self, maps: Maps) -> rpc::Result<Maps>;
    async fn float(&self, float: f64) -> rpc::Result<f64>;
    async fn nested(&self, nested: Option<Option<u8>>) -> rpc::Result<Option<Option<u8>>>;
    /// The size of a map whose keys are compound.
    async fn places(&self, grid: BTreeMap<(u8, u8), u8>) -> rpc::Result<u64>;
    async fn grid(&self, rows: u8) -> rpc::Result<BTreeMap<(u8, u8), u8>>;
    async fn refuse(&self, error: LabError) -> rpc::Result<(), LabError>;

    async fn find(&self, key: &str) -> rpc::Result<u32, LabError>;
    /// Calls `find` downstream and lifts its error.
    async fn gate(&self, key: &str) -> rpc::Result<u32, GateError>;
    async fn disk(&self) -> rpc::Result<(), LabError>;
    async fn fault(&self) -> rpc::Result<()>;
    /// A fault of the class that says that nothing was started.
    async fn busy(&self) -> rpc::Result<()>;

    async fn items(&self, count: u64, size: u32) -> rpc::Result<Streaming<Bytes>>;
    async fn up_to(&self, good: u64) -> rpc::Result<Streaming<u64, LabError>, LabError>;
    async fn no_stream(&self) -> rpc::Result<Streaming<u64>, LabError>;
    /// Items without an end, as fast as they are taken.
    async fn endless(&self, tag: u64) -> rpc::Result<Streaming<u64>>;
    /// One item, then nothing, without an end.
    async fn stuck(&self, tag: u64) -> rpc::Result<Streaming<u64>>;
    async fn sum(&self, numbers: Streaming<u64>) -> rpc::Result<u64>;
    async fn total(&self, items: Streaming<Bytes>) -> rpc::Result<u64>;
    /// Takes `count` items and lets the rest be.
    async fn first(&self, count: u64, numbers: Streaming<u64>) -> rpc::Result<u64>;
    async fn echo(&self, items: Streaming<Bytes>) -> rpc::Result<Streaming<Bytes>>;
    /// Holds a stream of items without reading it.
    async fn hold(&self, tag: u64, items: Streaming<Bytes>) -> rpc::Result<()>;

    #[rpc(oneway)]
    async fn note(&self, n: u64) -> rpc::Result<()>;
    #[rpc(oneway)]
    async fn large_note(&self, bytes: Bytes) -> rpc::Result<()>;

    /// Never returns.
    async fn hang(&self, tag: u64) -> rpc::Result<()>;
    /// Calls `hang` downstream.
    async fn hang_downstream(&self, tag: u64) -> rpc::Result<()>;
    /// Never returns, and has a task that tells when the call is over.
    async fn watched(&self, cx: &rpc::Context, tag: u64) -> rpc::Result<()>;
    /// Peer and time left in milliseconds.
    async fn who(&self, cx: &rpc::Context) -> rpc::Result<(String, Option<u64>)>;
    /// Calls `who` downstream.
    async fn who_downstream(&self) -> rpc::Result<(String, Option<u64>)>;
    /// What came beside the arguments, and how long those were.
    async fn beside(&self, cx: &rpc::Context, bytes: Bytes) -> rpc::Result<(Pairs, u64)>;
    /// Calls `beside` downstream.
    async fn beside_downstream(&self) -> rpc::Result<(Pairs, u64)>;
    /// Echoes items, behind one with the values of the metadata.
    async fn beside_items(&self, cx: &rpc::Context, items: Streaming<Bytes>) -> rpc::Result<Streaming<Bytes>>;
    /// Returns after so many turns of the scheduler.
    async fn after(&self, turns: u32) -> rpc::Result<u32>;

    async fn panics(&self, turns: u32) -> rpc::Result<()>;
    async fn panics_in_stream(&self, good: u64) -> rpc::Result<Streaming<u64>>;

    /// Returns when the test opens the gate.
    async fn wait(&self, tag: u64) -> rpc::Result<u64>;
    /// Notes when the test opens the gate.
    #[rpc(oneway)]
    async fn late_note(&self, tag: u64) -> rpc::Result<()>;
    /// Does something that must be done once: writes the ticket down, in a few turns of the scheduler.
    async fn redeem(&self, ticket: u64) -> rpc::Result<u64>;
    /// Hands this side's session and connection to the test.
    async fn introduce(&self) -> rpc::Result<()>;
    /// Aborts its own session, and never returns.
    async fn abort_session(&self, tag: u64, text: &str) -> rpc::Result<()>;

    /// Calls its caller back, which does the same, so many levels deep; tells how many there were, with what it was given.
    async fn bounce(&self, depth: u32, load: Bytes) -> rpc::Result<(u32, Bytes)>;
    /// The same for a stream each way, through all levels.
    async fn relay(&self, depth: u32, items: Streaming<Bytes>) -> rpc::Result<Streaming<Bytes>>;
    /// Bounces first, and only then reads what came up; tells the number of bytes.
    async fn bounce_then_read(&self, depth: u32, items: Streaming<Bytes>) -> rpc::Result<u64>;
}

/// What the handlers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Started(u64),
    Dropped(u64),
    Cancelled(u64),
}

#[derive(Debug)]
struct Shared {
    live: AtomicUsize,
    calls: AtomicUsize,
    notes: AtomicU64,
    noted: AtomicU64,
    events: UnboundedSender<Event>,
    downstream: OnceLock<LabClient>,
    gate: watch::Sender<bool>,
    redeemed: Mutex<HashMap<u64, u32>>,
    met: Mutex<Vec<(Session, Connection)>>,
}

/// The service. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    shared: Arc<Shared>,
}

/// What the service tells. Each event can be waited for once, in any order.
pub(crate) struct Events {
    events: Mutex<(UnboundedReceiver<Event>, Vec<Event>)>,
}

/// A running handler.
#[derive(Debug)]
struct Alive {
    shared: Arc<Shared>,
    tag: Option<u64>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.live.fetch_sub(1, Ordering::SeqCst);
        if let Some(tag) = self.tag {
            let _ = self.shared.events.send(Event::Dropped(tag));
        }
    }
}

impl Bench {
    pub(crate) fn new() -> (Self, Events) {
        let (events, told) = unbounded_channel();
        let shared = Shared {
            live: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            notes: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            events,
            downstream: OnceLock::new(),
            gate: watch::Sender::new(false),
            redeemed: Mutex::default(),
            met: Mutex::default(),
        };
        (Self { shared: Arc::new(shared) }, Events { events: Mutex::new((told, Vec::new())) })
    }

    /// Whom the handlers that call others call.
    pub(crate) fn set_downstream(&self, client: LabClient) {
        assert!(self.shared.downstream.set(client).is_ok(), "there is one downstream");
    }

    fn downstream(&self) -> &LabClient {
        self.shared.downstream.get().expect("the test set a downstream")
    }

    /// Handlers and producers of streams that exist.
    pub(crate) fn live(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }

    /// Handlers that were ever started.
    pub(crate) fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// How many one-way calls arrived, and the sum of what they brought.
    pub(crate) fn notes(&self) -> (u64, u64) {
        (self.shared.notes.load(Ordering::SeqCst), self.shared.noted.load(Ordering::SeqCst))
    }

    /// Waits until no handler is left.
    pub(crate) async fn idle(&self) {
        eventually("no handler is left", || self.live() == 0).await;
    }

    fn alive(&self) -> Alive {
        self.shared.live.fetch_add(1, Ordering::SeqCst);
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        Alive { shared: Arc::clone(&self.shared), tag: None }
    }

    /// The same for a handler that the test watches.
    fn told(&self, tag: u64) -> Alive {
        let mut alive = self.alive();
        alive.tag = Some(tag);
        let _ = self.shared.events.send(Event::Started(tag));
        alive
    }

    /// Lets the handlers return that wait for it, those of later calls too.
    pub(crate) fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    async fn gate(&self) {
        let mut gate = self.shared.gate.subscribe();
        gate.wait_for(|open| *open).await.expect("the service holds the other end");
    }

    /// How often a ticket was redeemed.
    pub(crate) fn redeemed(&self, ticket: u64) -> u32 {
        self.shared.redeemed.lock().expect("no holder panics").get(&ticket).copied().unwrap_or_default()
    }

    /// The side of the service that [`Lab::introduce`] was called on last.
    pub(crate) fn met(&self) -> (Session, Connection) {
        self.shared.met.lock().expect("no holder panics").last().cloned().expect("somebody was introduced")
    }

    fn note_one(&self, n: u64) {
        self.shared.notes.fetch_add(1, Ordering::SeqCst);
        self.shared.noted.fetch_add(n, Ordering::SeqCst);
    }
}

impl Events {
    /// Waits for an event; others are kept for those who ask for them.
    pub(crate) async fn wait_for(&self, event: Event) {
        let wait = poll_fn(|cx| {
            let mut events = self.events.lock().expect("no test panics with the lock held");
            let (coming, kept) = &mut *events;
            while let Poll::Ready(told) = coming.poll_recv(cx) {
                kept.push(told.expect("the service outlives its events"));
            }
            match kept.iter().position(|kept| *kept == event) {
                Some(at) => {
                    kept.remove(at);
                    Poll::Ready(())
                }
                None => Poll::Pending,
            }
        });
        soon(&format!("waiting for {event:?}"), wait).await;
    }

    pub(crate) async fn started(&self, tag: u64) {
        self.wait_for(Event::Started(tag)).await;
    }

    pub(crate) async fn dropped(&self, tag: u64) {
        self.wait_for(Event::Dropped(tag)).await;
    }
}

/// Gives others their turns.
async fn turns(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// What came beside the arguments of a call.
fn pairs(cx: &rpc::Context) -> Pairs {
    cx.metadata().iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
}

/// A session of a handler with the service that its caller offers.
async fn caller() -> rpc::Result<LabClient> {
    let here = || Fault::new(FaultKind::Incompatible, "there is no connection to call back on");
    let connection = Connection::current().ok_or_else(here)?;
    Ok(connection.session().open().await.map_err(Fault::from)?)
}

/// Milliseconds until the deadline of a call.
fn time_left(cx: &rpc::Context) -> Option<u64> {
    cx.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()).as_millis() as u64)
}

impl Lab for Bench {
    async fn text(&self, text: &str) -> rpc::Result<String> {
        let _alive = self.alive();
        // The borrow lives across an await.
        turns(1).await;
        Ok(text.to_uppercase())
    }

    async fn slice(&self, bytes: &[u8]) -> rpc::Result<Vec<u8>> {
        let _alive = self.alive();
        Ok(bytes.to_vec())
    }

    async fn vector(&self, bytes: Vec<u8>) -> rpc::Result<Vec<u8>> {
        let _alive = self.alive();
        Ok(bytes)
    }

    async fn shared(&self, bytes: Bytes) -> rpc::Result<Bytes> {
        let _alive = self.alive();
        Ok(bytes)
    }

    async fn maybe(&self, bytes: Option<Vec<u8>>) -> rpc::Result<Option<Vec<u8>>> {
        let _alive = self.alive();
        Ok(bytes)
    }

    async fn record(&self, record: &Record) -> rpc::Result<Record> {
        let _alive = self.alive();
        turns(1).await;
        Ok(Record { id: record.id + 1, ..record.clone() })
    }

    async fn numbers(&self, numbers: &[u64]) -> rpc::Result<u64> {
        let _alive = self.alive();
        turns(1).await;
        Ok(numbers.iter().sum())
    }

    async fn size(&self, bytes: Bytes) -> rpc::Result<u64> {
        let _alive = self.alive();
        Ok(bytes.len() as u64)
    }

    async fn zeros(&self, size: u64) -> rpc::Result<Bytes> {
        let _alive = self.alive();
        Ok(vec![0; size as usize].into())
    }

    async fn nothing(&self) -> rpc::Result<()> {
        let _alive = self.alive();
        Ok(())
    }

    async fn form(&self, form: &Form) -> rpc::Result<Form> {
        let _alive = self.alive();
        turns(1).await;
        Ok(form.clone())
    }

    async fn forms(&self, forms: Streaming<Form>) -> rpc::Result<Streaming<Form>> {
        let alive = self.alive();
        Ok(Streaming::from_results(forms.map(move |form| {
            let _alive = &alive;
            form
        })))
    }

    async fn scalars(&self, scalars: &Scalars) -> rpc::Result<Scalars> {
        let _alive = self.alive();
        Ok(scalars.clone())
    }

    async fn wide(&self, signed: i128, unsigned: u128) -> rpc::Result<(i128, u128)> {
        let _alive = self.alive();
        Ok((signed, unsigned))
    }

    async fn maps(&self, maps: Maps) -> rpc::Result<Maps> {
        let _alive = self.alive();
        Ok(maps)
    }

    async fn float(&self, float: f64) -> rpc::Result<f64> {
        let _alive = self.alive();
        Ok(float)
    }

    async fn nested(&self, nested: Option<Option<u8>>) -> rpc::Result<Option<Option<u8>>> {
        let _alive = self.alive();
        Ok(nested)
    }

    async fn places(&self, grid: BTreeMap<(u8, u8), u8>) -> rpc::Result<u64> {
        let _alive = self.alive();
        Ok(grid.len() as u64)
    }

    async fn grid(&self, rows: u8) -> rpc::Result<BTreeMap<(u8, u8), u8>> {
        let _alive = self.alive();
        Ok((0..rows).map(|row| ((row, row), row)).collect())
    }

    async fn refuse(&self, error: LabError) -> rpc::Result<(), LabError> {
        let _alive = self.alive();
        Err(error)?
    }

    async fn find(&self, key: &str) -> rpc::Result<u32, LabError> {
        let _alive = self.alive();
        match key {
            "one" => Ok(1),
            _ => Err(LabError::NoSuchKey(key.to_owned()))?,
        }
    }

    async fn gate(&self, key: &str) -> rpc::Result<u32, GateError> {
        let _alive = self.alive();
        Ok(self.downstream().find(key).await.lift::<GateError>()? + 10)
    }

    async fn disk(&self) -> rpc::Result<(), LabError> {
        let _alive = self.alive();
        Err(std::io::Error::other("torn")).or_app()?
    }

    async fn fault(&self) -> rpc::Result<()> {
        let _alive = self.alive();
        Err(Fault::new(FaultKind::TooLarge, "more than the handler takes"))?
    }

    async fn busy(&self) -> rpc::Result<()> {
        let _alive = self.alive();
        Err(Fault::new(FaultKind::Overloaded, "come again"))?
    }

    async fn items(&self, count: u64, size: u32) -> rpc::Result<Streaming<Bytes>> {
        let alive = self.alive();
        Ok(Streaming::new(stream::iter(0..count).map(move |n| {
            let _alive = &alive;
            Bytes::from(vec![n as u8; size as usize])
        })))
    }

    async fn up_to(&self, good: u64) -> rpc::Result<Streaming<u64, LabError>, LabError> {
        let alive = self.alive();
        Ok(Streaming::from_results(stream::iter(0..=good + 1).map(move |n| {
            let _alive = &alive;
            if n < good { Ok(n) } else { Err(LabError::NoSuchKey(n.to_string()).into()) }
        })))
    }

    async fn no_stream(&self) -> rpc::Result<Streaming<u64>, LabError> {
        let _alive = self.alive();
        Err(LabError::NoSuchKey("stream".into()))?
    }

    async fn endless(&self, tag: u64) -> rpc::Result<Streaming<u64>> {
        let alive = self.told(tag);
        Ok(Streaming::new(stream::iter(0..).map(move |n| {
            let _alive = &alive;
            n
        })))
    }

    async fn stuck(&self, tag: u64) -> rpc::Result<Streaming<u64>> {
        let alive = self.told(tag);
        let items = stream::once(async { 7 }).chain(stream::pending());
        Ok(Streaming::new(items.map(move |n| {
            let _alive = &alive;
            n
        })))
    }

    async fn sum(&self, mut numbers: Streaming<u64>) -> rpc::Result<u64> {
        let _alive = self.alive();
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        Ok(sum)
    }

    async fn total(&self, mut items: Streaming<Bytes>) -> rpc::Result<u64> {
        let _alive = self.alive();
        let mut bytes = 0;
        while let Some(item) = items.next().await {
            bytes += item?.len() as u64;
        }
        Ok(bytes)
    }

    async fn first(&self, count: u64, mut numbers: Streaming<u64>) -> rpc::Result<u64> {
        let _alive = self.alive();
        let mut sum = 0;
        for _ in 0..count {
            sum += numbers.next().await.transpose()?.unwrap_or(0);
        }
        Ok(sum)
    }

    async fn echo(&self, items: Streaming<Bytes>) -> rpc::Result<Streaming<Bytes>> {
        let alive = self.alive();
        Ok(Streaming::from_results(items.map(move |item| {
            let _alive = &alive;
            item
        })))
    }

    async fn hold(&self, tag: u64, items: Streaming<Bytes>) -> rpc::Result<()> {
        let _alive = self.told(tag);
        let _items = items;
        std::future::pending().await
    }

    async fn note(&self, n: u64) -> rpc::Result<()> {
        let _alive = self.alive();
        self.note_one(n);
        Ok(())
    }

    async fn large_note(&self, bytes: Bytes) -> rpc::Result<()> {
        let _alive = self.alive();
        self.note_one(bytes.len() as u64);
        Ok(())
    }

    async fn hang(&self, tag: u64) -> rpc::Result<()> {
        let _alive = self.told(tag);
        std::future::pending().await
    }

    async fn hang_downstream(&self, tag: u64) -> rpc::Result<()> {
        let _alive = self.alive();
        self.downstream().hang(tag).await
    }

    async fn watched(&self, cx: &rpc::Context, tag: u64) -> rpc::Result<()> {
        let _alive = self.told(tag);
        let (cx, events) = (cx.clone(), self.shared.events.clone());
        tokio::spawn(async move {
            cx.cancelled().await;
            let _ = events.send(Event::Cancelled(tag));
        });
        std::future::pending().await
    }

    async fn who(&self, cx: &rpc::Context) -> rpc::Result<(String, Option<u64>)> {
        let _alive = self.alive();
        Ok((cx.peer().map(|peer| peer.endpoint.clone()).unwrap_or_default(), time_left(cx)))
    }

    async fn who_downstream(&self) -> rpc::Result<(String, Option<u64>)> {
        let _alive = self.alive();
        turns(2).await;
        LabClient::who(self.downstream()).await
    }

    async fn beside(&self, cx: &rpc::Context, bytes: Bytes) -> rpc::Result<(Pairs, u64)> {
        let _alive = self.alive();
        turns(1).await;
        // Also where it is not polled for the first time.
        assert_eq!(pairs(&rpc::Context::current()), pairs(cx));
        Ok((pairs(cx), bytes.len() as u64))
    }

    async fn beside_downstream(&self) -> rpc::Result<(Pairs, u64)> {
        let _alive = self.alive();
        LabClient::beside(self.downstream(), Bytes::new()).await
    }

    async fn beside_items(&self, cx: &rpc::Context, items: Streaming<Bytes>) -> rpc::Result<Streaming<Bytes>> {
        let alive = self.alive();
        let first = Bytes::from(pairs(cx).into_iter().flat_map(|(_, value)| value).collect::<Vec<_>>());
        Ok(Streaming::from_results(stream::iter([Ok(first)]).chain(items).map(move |item| {
            let _alive = &alive;
            item
        })))
    }

    async fn after(&self, count: u32) -> rpc::Result<u32> {
        let _alive = self.alive();
        turns(count).await;
        Ok(count)
    }

    async fn panics(&self, count: u32) -> rpc::Result<()> {
        let _alive = self.alive();
        turns(count).await;
        panic!("the handler panics on purpose")
    }

    async fn panics_in_stream(&self, good: u64) -> rpc::Result<Streaming<u64>> {
        let alive = self.alive();
        Ok(Streaming::new(stream::iter(0..).map(move |n| {
            let _alive = &alive;
            assert!(n < good, "the stream panics on purpose");
            n
        })))
    }

    async fn wait(&self, tag: u64) -> rpc::Result<u64> {
        let _alive = self.told(tag);
        self.gate().await;
        Ok(tag)
    }

    async fn late_note(&self, tag: u64) -> rpc::Result<()> {
        let _alive = self.told(tag);
        self.gate().await;
        self.note_one(tag);
        Ok(())
    }

    async fn redeem(&self, ticket: u64) -> rpc::Result<u64> {
        let _alive = self.alive();
        turns((ticket % 3) as u32).await;
        *self.shared.redeemed.lock().expect("no holder panics").entry(ticket).or_default() += 1;
        turns((ticket % 5) as u32).await;
        Ok(ticket)
    }

    async fn introduce(&self) -> rpc::Result<()> {
        let _alive = self.alive();
        let met = (Session::current(), Connection::current());
        let (Some(session), Some(connection)) = met else { Err(Fault::internal("a direct call has no session"))? };
        self.shared.met.lock().expect("no holder panics").push((session, connection));
        Ok(())
    }

    async fn abort_session(&self, tag: u64, text: &str) -> rpc::Result<()> {
        let _alive = self.told(tag);
        Session::current().ok_or_else(|| Fault::internal("a direct call has no session"))?.abort(text);
        std::future::pending().await
    }

    async fn bounce(&self, depth: u32, load: Bytes) -> rpc::Result<(u32, Bytes)> {
        let _alive = self.alive();
        if depth == 0 {
            return Ok((0, load));
        }
        let (levels, load) = caller().await?.bounce(depth - 1, load).await?;
        Ok((levels + 1, load))
    }

    async fn relay(&self, depth: u32, items: Streaming<Bytes>) -> rpc::Result<Streaming<Bytes>> {
        let alive = self.alive();
        if depth > 0 {
            return Lab::relay(&caller().await?, depth - 1, items).await;
        }
        Ok(Streaming::from_results(items.map(move |item| {
            let _alive = &alive;
            item
        })))
    }

    async fn bounce_then_read(&self, depth: u32, mut items: Streaming<Bytes>) -> rpc::Result<u64> {
        let _alive = self.alive();
        caller().await?.bounce(depth, Bytes::from(pattern(1000, 0))).await?;
        let mut bytes = 0;
        while let Some(item) = items.next().await {
            bytes += item?.len() as u64;
        }
        Ok(bytes)
    }
}

/// Bytes that tell where they are out of place.
pub(crate) fn pattern(size: usize, seed: u64) -> Vec<u8> {
    (0..size as u64).map(|at| (at.wrapping_mul(31) ^ seed ^ (at >> 8)) as u8).collect()
}

/// A deadline that has no part in what a test checks.
pub(crate) const LONG: Duration = Duration::from_secs(50);
