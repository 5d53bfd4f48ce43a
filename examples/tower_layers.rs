//! Layers of `tower` on both sides: a client that signs its calls, a server that asks another service whose token it is,
//! takes two calls at a time and sheds the rest. What is refused was never started.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::time::Duration;

use rpc::tower::{BoxError, layered};
use rpc::{Connection, Context, Error, Fault, FaultKind, Request, Server};
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower::filter::AsyncFilterLayer;

#[rpc::service]
trait Tokens {
    async fn user_of(&self, token: &str) -> rpc::Result<Option<String>>;
}

struct Book;

impl Tokens for Book {
    async fn user_of(&self, token: &str) -> rpc::Result<Option<String>> {
        Ok(token.strip_prefix("token of ").map(str::to_owned))
    }
}

#[rpc::service]
trait Desk {
    async fn greet(&self, cx: &Context) -> rpc::Result<String>;
    async fn wait(&self) -> rpc::Result<()>;
}

struct Clerk(Arc<Semaphore>);

impl Desk for Clerk {
    /// The layer has left the user in the metadata; no method has an argument for it.
    async fn greet(&self, cx: &Context) -> rpc::Result<String> {
        Ok(format!("Good day, {}.", cx.metadata().get_text("user").unwrap_or("stranger")))
    }

    async fn wait(&self) -> rpc::Result<()> {
        self.0.add_permits(1);
        std::future::pending().await
    }
}

fn fault<T: std::fmt::Debug>(result: rpc::Result<T>) -> Fault {
    result.map_err(Error::into_fault).expect_err("it is refused")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let book = Server::builder().service(TokensServer::new(Book)).listen("tcp://127.0.0.1:0").await?;
    let tokens: TokensClient = rpc::connect(book.endpoint()).await?;

    // A layer that does I/O: for each call one to the service of tokens.
    let auth = AsyncFilterLayer::new(move |mut request: Request| {
        let tokens = tokens.clone();
        async move {
            let token = request.metadata().get_text("authorization").unwrap_or_default().to_owned();
            let user = tokens.user_of(&token).await?.ok_or_else(|| Fault::denied("a token is needed"))?;
            request.metadata_mut().insert("user", user)?;
            Ok::<_, BoxError>(request)
        }
    });
    let layers = ServiceBuilder::new().timeout(Duration::from_secs(1)).load_shed().concurrency_limit(2).layer(auth);
    let started = Arc::new(Semaphore::new(0));
    let desk = layered(DeskServer::new(Clerk(started.clone())), layers);
    let server = Server::builder().service(desk).listen("tcp://127.0.0.1:0").await?;

    let connection = Connection::open(server.endpoint()).await?;
    let stranger: DeskClient = connection.session().open().await?;
    let denied = fault(DeskClient::greet(&stranger).await);
    println!("denied: {denied}");
    assert_eq!((denied.kind(), denied.may_have_run()), (FaultKind::Denied, false));

    // The same type of client; a layer of its session signs each call.
    let sign = AsyncFilterLayer::new(|mut request: Request| async move {
        request.metadata_mut().insert("authorization", "token of Ada").map(|()| request)
    });
    let ada: DeskClient = connection.session().layer(sign).open().await?;
    println!("{}", DeskClient::greet(&ada).await?);
    assert_eq!(DeskClient::greet(&ada).await?, "Good day, Ada.");

    let busy = [tokio::spawn(ada.wait()), tokio::spawn(ada.wait())];
    started.acquire_many(2).await?.forget();
    let shed = fault(DeskClient::greet(&ada).await);
    println!("shed: {shed}");
    assert_eq!((shed.kind(), shed.may_have_run()), (FaultKind::Overloaded, false));
    for call in busy {
        assert_eq!(fault(call.await?).kind(), FaultKind::Deadline);
    }
    assert_eq!(DeskClient::greet(&ada).await?, "Good day, Ada.");
    Ok(())
}
