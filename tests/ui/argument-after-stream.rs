//! The arguments are sent before the items.

#[rpc::service]
pub trait Kv {
    async fn import(&self, rows: rpc::Streaming<u32>, table: &str) -> rpc::Result<()>;
}

fn main() {}
