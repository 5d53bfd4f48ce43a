//! A stream is used up.

#[rpc::service]
pub trait Kv {
    async fn import(&self, rows: &rpc::Streaming<u32>) -> rpc::Result<()>;
}

fn main() {}
