//! One name, one method.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<()>;
    async fn get(&self, key: u32) -> rpc::Result<()>;
}

fn main() {}
