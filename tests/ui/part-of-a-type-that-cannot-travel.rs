//! The error stands at the whole, and says what goes for the parts.

pub struct Row;

#[rpc::service]
pub trait Kv {
    async fn put(&self, rows: Vec<Row>, table: &[Row]) -> rpc::Result<Option<Row>>;
}

fn main() {}
