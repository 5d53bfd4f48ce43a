//! The error stands at the item.

pub struct Row;

#[rpc::service]
pub trait Kv {
    async fn export(&self) -> rpc::Result<rpc::Streaming<Row>>;
    async fn import(&self, rows: rpc::Streaming<Row>) -> rpc::Result<()>;
}

fn main() {}
