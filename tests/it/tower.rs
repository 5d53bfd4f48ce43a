//! Layers of tower around services and around sessions. What holds on both sides is one case, run on each.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use futures::{StreamExt, stream};
use rpc::tower::{BoxError, Inner, Stack, layered};
use rpc::{Connection, Fault, FaultKind, Metadata, Reply, Request, Server, Streaming};
use tokio::sync::Barrier;
use tower::filter::AsyncFilterLayer;
use tower::layer::layer_fn;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, retry};

use crate::harness::{eventually, run, soon};
use crate::lab::{Bench, Event, Events, LONG, LabClient, LabServer};

/// On which side the layers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

macro_rules! on_both_sides {
    ($($case:ident),* $(,)?) => {
        mod on_the_server {
            $(#[test] fn $case() { crate::harness::run(super::$case(super::Side::Server)); })*
        }
        mod on_the_client {
            $(#[test] fn $case() { crate::harness::run(super::$case(super::Side::Client)); })*
        }
    };
}

on_both_sides! {
    a_timeout_ends_the_call_and_drops_its_handler,
    a_concurrency_limit_limits_and_all_calls_get_their_turn,
    an_overloaded_stack_sheds_calls_before_any_handler,
    a_call_that_waits_in_a_layer_can_be_dropped_and_has_its_deadline,
    an_auth_layer_asks_another_service_and_denies_before_any_handler,
    every_form_of_call_goes_through_layers_and_is_refused_by_them,
    errors_of_layers_become_faults,
    a_layer_that_panics_fails_its_call_alone,
    a_layer_may_answer_itself,
    layers_see_service_method_deadline_and_metadata,
}

/// A service and a client of it, with layers on one of the sides.
struct Rig {
    lab: LabClient,
    bench: Bench,
    events: Events,
    _server: Server,
}

impl Rig {
    async fn new<L>(side: Side, layer: L) -> Self
    where
        L: Layer<Inner> + Send + Sync + 'static,
        L::Service: Stack,
    {
        let (bench, events) = Bench::new();
        let service = LabServer::new(bench.clone());
        let (server, lab) = match side {
            Side::Server => {
                let server = Server::builder().service(layered(service, layer)).listen("tcp://127.0.0.1:0").await.unwrap();
                let lab = rpc::connect(server.endpoint()).await.unwrap();
                (server, lab)
            }
            Side::Client => {
                let server = Server::builder().service(service).listen("tcp://127.0.0.1:0").await.unwrap();
                let connection = Connection::open(server.endpoint()).await.unwrap();
                let lab = connection.session().layer(layer).open().await.unwrap();
                (server, lab)
            }
        };
        Self { lab, bench, events, _server: server }
    }

    async fn still_works(&self) {
        assert_eq!(self.lab.text("still here").await.unwrap(), "STILL HERE");
        self.bench.idle().await;
    }
}

fn fault<T: std::fmt::Debug, E: std::fmt::Debug>(result: rpc::Result<T, E>) -> Fault {
    match result {
        Err(rpc::Error::Fault(fault)) => fault,
        other => panic!("{other:?} is no fault"),
    }
}

/// A layer that sees each call before it goes on, and may refuse it.
fn seeing<F>(see: F) -> impl Layer<Inner, Service: Stack> + Clone + Send + Sync + 'static
where
    F: Fn(Request) -> Result<Request, BoxError> + Clone + Send + Sync + 'static,
{
    AsyncFilterLayer::new(move |request: Request| std::future::ready(see(request)))
}

// ---- the layers of tower -------------------------------------------------------------------------------------------

async fn a_timeout_ends_the_call_and_drops_its_handler(side: Side) {
    let rig = Rig::new(side, ServiceBuilder::new().timeout(Duration::from_millis(60))).await;
    let late = fault(soon("the layer's timeout ends the call", rig.lab.hang(1).timeout(LONG)).await);
    assert_eq!((late.kind(), late.may_have_run()), (FaultKind::Deadline, true), "{late}");
    rig.events.started(1).await;
    rig.events.dropped(1).await;
    rig.still_works().await;
}

mod gauge {
    #[rpc::service]
    pub(crate) trait Gauge {
        /// Returns when as many calls as the test says run at once.
        async fn meet(&self, n: u64) -> rpc::Result<u64>;
    }
}

struct Gauged {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    barrier: Barrier,
}

impl gauge::Gauge for Gauged {
    async fn meet(&self, n: u64) -> rpc::Result<u64> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.barrier.wait().await;
        tokio::task::yield_now().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(n + 1)
    }
}

async fn a_concurrency_limit_limits_and_all_calls_get_their_turn(side: Side) {
    const LIMIT: usize = 4;
    let most = Arc::new(AtomicUsize::new(0));
    let service = Gauged { running: Arc::default(), most: Arc::clone(&most), barrier: Barrier::new(LIMIT) };
    let (service, layer) = (gauge::GaugeServer::new(service), ServiceBuilder::new().concurrency_limit(LIMIT));
    let server = Server::builder();
    let server = match side {
        Side::Server => server.service(layered(service, layer.clone())),
        Side::Client => server.service(service),
    };
    let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
    let connection = Connection::open(server.endpoint()).await.unwrap();
    let session = connection.session();
    let client: gauge::GaugeClient = match side {
        Side::Server => session.open().await.unwrap(),
        Side::Client => session.layer(layer).open().await.unwrap(),
    };
    // None returns before four run at once, so the limit is reached; a fifth would be seen.
    let calls = (0..25 * LIMIT as u64).map(|n| tokio::spawn(client.meet(n)));
    for (n, call) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(call.unwrap().unwrap(), n as u64 + 1);
    }
    assert_eq!(most.load(Ordering::SeqCst), LIMIT);
}

async fn an_overloaded_stack_sheds_calls_before_any_handler(side: Side) {
    let rig = Rig::new(side, ServiceBuilder::new().load_shed().concurrency_limit(2)).await;
    let busy = [1, 2].map(|tag| tokio::spawn(rig.lab.hang(tag)));
    rig.events.started(1).await;
    rig.events.started(2).await;
    for _ in 0..10 {
        let refused = fault(rig.lab.text("never").await);
        assert_eq!((refused.kind(), refused.may_have_run()), (FaultKind::Overloaded, false), "{refused}");
    }
    assert_eq!(rig.bench.calls(), 2);
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    rig.events.dropped(1).await;
    rig.events.dropped(2).await;
    // The handler is dropped before the place in the stack is given back.
    let answered = async { while rig.lab.text("again").await.is_err() {} };
    soon("there is room again", answered).await;
}

async fn a_call_that_waits_in_a_layer_can_be_dropped_and_has_its_deadline(side: Side) {
    let rig = Rig::new(side, ServiceBuilder::new().concurrency_limit(1)).await;
    let first = tokio::spawn(rig.lab.hang(1));
    rig.events.started(1).await;
    let dropped: Vec<_> = (0..20).map(|_| tokio::spawn(rig.lab.hang(2))).collect();
    let late = fault(soon("the deadline ends the wait", rig.lab.hang(3).timeout(Duration::from_millis(60))).await);
    assert_eq!(late.kind(), FaultKind::Deadline);
    // Here it is known that nothing was sent; the server's word for a deadline promises nothing.
    assert_eq!(late.may_have_run(), side == Side::Server);
    for call in dropped {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    first.abort();
    rig.events.dropped(1).await;
    let last = tokio::spawn(rig.lab.hang(4));
    rig.events.started(4).await;
    last.abort();
    rig.events.dropped(4).await;
    assert_eq!(rig.bench.calls(), 2, "those that were dropped while they waited were never started");
    rig.still_works().await;
}

// ---- layers of an application --------------------------------------------------------------------------------------

mod tokens {
    #[rpc::service]
    pub(crate) trait Tokens {
        async fn user_of(&self, token: &str) -> rpc::Result<Option<String>>;
        async fn token_for(&self, user: &str) -> rpc::Result<String>;
    }

    pub(crate) struct Book;

    impl Tokens for Book {
        async fn user_of(&self, token: &str) -> rpc::Result<Option<String>> {
            tokio::task::yield_now().await;
            Ok(token.strip_prefix("token-of-").map(str::to_owned))
        }

        async fn token_for(&self, user: &str) -> rpc::Result<String> {
            tokio::task::yield_now().await;
            Ok(format!("token-of-{user}"))
        }
    }
}

use tokens::{TokensClient, TokensServer};

/// A service of tokens, over a socket of its own.
async fn token_service() -> (Server, TokensClient) {
    let server = Server::builder().service(TokensServer::new(tokens::Book)).listen("tcp://127.0.0.1:0").await.unwrap();
    let client = rpc::connect(server.endpoint()).await.unwrap();
    (server, client)
}

/// Lets calls with a known token pass, and tells the handler whose it is.
#[derive(Debug, Clone)]
struct Auth<S> {
    inner: S,
    tokens: TokensClient,
}

fn auth(tokens: TokensClient) -> impl Layer<Inner, Service = Auth<Inner>> + Clone + Send + Sync {
    layer_fn(move |inner| Auth { inner, tokens: tokens.clone() })
}

impl<S> Service<Request> for Auth<S>
where
    S: Service<Request, Response = Reply, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // The one that is ready is used up; a clone of it may not be.
        let clone = self.inner.clone();
        let (mut inner, tokens) = (std::mem::replace(&mut self.inner, clone), self.tokens.clone());
        Box::pin(async move {
            let token = request.metadata().get_text("authorization").unwrap_or_default().to_owned();
            let user = tokens.user_of(&token).await?.ok_or_else(|| Fault::denied("a token is needed"))?;
            request.metadata_mut().insert("user", user)?;
            request.metadata_mut().remove("authorization");
            inner.call(request).await
        })
    }
}

async fn an_auth_layer_asks_another_service_and_denies_before_any_handler(side: Side) {
    let (token_server, tokens) = token_service().await;
    let rig = Rig::new(side, auth(tokens)).await;
    for call in [rig.lab.text("never"), rig.lab.text("never").metadata("authorization", "a lie")] {
        let denied = fault(call.await);
        assert_eq!((denied.kind(), denied.detail()), (FaultKind::Denied, "a token is needed"));
        assert!(!denied.may_have_run());
    }
    assert_eq!(rig.bench.calls(), 0);
    // The handler finds what the layer has left there, and nothing of what it took away. What a caller claims is replaced.
    let call = LabClient::beside(&rig.lab, Bytes::new()).metadata("user", "root").metadata("authorization", "token-of-ada");
    assert_eq!(call.await.unwrap().0, [("user".to_owned(), b"ada".to_vec())]);
    let calls = (0..100).map(|n| {
        let call = LabClient::beside(&rig.lab, Bytes::new()).metadata("authorization", format!("token-of-{n}"));
        tokio::spawn(call)
    });
    for (n, call) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(call.unwrap().unwrap().0, [("user".to_owned(), n.to_string().into_bytes())]);
    }
    // Nobody to ask: the layer's own call fails, and this one was not started for it.
    token_server.shutdown().await;
    let failed = fault(rig.lab.text("never").metadata("authorization", "token-of-ada").await);
    assert!(matches!(failed.kind(), FaultKind::Internal | FaultKind::NotStarted | FaultKind::Indeterminate), "{failed}");
    assert_eq!(rig.bench.calls(), 101);
}

#[test]
fn a_layer_of_the_client_fetches_the_token_that_one_of_the_server_checks() {
    run(async {
        let (_token_server, tokens) = token_service().await;
        let (bench, _events) = Bench::new();
        let service = layered(LabServer::new(bench.clone()), auth(tokens.clone()));
        let server = Server::builder().service(service).listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let signing = AsyncFilterLayer::new(move |mut request: Request| {
            let tokens = tokens.clone();
            async move {
                let token = tokens.token_for("grace").await?;
                request.metadata_mut().insert("authorization", token)?;
                Ok::<_, BoxError>(request)
            }
        });
        let unsigned: LabClient = connection.session().open().await.unwrap();
        let signed: LabClient = connection.session().layer(signing).open().await.unwrap();
        assert_eq!(fault(unsigned.text("a").await).kind(), FaultKind::Denied);
        assert_eq!(signed.text("a").await.unwrap(), "A");
        assert_eq!(signed.sum(stream::iter(0..10)).await.unwrap(), 45);
        let (user, _) = LabClient::beside(&signed, Bytes::new()).await.unwrap();
        assert_eq!(user, [("user".to_owned(), b"grace".to_vec())]);
    });
}

async fn every_form_of_call_goes_through_layers_and_is_refused_by_them(side: Side) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = {
        let seen = Arc::clone(&seen);
        seeing(move |request| {
            seen.lock().unwrap().push(request.info().name);
            match request.metadata().get("pass") {
                Some(_) => Ok(request),
                None => Err(Fault::denied("not you").into()),
            }
        })
    };
    let rig = Rig::new(side, layer).await;
    let lab = &rig.lab;
    let up = || stream::iter(0..5000u64);
    let echoed = || stream::iter((0..2000u32).map(|n| Bytes::from(vec![n as u8; 100])));
    let faults = [
        fault(lab.text("a").await),
        fault(lab.items(5, 5).await.map(drop)),
        fault(lab.sum(up()).await),
        fault(lab.echo(echoed()).await.map(drop)),
    ];
    for refused in faults {
        assert_eq!((refused.kind(), refused.may_have_run()), (FaultKind::Denied, false), "{refused}");
    }
    // Of a one-way call the other side says nothing.
    assert_eq!(lab.note(1).await.is_err(), side == Side::Client);
    eventually("the note is refused", || seen.lock().unwrap().len() == 5).await;
    assert_eq!(rig.bench.calls(), 0);

    assert_eq!(lab.text("a").metadata("pass", "").await.unwrap(), "A");
    let items: Vec<_> = lab.items(5000, 5).metadata("pass", "").await.unwrap().collect().await;
    assert_eq!(items.len(), 5000);
    assert_eq!(lab.sum(up()).metadata("pass", "").await.unwrap(), 4999 * 2500);
    let back: Vec<_> = lab.echo(echoed()).metadata("pass", "").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(back, echoed().collect::<Vec<_>>().await);
    lab.note(7).metadata("pass", "").await.unwrap();
    eventually("the note arrives", || rig.bench.notes() == (1, 7)).await;
    let names = ["text", "items", "sum", "echo", "note"];
    assert_eq!(*seen.lock().unwrap(), [names, names].concat());
    // A stream that is dropped stops its producer through the layers too.
    let mut items = lab.endless(1).metadata("pass", "").await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), 0);
    drop(items);
    rig.events.wait_for(Event::Dropped(1)).await;
    rig.bench.idle().await;
}

async fn errors_of_layers_become_faults(side: Side) {
    async fn elapsed() -> tokio::time::error::Elapsed {
        tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await.unwrap_err()
    }
    let late = elapsed().await.to_string();
    let make: Arc<Mutex<Option<BoxError>>> = Arc::default();
    let layer = {
        let make = Arc::clone(&make);
        seeing(move |request| match make.lock().unwrap().take() {
            Some(error) => Err(error),
            None => Ok(request),
        })
    };
    let rig = Rig::new(side, layer).await;
    let downstream: rpc::Error = Fault::new(FaultKind::Overloaded, "the other one is busy").into();
    let no_key = Metadata::new().insert("No Key", "").unwrap_err();
    // The class, the words, and whether the caller may be told that nothing was started. What the server's layers say
    // of another class travels without that promise.
    let cases: [(BoxError, FaultKind, &str, bool); 7] = [
        (Fault::denied("no").into(), FaultKind::Denied, "no", true),
        (Fault::new(FaultKind::Overloaded, "come again").into(), FaultKind::Overloaded, "come again", true),
        (Box::new(tower::load_shed::error::Overloaded::new()), FaultKind::Overloaded, "service overloaded", true),
        (Box::new(tower::timeout::error::Elapsed::new()), FaultKind::Deadline, "request timed out", side == Side::Client),
        (Box::new(elapsed().await), FaultKind::Deadline, &late, side == Side::Client),
        (Box::new(io::Error::other("the disk is gone")), FaultKind::Internal, "the disk is gone", side == Side::Client),
        (Box::new(no_key), FaultKind::Incompatible, "`No Key`", true),
    ];
    for (error, kind, words, not_run) in cases {
        *make.lock().unwrap() = Some(error);
        let refused = fault(rig.lab.text("never").await);
        assert_eq!((refused.kind(), refused.may_have_run()), (kind, !not_run), "{refused}");
        assert!(refused.detail().contains(words), "{refused}");
    }
    // A call that the layer made was not started; that is no word about this one.
    *make.lock().unwrap() = Some(downstream.into());
    let refused = fault(rig.lab.text("never").await);
    assert!(refused.may_have_run(), "{refused}");
    assert_eq!(rig.bench.calls(), 0);
    rig.still_works().await;
}

async fn a_layer_that_panics_fails_its_call_alone(side: Side) {
    let layer = seeing(|request| if request.info().name == "disk" { panic!("on purpose") } else { Ok(request) });
    let rig = Rig::new(side, layer).await;
    let neighbour = tokio::spawn(rig.lab.hang(1));
    rig.events.started(1).await;
    match side {
        Side::Server => assert_eq!(fault(rig.lab.disk().await).kind(), FaultKind::Internal),
        // It panics where it runs: in the caller's own task.
        Side::Client => assert!(tokio::spawn(rig.lab.disk()).await.unwrap_err().is_panic()),
    }
    assert!(!neighbour.is_finished());
    neighbour.abort();
    rig.still_works().await;
}

/// Answers what it has seen before.
async fn a_layer_may_answer_itself(side: Side) {
    let known: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let layer = layer_fn(move |inner: Inner| {
        let known = Arc::clone(&known);
        tower::service_fn(move |request: Request| {
            let (known, inner) = (Arc::clone(&known), inner.clone());
            async move {
                if let Some(answer) = known.lock().unwrap().clone() {
                    return Ok(Reply::Message(answer));
                }
                let reply = inner.oneshot(request).await?;
                if let Reply::Message(answer) = &reply {
                    *known.lock().unwrap() = Some(answer.clone());
                }
                Ok::<_, BoxError>(reply)
            }
        })
    });
    let rig = Rig::new(side, layer).await;
    // An application's error is no answer to be kept.
    rig.lab.find("two").await.unwrap_err().app().unwrap();
    assert_eq!(rig.lab.text("first").await.unwrap(), "FIRST");
    assert_eq!(rig.lab.text("second").await.unwrap(), "FIRST");
    assert_eq!(rig.bench.calls(), 2);
    // One that answers in another form than the method has is told so.
    let wrong = fault(rig.lab.items(1, 1).await.map(drop));
    assert_eq!((wrong.kind(), wrong.detail()), (FaultKind::Internal, "a layer answered in another form than the method has"));
    rig.bench.idle().await;
}

async fn layers_see_service_method_deadline_and_metadata(side: Side) {
    let layer = seeing(move |request| {
        assert_eq!((request.service().name, request.info().name), ("Lab", "text"));
        assert_eq!(request.service().methods[request.method() as usize], *request.info());
        assert_eq!(request.body(), b"\x01a");
        assert_eq!(request.metadata().get_text("k"), Some("v"));
        let left = request.deadline().unwrap().saturating_duration_since(std::time::Instant::now());
        assert!(left <= LONG && left > LONG / 2, "{left:?}");
        if side == Side::Server {
            let cx = rpc::Context::current();
            assert!(cx.peer().unwrap().endpoint.starts_with("tcp://127.0.0.1:"));
            assert_eq!(cx.metadata(), request.metadata());
            assert_eq!(cx.deadline(), request.deadline());
        }
        let shown = format!("{request:?}");
        assert!(shown.contains("text") && !shown.contains("hush"), "{shown}");
        Ok(request)
    });
    let rig = Rig::new(side, layer).await;
    assert_eq!(rig.lab.text("a").metadata("k", "v").metadata("db-secret", "hush").timeout(LONG).await.unwrap(), "A");
}

// ---- trying again --------------------------------------------------------------------------------------------------

/// Tries again whatever failed, so many times.
#[derive(Debug, Clone)]
struct Again {
    left: usize,
    /// Only where the fault promises that nothing was started.
    only_safe: bool,
}

impl retry::Policy<Request, Reply, BoxError> for Again {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Reply, BoxError>) -> Option<Self::Future> {
        let fault = result.as_ref().ok()?.as_fault()?;
        if self.left == 0 || (self.only_safe && fault.may_have_run()) {
            return None;
        }
        self.left -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        request.try_clone()
    }
}

/// A server whose layer refuses the calls of these numbers, and a client that tries again.
async fn flaky(refused: &'static [usize], policy: Again) -> (Rig, Arc<AtomicUsize>) {
    let (bench, events) = Bench::new();
    let tried = Arc::new(AtomicUsize::new(0));
    let layer = {
        let tried = Arc::clone(&tried);
        seeing(move |request| match tried.fetch_add(1, Ordering::SeqCst) {
            n if refused.contains(&n) => Err(Fault::new(FaultKind::Overloaded, format!("refused number {n}")).into()),
            _ => Ok(request),
        })
    };
    let service = layered(LabServer::new(bench.clone()), layer);
    let server = Server::builder().service(service).listen("tcp://127.0.0.1:0").await.unwrap();
    let connection = Connection::open(server.endpoint()).await.unwrap();
    let lab = connection.session().layer(retry::RetryLayer::new(policy)).open().await.unwrap();
    (Rig { lab, bench, events, _server: server }, tried)
}

#[test]
fn a_retry_layer_tries_again_what_was_not_started() {
    run(async {
        let (rig, tried) = flaky(&[0, 1, 3, 5, 7], Again { left: 3, only_safe: true }).await;
        let count = || tried.swap(0, Ordering::SeqCst);
        let (beside, length) = LabClient::beside(&rig.lab, Bytes::from_static(b"abc")).metadata("k", "v").await.unwrap();
        assert_eq!((beside, length), (vec![("k".to_owned(), b"v".to_vec())], 3), "metadata and arguments come again");
        assert_eq!((count(), rig.bench.calls()), (3, 1));
        // Items down are asked for again.
        assert_eq!(rig.lab.items(3, 1).await.unwrap().count().await, 3);
        assert_eq!(count(), 3);
        // There is one stream of items up, so there is one try.
        let refused = fault(rig.lab.sum(stream::iter(0..3)).await);
        assert_eq!((refused.kind(), refused.may_have_run(), count()), (FaultKind::Overloaded, false, 1));
        // What may have run is left alone by this policy.
        tried.store(2, Ordering::SeqCst);
        assert_eq!(fault(rig.lab.panics(0).await).kind(), FaultKind::Internal);
        assert_eq!(tried.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_promise_that_nothing_was_started_holds_for_all_that_was_tried() {
    run(async {
        // The first try runs a handler and fails; the second is refused, and promises nothing for the first.
        let (rig, _) = flaky(&[1], Again { left: 1, only_safe: false }).await;
        let refused = fault(rig.lab.panics(0).await);
        assert_eq!((refused.kind(), refused.detail(), refused.may_have_run()), (FaultKind::Overloaded, "refused number 1", true));
        assert_eq!(rig.bench.calls(), 1);
        // Where both are refused, it is true of both.
        let (rig, tried) = flaky(&[0, 1], Again { left: 1, only_safe: false }).await;
        let refused = fault(rig.lab.panics(0).await);
        assert_eq!((refused.kind(), refused.may_have_run()), (FaultKind::Overloaded, false));
        assert_eq!((tried.load(Ordering::SeqCst), rig.bench.calls()), (2, 0));
    });
}

// ---- layers over layers --------------------------------------------------------------------------------------------

/// Notes its name in the metadata.
fn named(name: &'static str) -> impl Layer<Inner, Service: Stack> + Clone + Send + Sync + 'static {
    seeing(move |mut request| {
        let path = request.metadata().get_text("path").unwrap_or_default().to_owned();
        request.metadata_mut().insert("path", path + name)?;
        Ok(request)
    })
}

#[test]
fn of_several_layers_the_first_of_a_session_and_the_last_of_a_service_is_outermost() {
    run(async {
        let (bench, _events) = Bench::new();
        let service = layered(layered(LabServer::new(bench), named("d")), named("c"));
        let server = Server::builder().service(service).listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let lab: LabClient = connection.session().layer(named("a")).layer(named("b")).open().await.unwrap();
        let (beside, _) = LabClient::beside(&lab, Bytes::new()).await.unwrap();
        assert_eq!(beside, [("path".to_owned(), b"abcd".to_vec())]);
    });
}

#[test]
fn a_layer_below_another_still_promises_that_nothing_was_started() {
    run(async {
        let (bench, _events) = Bench::new();
        let denying = || seeing(|_| Err(Fault::denied("not you").into()));
        let service = layered(layered(LabServer::new(bench.clone()), denying()), named("outer"));
        let server = Server::builder().service(service).listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let plain: LabClient = connection.session().open().await.unwrap();
        let layered: LabClient = connection.session().layer(named("x")).layer(denying()).open().await.unwrap();
        for lab in [plain, layered] {
            let denied = fault(lab.text("never").await);
            assert_eq!((denied.kind(), denied.may_have_run()), (FaultKind::Denied, false));
        }
        assert_eq!(bench.calls(), 0);
    });
}

mod ambient {
    #[rpc::service]
    pub(crate) trait Ambient {
        /// The path in the metadata of the context that each item is made in.
        async fn paths(&self) -> rpc::Result<rpc::Streaming<String>>;
    }
}

struct Paths;

impl ambient::Ambient for Paths {
    async fn paths(&self) -> rpc::Result<Streaming<String>> {
        let path = || rpc::Context::current().metadata().get_text("path").unwrap_or("none").to_owned();
        let slow = stream::iter(0..3).then(|n| async move {
            tokio::task::yield_now().await;
            n
        });
        Ok(Streaming::new(slow.map(move |_| path())))
    }
}

#[test]
fn the_items_of_a_handler_are_made_in_the_context_that_the_layers_left() {
    run(async {
        let service = layered(ambient::AmbientServer::new(Paths), named("seen"));
        let server = Server::builder().service(service).listen("tcp://127.0.0.1:0").await.unwrap();
        let client: ambient::AmbientClient = rpc::connect(server.endpoint()).await.unwrap();
        let paths: Vec<_> = client.paths().await.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(paths, ["seen", "seen", "seen"]);
    });
}
