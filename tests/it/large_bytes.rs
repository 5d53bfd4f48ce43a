//! Bytes that are a part of their message: theirs who got them, for as long as they keep them, in every codec.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rpc::{Codec, Connection, Server};

use crate::harness::run;

/// A type of one's own with a famous name.
mod own {
    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Bytes {
        pub(crate) how_many: u64,
    }
}

#[rpc::service]
trait Depot {
    /// Keeps the bytes and gives them back.
    async fn keep(&self, number: u64, bytes: Bytes, note: String) -> rpc::Result<Bytes>;
    async fn own(&self, bytes: own::Bytes) -> rpc::Result<own::Bytes>;
}

#[derive(Debug, Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Bytes>>>);

impl Depot for Shelf {
    async fn keep(&self, number: u64, bytes: Bytes, note: String) -> rpc::Result<Bytes> {
        assert_eq!(note, number.to_string());
        self.0.lock().unwrap().push(bytes.clone());
        Ok(bytes)
    }

    async fn own(&self, bytes: own::Bytes) -> rpc::Result<own::Bytes> {
        Ok(bytes)
    }
}

/// Many lengths around those from which messages are shared, and no two the same.
fn piece(number: u64) -> Bytes {
    const LENGTHS: [usize; 8] = [0, 1, 32 * 1024 - 8, 32 * 1024, 64 * 1024 - 8, 64 * 1024, 300_000, 1_000_000];
    let len = LENGTHS[number as usize % LENGTHS.len()];
    (0..len).map(|n| (n as u64 * 31 + number) as u8).collect()
}

#[test]
fn bytes_are_whole_however_long_they_are_kept_and_whatever_comes_behind() {
    run(async {
        for codec in [Codec::Postcard, Codec::Json] {
            let shelf = Shelf::default();
            let server = Server::builder().service(DepotServer::new(shelf.clone())).listen("tcp://127.0.0.1:0").await.unwrap();
            let connection = Connection::open(server.endpoint()).await.unwrap();
            let depot: DepotClient = connection.session().codec(codec).open().await.unwrap();
            let calls = (0..32).map(|number| {
                let depot = depot.clone();
                tokio::spawn(async move { depot.keep(number, piece(number), number.to_string()).await.unwrap() })
            });
            let calls: Vec<_> = calls.collect();
            let mut kept = Vec::new();
            for call in calls {
                kept.push(call.await.unwrap());
            }
            for (number, bytes) in kept.iter().enumerate() {
                assert!(*bytes == piece(number as u64), "{codec}: the answer {number}");
            }
            let mut kept = shelf.0.lock().unwrap().clone();
            let mut sent: Vec<_> = (0..32).map(piece).collect();
            kept.sort();
            sent.sort();
            assert!(kept == sent, "{codec}: what the server has kept");
            let own = own::Bytes { how_many: 7 };
            assert_eq!(depot.own(own.clone()).await.unwrap(), own);
        }
    });
}
