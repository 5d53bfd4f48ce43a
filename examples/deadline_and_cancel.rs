//! A call ends when its time is over or when its caller lets go, and the handler is dropped then; calls that a handler
//! makes inherit its deadline.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::stream::StreamExt;
use rpc::{Context, Fault, FaultKind, Server};
use tokio::time::{sleep, timeout};

#[rpc::service]
trait Worker {
    /// Takes an hour.
    async fn work(&self, cx: &Context) -> rpc::Result<()>;
    /// Tells how much time the call has.
    async fn time_left(&self, cx: &Context) -> rpc::Result<Option<Duration>>;
}

#[rpc::service]
trait Gateway {
    async fn time_left(&self) -> rpc::Result<Option<Duration>>;
}

struct Slow {
    events: mpsc::UnboundedSender<&'static str>,
}

struct Guard(mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.unbounded_send("handler dropped");
    }
}

impl Worker for Slow {
    async fn work(&self, cx: &Context) -> rpc::Result<()> {
        let _guard = Guard(self.events.clone());
        // A task is not dropped with the handler that spawned it. It hears of the end through the context.
        let (cx, events) = (cx.clone(), self.events.clone());
        tokio::spawn(async move {
            cx.cancelled().await;
            let _ = events.unbounded_send("task told");
        });
        let _ = self.events.unbounded_send("started");
        sleep(Duration::from_secs(3600)).await;
        Ok(())
    }

    async fn time_left(&self, cx: &Context) -> rpc::Result<Option<Duration>> {
        Ok(cx.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now())))
    }
}

struct Forwarder {
    worker: WorkerClient,
}

impl Gateway for Forwarder {
    async fn time_left(&self) -> rpc::Result<Option<Duration>> {
        // Nothing is said about time: this call has what is left of the time of the call that it is made for.
        self.worker.time_left().await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (events, mut heard) = mpsc::unbounded();
    let server = Server::builder().service(WorkerServer::new(Slow { events })).listen("tcp://127.0.0.1:0").await?;
    let worker: WorkerClient = rpc::connect(server.endpoint()).await?;

    // The time is over: the caller has a fault that says so, and nothing is left behind on the server.
    let error = worker.work().timeout(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.fault().map(Fault::kind), Some(FaultKind::Deadline));
    ended(&mut heard).await?;
    println!("deadline: {error}");

    // The caller lets go: dropping a call that was polled cancels it, whatever drops it.
    assert!(timeout(Duration::from_millis(100), worker.work()).await.is_err());
    ended(&mut heard).await?;
    println!("dropped: the handler is gone");

    // A call made by a handler has that handler's deadline, one server further too.
    let second = Server::builder().service(GatewayServer::new(Forwarder { worker })).listen("tcp://127.0.0.1:0").await?;
    let gateway: GatewayClient = rpc::connect(second.endpoint()).await?;
    let left = gateway.time_left().timeout(Duration::from_secs(5)).await?.expect("the call has a deadline");
    assert!(left <= Duration::from_secs(5));
    println!("inherited: {left:.2?} of 5 s were left behind two servers");
    Ok(())
}

/// The handler started, was dropped, and the task that it spawned was told: in any order behind the start.
async fn ended(heard: &mut mpsc::UnboundedReceiver<&'static str>) -> Result<(), Box<dyn std::error::Error>> {
    let mut three: Vec<_> = timeout(Duration::from_secs(5), heard.take(3).collect()).await?;
    three.sort_unstable();
    assert_eq!(three, ["handler dropped", "started", "task told"]);
    Ok(())
}
