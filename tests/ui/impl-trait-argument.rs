//! The other side has to know the type.

#[rpc::service]
pub trait Kv {
    async fn get(&self, key: impl ToString) -> rpc::Result<()>;
}

fn main() {}
