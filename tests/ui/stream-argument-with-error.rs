//! The client cannot fail its own stream.

#[rpc::service]
pub trait Kv {
    async fn import(&self, rows: rpc::Streaming<u32, String>) -> rpc::Result<()>;
}

fn main() {}
