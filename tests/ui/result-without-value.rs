//! The value has a type.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result;
}

fn main() {}
