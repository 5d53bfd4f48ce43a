//! A stream names its items.

#[rpc::service]
pub trait Kv {
    async fn import(&self, rows: rpc::Streaming) -> rpc::Result<()>;
}

fn main() {}
