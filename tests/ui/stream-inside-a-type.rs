//! A stream stands alone.

#[rpc::service]
pub trait Kv {
    async fn import(&self, rows: Vec<rpc::Streaming<u32>>) -> rpc::Result<()>;
    async fn export(&self) -> rpc::Result<Option<rpc::Streaming<u32>>>;
}

fn main() {}
