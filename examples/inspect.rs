//! Who is held up by what: a stream that nobody reads, seen through the inspector of the process that sends it.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Duration;

use rpc::inspect::{Cause, InspectorClient};
use rpc::{Connection, Server, Streaming};

#[rpc::service]
trait Feed {
    async fn ticks(&self) -> rpc::Result<Streaming<u64>>;
}

struct Clock;

impl Feed for Clock {
    async fn ticks(&self) -> rpc::Result<Streaming<u64>> {
        Ok(Streaming::new(futures::stream::iter(0..)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().service(FeedServer::new(Clock)).listen("tcp://127.0.0.1:0").await?;
    // On an endpoint of its own: it tells about all peers of the process.
    let inspection = Server::builder().service(rpc::inspector()).listen("mem://inspector").await?;
    let inspector: InspectorClient = rpc::connect(inspection.endpoint()).await?;

    let connection = Connection::open(server.endpoint()).await?;
    let feed: FeedClient = connection.session().open().await?;
    let mut ticks = feed.ticks().await?;
    assert_eq!(ticks.next().await, Some(Ok(0)));

    // Nobody reads on, and soon the stream's credit is used up.
    let stalled = loop {
        let page = inspector.connections(0).await?.page;
        let stalled = |cause| move |waiting: &rpc::inspect::Waiting| waiting.cause == cause && waiting.longest_ms > Some(20);
        match page.iter().find(|connection| connection.waiting.iter().any(stalled(Cause::StreamCredit))) {
            Some(connection) => break connection.id,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let detail = inspector.connection(stalled, 0).await?.ok_or("the connection is still there")?;

    println!("{:<28} {:>7} {:>9} {:>9}", "peer", "session", "sent", "credit");
    for session in &detail.sessions {
        println!("{:<28} {:>7} {:>9} {:>9}", detail.connection.peer, session.sid, detail.connection.sent, session.send_credit);
    }
    println!("{:<28} {:>7} {:>9} {:>9}", "method", "call", "waits for", "for ms");
    for exchange in &detail.exchanges {
        let (method, xid) = (exchange.method.as_deref().unwrap_or("?"), exchange.xid.unwrap_or_default());
        println!("{:<28} {:>7} {:>9} {:>9}", method, xid, exchange.waits_for, exchange.for_ms.unwrap_or_default());
    }
    let [exchange] = &detail.exchanges[..] else { return Err("there is one call".into()) };
    assert_eq!((exchange.method.as_deref(), exchange.waits_for), (Some("ticks"), Cause::StreamCredit));
    // The session has credit left: others in it are not held up.
    assert!(detail.sessions[0].send_credit > 0);
    Ok(())
}
