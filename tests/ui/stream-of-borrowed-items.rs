//! A stream outlives the call that made it, on both sides.

#[rpc::service]
pub trait Kv {
    async fn watch(&self) -> rpc::Result<rpc::Streaming<&str>>;
    async fn import(&self, rows: rpc::Streaming<&str>) -> rpc::Result<()>;
}

fn main() {}
