//! The error stands at the argument.

pub struct Row;

#[rpc::service]
pub trait Kv {
    async fn put(&self, row: Row) -> rpc::Result<()>;
}

fn main() {}
