//! The implementor is another type on the other side.

#[rpc::service]
pub trait Kv {
    async fn merge(&self, other: &Self) -> rpc::Result<()>;
}

fn main() {}
