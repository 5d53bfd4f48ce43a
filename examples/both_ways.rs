//! Both ways: the server calls its client back, over the connection that the client made. A shop asks before it sells,
//! and tells everyone when it has something new.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Mutex;

use rpc::{Connection, Fault, FaultKind, Server};
use tokio::sync::mpsc;

/// What the server offers.
#[rpc::service]
trait Shop {
    async fn buy(&self, item: &str) -> rpc::Result<bool>;
}

/// What the client offers to the server.
#[rpc::service]
trait Customer {
    async fn confirm(&self, item: &str, price: u32) -> rpc::Result<bool>;
    #[rpc(oneway)]
    async fn news(&self, text: &str) -> rpc::Result<()>;
}

struct Corner;

impl Shop for Corner {
    async fn buy(&self, item: &str) -> rpc::Result<bool> {
        // The connection that this very call came over. A direct call has none.
        let connection = Connection::current().ok_or_else(|| Fault::new(FaultKind::Incompatible, "who is asking?"))?;
        let customer: CustomerClient = connection.session().open().await.map_err(Fault::from)?;
        // The buyer's deadline holds for this call too, and nobody holds up anybody: the buyer waits, and answers.
        customer.confirm(item, 10 * item.len() as u32).await
    }
}

/// Somebody with a purse.
struct Person {
    money: Mutex<u32>,
    read: mpsc::UnboundedSender<String>,
}

impl Customer for Person {
    async fn confirm(&self, _: &str, price: u32) -> rpc::Result<bool> {
        let mut money = self.money.lock().unwrap();
        let enough = *money >= price;
        *money -= if enough { price } else { 0 };
        Ok(enough)
    }

    async fn news(&self, text: &str) -> rpc::Result<()> {
        let _ = self.read.send(text.to_owned());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The server keeps a handle of every connection, to call its clients on its own account.
    let (tell, mut connected) = mpsc::unbounded_channel();
    let server = Server::builder()
        .service(ShopServer::new(Corner))
        .on_connection(move |connection| drop(tell.send(connection)))
        .listen("tcp://127.0.0.1:0")
        .await?;

    let (read, mut reading) = mpsc::unbounded_channel();
    let person = Person { money: Mutex::new(100), read };
    let connection = Connection::builder().service(CustomerServer::new(person)).open(server.endpoint()).await?;
    let shop: ShopClient = connection.session().open().await?;

    // Each of these calls has one in the other direction within it.
    assert!(shop.buy("apples").await?);
    assert!(shop.buy("tea").await?);
    assert!(!shop.buy("caviar").await?, "60 and 30 of 100 are spent");
    println!("bought apples and tea, and not the caviar");

    // Now the server begins, long after.
    let client = connected.recv().await.expect("somebody connected");
    let customer: CustomerClient = client.session().open().await?;
    customer.news("fresh bread").await?;
    assert_eq!(reading.recv().await.as_deref(), Some("fresh bread"));
    println!("heard of the bread");

    // The server's handle does not keep the connection open: it is the client's.
    drop((shop, connection));
    client.closed().await;
    assert!(customer.confirm("bread", 5).await.is_err());
    Ok(())
}
