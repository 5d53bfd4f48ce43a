//! A named pipe: on Windows what is called so there, and a pair of FIFOs for each connection elsewhere. It is reached by
//! the user who serves it, and by nobody else.
#![allow(clippy::print_stdout, reason = "it is a program")]

use futures::StreamExt;
use rpc::{Connection, Server, Streaming};

#[rpc::service]
trait Squares {
    async fn square(&self, n: u64) -> rpc::Result<u64>;
    async fn squares(&self, up_to: u64) -> rpc::Result<Streaming<u64>>;
}

struct Plain;

impl Squares for Plain {
    async fn square(&self, n: u64) -> rpc::Result<u64> {
        Ok(n * n)
    }

    async fn squares(&self, up_to: u64) -> rpc::Result<Streaming<u64>> {
        Ok((1..=up_to).map(|n| n * n).collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = format!("pipe://rpc-example-{}", std::process::id());
    let server = Server::builder().service(SquaresServer::new(Plain)).listen(&*endpoint).await?;

    // One pipe, many sessions; and many connections beside it.
    let connection = Connection::open(&*endpoint).await?;
    println!("connected to {:?}", connection.peer());
    assert!(connection.peer().principal.is_some(), "the system says who serves");
    let one: SquaresClient = connection.session().open().await?;
    let other: SquaresClient = rpc::connect(&*endpoint).await?;
    assert_eq!((one.square(12).await?, other.square(7).await?), (144, 49));

    let squares: Vec<u64> = one.squares(1000).await?.map(Result::unwrap).collect().await;
    println!("{} squares, the last of them {}", squares.len(), squares[999]);
    assert_eq!(squares[999], 1_000_000);

    // The name is one server's at a time, and free when that one is gone.
    let taken = Server::builder().service(SquaresServer::new(Plain)).listen(&*endpoint).await.unwrap_err();
    println!("{taken}");
    server.shutdown().await;
    let gone = Connection::open(&*endpoint).await.unwrap_err();
    println!("{gone}");
    assert!(matches!(gone, rpc::OpenError::Unreachable { .. }));
    Ok(())
}
