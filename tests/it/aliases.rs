//! Methods whose `Result` is the application's own name for the facade's: the macro cannot know, and asks the compiler.

use futures::{StreamExt, stream};
use rpc::{Error, Server, Streaming};
use serde::{Deserialize, Serialize};

use crate::harness::run;

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("{0} is odd")]
pub(crate) struct Odd(u32);

/// The error is in the alias.
type Result<T> = rpc::Result<T, Odd>;

mod imported {
    //! The name is the facade's, and stands without it.
    pub(super) use rpc::Result;
}

#[rpc::service]
trait Halves {
    async fn half(&self, number: u32) -> Result<u32>;
    async fn halves(&self, answer: Vec<u32>) -> Result<Streaming<u32>>;
    async fn sum(&self, numbers: Streaming<u32>) -> Result<Vec<u8>>;
    async fn each(&self, numbers: Streaming<u32>) -> imported::Result<Streaming<u32, Odd>, Odd>;
    async fn named(&self, answer: u32) -> imported::Result<Option<u32>, Odd>;
    async fn never(&self) -> imported::Result<()>;
}

struct Exact;

fn half(number: u32) -> std::result::Result<u32, Odd> {
    if number.is_multiple_of(2) { Ok(number / 2) } else { Err(Odd(number)) }
}

impl Halves for Exact {
    async fn half(&self, number: u32) -> Result<u32> {
        Ok(half(number)?)
    }

    async fn halves(&self, numbers: Vec<u32>) -> Result<Streaming<u32>> {
        let halves: std::result::Result<Vec<_>, _> = numbers.into_iter().map(half).collect();
        Ok(halves?.into_iter().collect())
    }

    async fn sum(&self, mut numbers: Streaming<u32>) -> Result<Vec<u8>> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += half(number.map_err(|error| error.map_app(|never| match never {}))?)?;
        }
        Ok(sum.to_be_bytes().to_vec())
    }

    async fn each(&self, numbers: Streaming<u32>) -> rpc::Result<Streaming<u32, Odd>, Odd> {
        let halves = numbers.map(|number| Ok(half(number.map_err(|error| error.map_app(|never| match never {}))?)?));
        Ok(Streaming::from_results(halves))
    }

    async fn named(&self, number: u32) -> rpc::Result<Option<u32>, Odd> {
        Ok(half(number).ok())
    }

    async fn never(&self) -> rpc::Result<()> {
        Ok(())
    }
}

async fn by_the_trait(halves: &impl Halves) {
    assert_eq!(halves.half(4).await.unwrap(), 2);
    assert_eq!(halves.half(5).await.unwrap_err(), Error::App(Odd(5)));
    let items: Vec<_> = halves.halves(vec![2, 8]).await.unwrap().map(std::result::Result::unwrap).collect().await;
    assert_eq!(items, [1, 4]);
    assert_eq!(halves.halves(vec![2, 7]).await.unwrap_err(), Error::App(Odd(7)));
    assert_eq!(halves.sum([2, 4].into_iter().collect()).await.unwrap(), 3u32.to_be_bytes());
    let each: Vec<_> = halves.each([6, 3].into_iter().collect()).await.unwrap().collect().await;
    assert_eq!(each, [Ok(3), Err(Error::App(Odd(3)))]);
    assert_eq!(halves.named(4).await.unwrap(), Some(2));
    halves.never().await.unwrap();
}

#[test]
fn a_result_by_another_name_is_one_for_clients_servers_and_direct_calls() {
    run(async {
        let server = Server::builder().service(HalvesServer::new(Exact)).listen("tcp://127.0.0.1:0").await.unwrap();
        let remote: HalvesClient = rpc::connect(server.endpoint()).await.unwrap();
        let local = rpc::local::<HalvesClient>(HalvesServer::new(Exact));
        by_the_trait(&Exact).await;
        for client in [&remote, &local] {
            by_the_trait(client).await;
            assert_eq!(client.half(5).await.unwrap_err(), Error::App(Odd(5)));
            assert_eq!(client.sum(stream::iter([2, 3])).await.unwrap_err(), Error::App(Odd(3)));
            let each: Vec<_> = client.each(stream::iter([6, 3])).await.unwrap().collect().await;
            assert_eq!(each, [Ok(3), Err(Error::App(Odd(3)))]);
            assert_eq!(client.named(3).await.unwrap(), None);
        }
    });
}
