//! Services that stay on one thread: `#[rpc::service(local)]`. The handlers hold what is not `Send`; the clients do not
//! notice.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt, stream};
use rpc::{Connection, Fault, FaultKind, Server, Streaming};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local, yield_now};

use crate::harness::{run_on, soon};

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("there is no `{0}`")]
struct Missing(String);

#[rpc::service(local)]
trait Book {
    async fn put(&self, key: &str, value: Vec<u8>) -> rpc::Result<Option<Vec<u8>>>;
    async fn get(&self, key: &str) -> rpc::Result<Vec<u8>, Missing>;
    async fn keys(&self) -> rpc::Result<Streaming<String>>;
    /// Rows are taken in one after the other by a local task.
    async fn fill(&self, table: String, rows: Streaming<(u32, String)>) -> rpc::Result<usize>;
    async fn lengths(&self, keys: Streaming<String>) -> rpc::Result<Streaming<Option<u32>>>;
    #[rpc(oneway)]
    async fn touch(&self, key: &str) -> rpc::Result<()>;
    /// Never returns, and tells when it is dropped.
    async fn hang(&self, tag: u32) -> rpc::Result<()>;
    /// Items without an end, and tells when they are dropped.
    async fn endless(&self, tag: u32) -> rpc::Result<Streaming<u64>>;
    async fn panics(&self, turns: u32) -> rpc::Result<()>;
    /// The milliseconds left by the argument and by the ambient context behind an await, and who calls.
    async fn left(&self, cx: &rpc::Context) -> rpc::Result<(Option<u64>, Option<u64>, String)>;
    async fn thread(&self) -> rpc::Result<String>;
    /// Calls side by side at the most.
    async fn together(&self) -> rpc::Result<usize>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Started(u32),
    Dropped(u32),
    Touched,
    Gone,
}

/// Neither `Send` nor `Sync`, and so are its futures.
struct Pages {
    rows: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    inside: Cell<usize>,
    most: Cell<usize>,
    events: UnboundedSender<Event>,
    home: ThreadId,
}

/// A handler that tells when it is dropped. It holds an `Rc`, so it cannot leave its thread.
struct Alive {
    _rows: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    tag: u32,
    events: UnboundedSender<Event>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Dropped(self.tag));
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.home, "a local service is dropped where it lives");
        let _ = self.events.send(Event::Gone);
    }
}

impl Pages {
    fn new() -> (Self, UnboundedReceiver<Event>) {
        let (events, told) = unbounded_channel();
        let home = thread::current().id();
        (Self { rows: Rc::default(), inside: Cell::new(0), most: Cell::new(0), events, home }, told)
    }

    fn alive(&self, tag: u32) -> Alive {
        let _ = self.events.send(Event::Started(tag));
        Alive { _rows: Rc::clone(&self.rows), tag, events: self.events.clone() }
    }
}

fn milliseconds(cx: &rpc::Context) -> Option<u64> {
    cx.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()).as_millis() as u64)
}

impl Book for Pages {
    async fn put(&self, key: &str, value: Vec<u8>) -> rpc::Result<Option<Vec<u8>>> {
        let rows = Rc::clone(&self.rows);
        // The `Rc` and the borrow of the argument live across an await.
        yield_now().await;
        Ok(rows.borrow_mut().insert(key.to_owned(), value))
    }

    async fn get(&self, key: &str) -> rpc::Result<Vec<u8>, Missing> {
        let value = self.rows.borrow().get(key).cloned();
        Ok(value.ok_or_else(|| Missing(key.to_owned()))?)
    }

    async fn keys(&self) -> rpc::Result<Streaming<String>> {
        Ok(self.rows.borrow().keys().cloned().collect())
    }

    async fn fill(&self, table: String, mut rows: Streaming<(u32, String)>) -> rpc::Result<usize> {
        let mut filled = 0;
        while let Some(row) = rows.next().await {
            let (number, text) = row?;
            self.rows.borrow_mut().insert(format!("{table}{number}"), text.into_bytes());
            filled += 1;
        }
        Ok(filled)
    }

    async fn lengths(&self, mut keys: Streaming<String>) -> rpc::Result<Streaming<Option<u32>>> {
        // What is read stays here; only the lengths leave.
        let (mut lengths, items) = futures::channel::mpsc::channel(1);
        let rows = Rc::clone(&self.rows);
        spawn_local(async move {
            while let Some(Ok(key)) = keys.next().await {
                let length = rows.borrow().get(&key).map(|value| value.len() as u32);
                if lengths.send(length).await.is_err() {
                    return;
                }
            }
        });
        Ok(Streaming::new(items))
    }

    async fn touch(&self, key: &str) -> rpc::Result<()> {
        self.rows.borrow_mut().entry(key.to_owned()).or_default().push(b'!');
        let _ = self.events.send(Event::Touched);
        Ok(())
    }

    async fn hang(&self, tag: u32) -> rpc::Result<()> {
        let _alive = self.alive(tag);
        std::future::pending().await
    }

    async fn endless(&self, tag: u32) -> rpc::Result<Streaming<u64>> {
        let (mut numbers, items) = futures::channel::mpsc::channel(1);
        let alive = self.alive(tag);
        spawn_local(async move {
            let _alive = alive;
            let mut number = 0;
            while numbers.send(number).await.is_ok() {
                number += 1;
            }
        });
        Ok(Streaming::new(items))
    }

    async fn panics(&self, turns: u32) -> rpc::Result<()> {
        for _ in 0..turns {
            yield_now().await;
        }
        panic!("the handler panics on purpose")
    }

    async fn left(&self, cx: &rpc::Context) -> rpc::Result<(Option<u64>, Option<u64>, String)> {
        yield_now().await;
        let peer = cx.peer().map(|peer| peer.endpoint.clone()).unwrap_or_default();
        Ok((milliseconds(cx), milliseconds(&rpc::Context::current()), peer))
    }

    async fn thread(&self) -> rpc::Result<String> {
        Ok(format!("{:?}", thread::current().id()))
    }

    async fn together(&self) -> rpc::Result<usize> {
        self.inside.set(self.inside.get() + 1);
        self.most.set(self.most.get().max(self.inside.get()));
        for _ in 0..200 {
            yield_now().await;
        }
        self.inside.set(self.inside.get() - 1);
        Ok(self.most.get())
    }
}

/// Runs a test within a `LocalSet`; the servers' and clients' connections are driven by both workers.
#[track_caller]
fn run_local<F: Future>(test: F) -> F::Output {
    run_on(2, async { LocalSet::new().run_until(test).await })
}

async fn wait_for(told: &mut UnboundedReceiver<Event>, event: Event) {
    let wait = async {
        while let Some(told) = told.recv().await {
            if told == event {
                return;
            }
        }
        panic!("the service is gone, and never told {event:?}")
    };
    soon(&format!("waiting for {event:?}"), wait).await;
}

/// Where a client's calls go.
#[derive(Debug, Clone, Copy)]
enum Way {
    Tcp,
    Memory,
    Local,
}

const WAYS: [Way; 3] = [Way::Tcp, Way::Memory, Way::Local];

impl Way {
    async fn to(self, service: Pages) -> (BookClient, Option<Server>) {
        let endpoint = match self {
            Self::Tcp => "tcp://127.0.0.1:0".to_owned(),
            Self::Memory => format!("mem://book-{:?}", thread::current().id()),
            Self::Local => return (rpc::local(BookServer::new(service)), None),
        };
        let server = Server::builder().service(BookServer::new(service)).listen(&*endpoint).await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        (connection.session().open().await.unwrap(), Some(server))
    }
}

/// The test on each way, in a `LocalSet` of its own.
#[track_caller]
fn on_each_way(test: impl AsyncFn(BookClient, UnboundedReceiver<Event>)) {
    for way in WAYS {
        run_local(async {
            let (service, told) = Pages::new();
            let (book, server) = way.to(service).await;
            test(book, told).await;
            drop(server);
        });
    }
}

/// Code over the trait takes the service itself, its `Rc` and its client.
async fn exercise(book: &impl Book) {
    assert_eq!(book.put("a", vec![1, 2, 3]).await.unwrap(), None);
    assert_eq!(book.put("a", vec![4]).await.unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(book.get("a").await.unwrap(), [4]);
    assert_eq!(book.get("b").await.unwrap_err().app(), Some(&Missing("b".to_owned())));
    let rows = [(1, "one".to_owned()), (2, "twelve".to_owned())];
    assert_eq!(book.fill("t".to_owned(), rows.into_iter().collect()).await.unwrap(), 2);
    let keys: Vec<_> = book.keys().await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(keys, ["a", "t1", "t2"]);
    let asked = ["t2", "none", "t1"].map(str::to_owned).into_iter().collect();
    let lengths: Vec<_> = book.lengths(asked).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(lengths, [Some(6), None, Some(3)]);
}

#[test]
fn a_local_service_that_holds_an_rc_is_served_in_every_form() {
    on_each_way(async |book, mut told| {
        exercise(&book).await;
        book.touch("a").await.unwrap();
        wait_for(&mut told, Event::Touched).await;
        assert_eq!(book.get("a").await.unwrap(), [4, b'!']);
    });
}

#[test]
fn a_local_service_is_its_own_trait_without_a_server() {
    run_local(async {
        exercise(&Pages::new().0).await;
        exercise(&Rc::new(Pages::new().0)).await;
    });
}

#[test]
fn the_calls_of_a_local_service_are_send_and_its_handlers_stay() {
    on_each_way(async |book, _told| {
        let here = format!("{:?}", thread::current().id());
        for _ in 0..8 {
            // Other workers' tasks make the calls, by the inherent method.
            assert_eq!(tokio::spawn(book.thread()).await.unwrap().unwrap(), here);
        }
        assert_eq!(tokio::spawn(book.fill("t".to_owned(), stream::iter([(1, "x".to_owned())]))).await.unwrap().unwrap(), 1);
    });
}

#[test]
fn the_calls_of_a_local_service_run_side_by_side() {
    on_each_way(async |book, _told| {
        let calls = (0..100).map(|_| tokio::spawn(book.together()));
        let most = futures::future::join_all(calls).await.into_iter().map(|most| most.unwrap().unwrap()).max();
        // More than the queue to the thread holds: what waits there does not wait for the handlers before it.
        assert!(most > Some(32), "{most:?}");
    });
}

#[test]
fn a_dropped_call_drops_the_handler_of_a_local_service() {
    on_each_way(async |book, mut told| {
        let call = tokio::spawn(book.hang(1));
        wait_for(&mut told, Event::Started(1)).await;
        call.abort();
        wait_for(&mut told, Event::Dropped(1)).await;

        let over = book.hang(2).timeout(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(over.fault().map(Fault::kind), Some(FaultKind::Deadline));
        wait_for(&mut told, Event::Dropped(2)).await;

        let mut items = book.endless(3).await.unwrap();
        for number in 0..10 {
            assert_eq!(items.next().await.unwrap().unwrap(), number);
        }
        drop(items);
        wait_for(&mut told, Event::Dropped(3)).await;
    });
}

#[test]
fn a_panic_of_a_local_handler_is_that_calls_fault_alone() {
    on_each_way(async |book, mut told| {
        let neighbour = tokio::spawn(book.hang(1));
        wait_for(&mut told, Event::Started(1)).await;
        for turns in [0, 3] {
            let fault = book.panics(turns).await.unwrap_err();
            let fault = fault.fault().unwrap();
            assert_eq!((fault.kind(), fault.detail(), fault.may_have_run()), (FaultKind::Internal, "the handler panicked", true));
        }
        exercise(&book).await;
        assert!(!neighbour.is_finished());
        neighbour.abort();
    });
}

#[test]
fn the_context_of_a_call_is_ambient_in_a_local_handler() {
    on_each_way(async |book, _told| {
        let (argument, ambient, peer) = book.left().timeout(Duration::from_secs(20)).await.unwrap();
        for left in [argument, ambient] {
            assert!(left.is_some_and(|left| (10_000..=20_000).contains(&left)), "{left:?}");
        }
        assert!(!peer.is_empty());
        // The trait's method takes the deadline of the context that it is handed.
        let cx = rpc::Context::with_deadline(Instant::now() + Duration::from_secs(10));
        let (argument, ambient, _) = Book::left(&book, &cx).await.unwrap();
        for left in [argument, ambient] {
            assert!(left.is_some_and(|left| left <= 10_000), "{left:?}");
        }
    });
}

#[test]
fn a_local_service_is_dropped_on_its_thread_when_nobody_can_call_it_any_more() {
    run_local(async {
        for way in WAYS {
            let (service, mut told) = Pages::new();
            let (book, server) = way.to(service).await;
            book.put("a", vec![1]).await.unwrap();
            // From another thread.
            tokio::spawn(async move {
                drop(book);
                if let Some(server) = server {
                    server.shutdown().await;
                }
            });
            wait_for(&mut told, Event::Gone).await;
        }
    });
}

#[test]
fn the_calls_of_a_service_whose_thread_has_ended_fail() {
    run_on(2, async {
        let set = LocalSet::new();
        let (service, _told) = Pages::new();
        let (book, server) = set.run_until(Way::Tcp.to(service)).await;
        let local: BookClient = set.run_until(async { rpc::local(BookServer::new(Pages::new().0)) }).await;
        let waiting = tokio::spawn(book.get("a"));
        drop(set);
        for call in [soon("the call under way", waiting).await.unwrap(), book.get("a").await, local.get("a").await] {
            let error = call.unwrap_err();
            let fault = error.fault().unwrap();
            assert_eq!((fault.kind(), fault.detail()), (FaultKind::Internal, "the thread of the service has ended"));
        }
        drop(server);
    });
}

/// What is left open and what stays on its thread go together.
#[rpc::service(local)]
trait Slot<T: Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static> {
    async fn swap(&self, value: &T) -> rpc::Result<Option<T>>;
}

impl<T: Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static> Slot<T> for RefCell<Option<T>> {
    async fn swap(&self, value: &T) -> rpc::Result<Option<T>> {
        Ok(self.replace(Some(value.clone())))
    }
}

#[test]
fn a_local_service_may_leave_types_open() {
    run_local(async {
        let slot = Rc::new(RefCell::new(None::<String>));
        let server = Server::builder().service(SlotServer::new(Rc::clone(&slot))).listen("tcp://127.0.0.1:0").await.unwrap();
        let client: SlotClient<String> = rpc::connect(server.endpoint()).await.unwrap();
        assert_eq!(client.swap(&"one".to_owned()).await.unwrap(), None);
        // The service is shared with code of its own thread.
        assert_eq!(slot.replace(Some("two".to_owned())).as_deref(), Some("one"));
        assert_eq!(client.swap(&"three".to_owned()).await.unwrap().as_deref(), Some("two"));
    });
}

#[test]
#[should_panic = "LocalSet"]
fn a_local_service_is_given_to_a_local_set() {
    run_on(2, async { BookServer::new(Pages::new().0) });
}
