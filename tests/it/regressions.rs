//! What went wrong once, by the name of what must not happen again.

use futures::stream::{self, StreamExt};
use rpc::{Connection, Context, Fault, FaultKind, Limits, Server, Streaming};
use std::time::{Duration, Instant};

use crate::harness::{run, soon};

#[rpc::service]
trait Odd {
    async fn broken(&self, items: u32) -> rpc::Result<Streaming<u32>>;
    async fn panics(&self) -> rpc::Result<()>;
    async fn sleeps(&self, cx: &Context) -> rpc::Result<()>;
    async fn echo(&self, n: u32) -> rpc::Result<u32>;
}

struct Odds;

impl Odd for Odds {
    async fn broken(&self, items: u32) -> rpc::Result<Streaming<u32>> {
        let end = stream::iter([Err(Fault::internal("the disk is gone").into())]);
        Ok(Streaming::from_results(stream::iter((0..items).map(Ok)).chain(end)))
    }

    async fn panics(&self) -> rpc::Result<()> {
        panic!("on purpose")
    }

    async fn sleeps(&self, _: &Context) -> rpc::Result<()> {
        std::future::pending().await
    }

    async fn echo(&self, n: u32) -> rpc::Result<u32> {
        Ok(n)
    }
}

async fn server(limits: Limits) -> Server {
    Server::builder().service(OddServer::new(Odds)).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap()
}

#[test]
fn items_before_the_fault_of_a_stream_are_not_lost() {
    run(async {
        let server = server(Limits::default()).await;
        let clients: [OddClient; 2] = [rpc::connect(server.endpoint()).await.unwrap(), rpc::local(OddServer::new(Odds))];
        for client in clients {
            // 100,000 are many windows, 3 are less than one batch.
            for count in [0, 3, 100_000] {
                let mut items = client.broken(count).await.unwrap();
                for n in 0..count {
                    assert_eq!(items.next().await, Some(Ok(n)));
                }
                let fault = items.next().await.unwrap().unwrap_err();
                assert_eq!(
                    fault.fault().map(|fault| (fault.kind(), fault.detail())),
                    Some((FaultKind::Internal, "the disk is gone"))
                );
                assert_eq!(items.next().await, None);
            }
        }
    });
}

#[test]
fn sessions_that_come_and_go_within_the_limit_are_never_refused() {
    run(async {
        let mut limits = Limits::default();
        limits.sessions = 5;
        let server = server(limits).await;
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let opened = stream::iter(0..2000u32).map(|n| {
            let connection = connection.clone();
            async move {
                let client: OddClient = connection.session().open().await.unwrap();
                assert_eq!(client.echo(n).await, Ok(n));
            }
        });
        soon("all sessions have their turn", opened.buffer_unordered(4).count()).await;
    });
}

#[test]
fn sessions_close_while_streams_keep_the_connection_busy() {
    run(async {
        let server = server(Limits::default()).await;
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move {
                    let client: OddClient = connection.session().open().await.unwrap();
                    let mut items = client.broken(u32::MAX).await.unwrap();
                    while items.next().await.is_some_and(|item| item.is_ok()) {}
                })
            })
            .collect();
        for n in 0..150 {
            let client: OddClient = soon("a session opens", connection.session().open()).await.unwrap();
            assert_eq!(client.echo(n).await, Ok(n));
        }
        busy.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[test]
fn a_direct_call_through_the_trait_is_guarded_and_timed_like_any_other() {
    async fn check(odd: &impl Odd) {
        let panicked = odd.panics().await.unwrap_err();
        assert_eq!(panicked.fault().map(Fault::kind), Some(FaultKind::Internal));
        let soon_over = Context::with_deadline(Instant::now() + Duration::from_millis(20));
        let late = soon("the deadline ends it", odd.sleeps(&soon_over)).await.unwrap_err();
        assert_eq!(late.fault().map(Fault::kind), Some(FaultKind::Deadline));
    }
    run(async {
        let server = server(Limits::default()).await;
        check(&rpc::local::<OddClient>(OddServer::new(Odds))).await;
        check(&rpc::connect::<OddClient>(server.endpoint()).await.unwrap()).await;
    });
}

/// Hands its input to a task of its own, which tells when it has come to an end of it.
#[rpc::service]
trait Handover {
    /// Answers at once.
    async fn leave(&self, items: Streaming<u32>) -> rpc::Result<()>;
    /// Never answers.
    async fn stay(&self, items: Streaming<u32>) -> rpc::Result<()>;
}

struct Hands(tokio::sync::mpsc::UnboundedSender<bool>);

impl Hands {
    fn take(&self, mut items: Streaming<u32>) {
        let ends = self.0.clone();
        tokio::spawn(async move {
            let mut last = None;
            while let Some(item) = items.next().await {
                last = Some(item);
            }
            // The end of a call is no orderly end of its input.
            let _ = ends.send(matches!(last, Some(Err(_))));
        });
    }
}

impl Handover for Hands {
    async fn leave(&self, items: Streaming<u32>) -> rpc::Result<()> {
        self.take(items);
        Ok(())
    }

    async fn stay(&self, items: Streaming<u32>) -> rpc::Result<()> {
        self.take(items);
        std::future::pending().await
    }
}

#[test]
fn a_task_that_reads_the_input_of_a_call_hears_of_the_calls_end() {
    run(async {
        let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::builder().service(HandoverServer::new(Hands(ends))).listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let hands: HandoverClient = connection.session().open().await.unwrap();
        let input = || stream::iter([1]).chain(stream::pending());

        hands.leave(input()).await.unwrap();
        assert_eq!(soon("the call was answered", ended.recv()).await, Some(true));

        let call = tokio::spawn(hands.stay(input()));
        tokio::time::sleep(Duration::from_millis(30)).await;
        call.abort();
        assert_eq!(soon("the call was dropped", ended.recv()).await, Some(true));

        let call = hands.stay(input()).timeout(Duration::from_millis(50)).await;
        assert_eq!(call.unwrap_err().fault().map(Fault::kind), Some(FaultKind::Deadline));
        assert_eq!(soon("the deadline has passed", ended.recv()).await, Some(true));

        let call = tokio::spawn(hands.stay(input()));
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop((connection, hands));
        call.abort();
        assert_eq!(soon("the connection has ended", ended.recv()).await, Some(true));
    });
}
