//! The multiplexer written by hand, which is the ceiling of a single connection: benches/common/mux.rs says what it leaves
//! out.

#[path = "../../../common/mux.rs"]
mod by_hand;

use std::convert::Infallible;

use bytes::Bytes;
use tokio::net::TcpListener;

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};
use crate::workload::Workload;

pub(crate) struct Mux(by_hand::Client);

impl Neighbour for Mux {
    const NAME: &'static str = "mux";
    const UNIT: &'static str = "none";
    const LACKS: &'static [(Workload, &'static str)] =
        &[(Workload::W5, "it has no streams"), (Workload::W6, "it moves bytes only"), (Workload::W7, "it has no sessions")];
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?.to_string());
        by_hand::serve(listener).await?;
        Err("the multiplexer has stopped".into())
    }

    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>> {
        let (client, running) = by_hand::Client::connect(address).await?;
        // Its calls do not hear of the connection's end.
        tokio::spawn(async move {
            let ended = running.await;
            eprintln!("the connection ended: {ended:?}");
            std::process::exit(1);
        });
        Ok((0..callers).map(|_| Self(client.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        see(&self.0.echo(body).await);
        Ok(())
    }
}
