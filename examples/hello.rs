//! The smallest whole: a service with an error of its own, a server and a client over TCP, and what the client sees when
//! a call succeeds, when the application says no, and when the server is gone.
#![allow(clippy::print_stdout, reason = "it is a program")]

use rpc::{Error, Server};
use serde::{Deserialize, Serialize};

#[rpc::service]
trait Greeter {
    async fn greet(&self, name: &str) -> rpc::Result<String, GreetError>;
}

/// The application's error: any error type that serde can carry.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
enum GreetError {
    #[error("a name is needed to greet somebody")]
    NoName,
    #[error("`{name}` is longer than {most} letters")]
    TooLong { name: String, most: usize },
}

struct Polite {
    most: usize,
}

impl Greeter for Polite {
    async fn greet(&self, name: &str) -> rpc::Result<String, GreetError> {
        if name.is_empty() {
            Err(GreetError::NoName)?
        }
        if name.chars().count() > self.most {
            Err(GreetError::TooLong { name: name.to_owned(), most: self.most })?
        }
        Ok(format!("Good day, {name}."))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().service(GreeterServer::new(Polite { most: 8 })).listen("tcp://127.0.0.1:0").await?;
    let greeter: GreeterClient = rpc::connect(server.endpoint()).await?;

    let greeting = greeter.greet("Ada").await?;
    println!("{greeting}");
    assert_eq!(greeting, "Good day, Ada.");

    // The application's error arrives as the value that it was.
    let refused = greeter.greet("").await.unwrap_err();
    println!("refused: {refused}");
    assert_eq!(refused, Error::App(GreetError::NoName));
    match greeter.greet("Wolfgang Amadeus").await {
        Err(Error::App(GreetError::TooLong { most, .. })) => println!("refused: at most {most} letters"),
        other => panic!("expected a refusal, not {other:?}"),
    }

    // Whatever else can fail is a fault, and it says whether the call may have run.
    server.shutdown().await;
    let fault = match greeter.greet("Ada").await {
        Err(Error::Fault(fault)) => fault,
        other => panic!("expected a fault, not {other:?}"),
    };
    println!("failed: {fault}");
    assert!(!fault.may_have_run());
    Ok(())
}
