//! The error stands at the answer.

pub struct Row;

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<Row>;
}

fn main() {}
