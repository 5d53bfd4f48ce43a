//! A call to a service in the same process keeps a copy.

#[derive(serde::Serialize, serde::Deserialize)]
pub struct Row;

#[rpc::service]
pub trait Kv {
    async fn put(&self, row: &Row) -> rpc::Result<()>;
}

fn main() {}
