//! A stream outlives the call that made it, so it cannot read from `&self`.

use rpc::Streaming;

#[rpc::service]
pub trait Kv {
    async fn all(&self) -> rpc::Result<Streaming<u32>>;
    async fn checked(&self) -> rpc::Result<Streaming<u32>>;
}

pub struct Store {
    rows: Vec<u32>,
}

impl Kv for Store {
    async fn all(&self) -> rpc::Result<Streaming<u32>> {
        Ok(Streaming::new(futures::stream::iter(self.rows.iter().copied())))
    }

    async fn checked(&self) -> rpc::Result<Streaming<u32>> {
        Ok(Streaming::from_results(futures::stream::iter(self.rows.iter().map(|row| Ok(*row)))))
    }
}

fn main() {}
