//! What a runtime alone costs: a task that is asked through tokio's `mpsc` and answers through a `oneshot`, both in the
//! process of the load. Nothing is encoded and there is no socket. The server's process is there, and has nothing to do.

use std::convert::Infallible;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::common::Nested;
use crate::neighbour::{Neighbour, Outcome};
use crate::workload::Workload;

/// As many as are in flight in W3: nobody waits for a place.
const PLACES: usize = 1024;

enum Ask {
    Echo(Bytes, oneshot::Sender<Bytes>),
    Items(u64, u32, mpsc::Sender<Bytes>),
}

pub(crate) struct InProcess(mpsc::Sender<Ask>);

impl Neighbour for InProcess {
    const NAME: &'static str = "channels";
    const UNIT: &'static str = "none";
    const LACKS: &'static [(Workload, &'static str)] =
        &[(Workload::W4, "nothing is copied"), (Workload::W6, "nothing is encoded"), (Workload::W7, "there is no other process")];
    type Value = Nested;

    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible> {
        announce("-".to_owned());
        std::future::pending().await
    }

    async fn connect(_: &str, callers: usize) -> Outcome<Vec<Self>> {
        let (asks, mut asked) = mpsc::channel(PLACES);
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                match ask {
                    // Who asked and went away needs no answer.
                    Ask::Echo(body, answer) => drop(answer.send(body)),
                    Ask::Items(count, size, items) => {
                        let item = Bytes::from(vec![7; size as usize]);
                        for _ in 0..count {
                            if items.send(item.clone()).await.is_err() {
                                break;
                            }
                        }
                    }
                }
            }
        });
        Ok((0..callers).map(|_| Self(asks.clone())).collect())
    }

    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask::Echo(body.clone(), answer)).await?;
        see(&answered.await?);
        Ok(())
    }

    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let (items, mut taken) = mpsc::channel(PLACES);
        self.0.send(Ask::Items(count, size, items)).await?;
        let mut seen = 0;
        while let Some(item) = taken.recv().await {
            seen += u64::from(item.len() == size as usize);
        }
        Ok(seen)
    }
}
