//! Calls run side by side.

#[rpc::service]
pub trait Kv {
    async fn put(&mut self, key: u32) -> rpc::Result<()>;
}

fn main() {}
