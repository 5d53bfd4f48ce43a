//! The implementor is another type on the other side.

#[rpc::service]
pub trait Kv {
    async fn copy(&self) -> rpc::Result<Self>;
}

fn main() {}
