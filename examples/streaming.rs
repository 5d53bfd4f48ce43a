//! The four shapes beside the plain call: items down, items up, items both ways, and a call that nobody answers.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::channel::mpsc;
use futures::stream::{self, TryStreamExt};
use rpc::{Error, Server, Streaming};
use serde::{Deserialize, Serialize};

#[rpc::service]
trait Numbers {
    /// Items down: the call answers once the stream is accepted, then the items follow.
    async fn countdown(&self, from: u32) -> rpc::Result<Streaming<u32, TooHigh>, TooHigh>;
    /// Items up, one answer.
    async fn sum(&self, numbers: Streaming<u32>) -> rpc::Result<u64>;
    /// Both ways, each at its own pace.
    async fn squares(&self, numbers: Streaming<u32>) -> rpc::Result<Streaming<u64>>;
    /// No answer: the call is done when it is sent.
    #[rpc(oneway)]
    async fn note(&self, number: u32) -> rpc::Result<()>;
    async fn noted(&self) -> rpc::Result<u64>;
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("{0} is too high")]
struct TooHigh(u32);

#[derive(Default)]
struct Arithmetic {
    noted: AtomicU64,
}

impl Numbers for Arithmetic {
    async fn countdown(&self, from: u32) -> rpc::Result<Streaming<u32, TooHigh>, TooHigh> {
        if from > 1000 {
            return Err(Error::App(TooHigh(from)));
        }
        // Items can be errors too; the first one ends the stream.
        let items = (0..=from).rev().map(|number| if number == 13 { Err(TooHigh(number))? } else { Ok(number) });
        Ok(Streaming::from_results(stream::iter(items)))
    }

    async fn sum(&self, mut numbers: Streaming<u32>) -> rpc::Result<u64> {
        let mut sum = 0;
        // The `?` is what tells a stream that broke from one that ended.
        while let Some(number) = numbers.next().await {
            sum += u64::from(number?);
        }
        Ok(sum)
    }

    async fn squares(&self, numbers: Streaming<u32>) -> rpc::Result<Streaming<u64>> {
        Ok(Streaming::from_results(numbers.map_ok(|number| u64::from(number).pow(2))))
    }

    async fn note(&self, number: u32) -> rpc::Result<()> {
        self.noted.fetch_add(number.into(), Relaxed);
        Ok(())
    }

    async fn noted(&self) -> rpc::Result<u64> {
        Ok(self.noted.load(Relaxed))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().service(NumbersServer::new(Arithmetic::default())).listen("tcp://127.0.0.1:0").await?;
    let numbers: NumbersClient = rpc::connect(server.endpoint()).await?;

    let down: Vec<u32> = numbers.countdown(3).await?.try_collect().await?;
    assert_eq!(down, [3, 2, 1, 0]);
    assert_eq!(numbers.countdown(2000).await.unwrap_err(), Error::App(TooHigh(2000)));
    let mut broken = numbers.countdown(14).await?;
    assert_eq!(broken.next().await, Some(Ok(14)));
    assert_eq!(broken.next().await, Some(Err(Error::App(TooHigh(13)))));
    assert_eq!(broken.next().await, None);

    assert_eq!(numbers.sum(stream::iter(1..=100)).await?, 5050);

    // What goes up next depends on what came down: a conversation.
    let (said, saying) = mpsc::unbounded();
    let mut heard = numbers.squares(saying).await?;
    for number in 1..=5 {
        said.unbounded_send(number)?;
        assert_eq!(heard.next().await, Some(Ok(u64::from(number).pow(2))));
    }
    drop(said);
    assert_eq!(heard.next().await, None);

    numbers.note(20).await?;
    numbers.note(22).await?;
    assert_eq!(numbers.noted().await?, 42);
    println!("down {down:?}, up, both ways and one-way: done");
    Ok(())
}
