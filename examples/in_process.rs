//! One trait everywhere: code over `impl Shop` takes the service itself, a client in this process, a client over a
//! connection, and the mock of a test.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Mutex;

use rpc::{Error, Fault, FaultKind, Server};

#[rpc::service]
trait Shop {
    async fn price(&self, item: &str) -> rpc::Result<u32>;
    async fn buy(&self, item: &str, most: u32) -> rpc::Result<bool>;
}

/// Code that needs a shop and does not care where it is.
async fn buy_all(shop: &impl Shop, items: &[&str], mut budget: u32) -> rpc::Result<Vec<String>> {
    let mut bought = Vec::new();
    for item in items {
        let price = shop.price(item).await?;
        if price <= budget && shop.buy(item, price).await? {
            budget -= price;
            bought.push((*item).to_owned());
        }
    }
    Ok(bought)
}

/// The real one.
#[derive(Default)]
struct Corner;

impl Shop for Corner {
    async fn price(&self, item: &str) -> rpc::Result<u32> {
        Ok(item.len() as u32)
    }

    async fn buy(&self, item: &str, most: u32) -> rpc::Result<bool> {
        Ok(item.len() as u32 <= most)
    }
}

/// A test's one: it notes what it was asked, and fails on demand.
#[derive(Default)]
struct Mock {
    asked: Mutex<Vec<String>>,
    overloaded: bool,
}

impl Shop for Mock {
    async fn price(&self, item: &str) -> rpc::Result<u32> {
        self.asked.lock().unwrap().push(item.to_owned());
        if self.overloaded { Err(Fault::new(FaultKind::Overloaded, "come back later").into()) } else { Ok(1) }
    }

    async fn buy(&self, _: &str, _: u32) -> rpc::Result<bool> {
        Ok(true)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    const ITEMS: [&str; 3] = ["tea", "marmalade", "jam"];
    let expected = ["tea", "jam"];

    // The service itself: a plain value, and plain calls.
    assert_eq!(buy_all(&Corner, &ITEMS, 8).await?, expected);

    // A client that calls the service in this process: no connection, and nothing is encoded.
    let local = rpc::local::<ShopClient>(ShopServer::new(Corner));
    assert_eq!(buy_all(&local, &ITEMS, 8).await?, expected);

    // A client over a connection within this process: the whole protocol without a socket, found by name.
    let server = Server::builder().service(ShopServer::new(Corner)).listen("mem://shop").await?;
    let remote: ShopClient = rpc::connect(server.endpoint()).await?;
    assert_eq!(buy_all(&remote, &ITEMS, 8).await?, expected);

    // A mock, to look at the code from the other side.
    let mock = Mock::default();
    assert_eq!(buy_all(&mock, &ITEMS, 2).await?, ["tea", "marmalade"]);
    assert_eq!(*mock.asked.lock().unwrap(), ITEMS);
    let busy = Mock { overloaded: true, ..Mock::default() };
    let error = buy_all(&busy, &ITEMS, 2).await.unwrap_err();
    assert_eq!(error.fault().map(Fault::kind), Some(FaultKind::Overloaded));
    assert!(matches!(error, Error::Fault(fault) if !fault.may_have_run()));

    println!("four shops, one trait: {expected:?}");
    Ok(())
}
