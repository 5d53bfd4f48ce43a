//! Any call can fail on its way.

#[rpc::service]
pub trait Kv {
    async fn get(&self, key: u32) -> Option<u32>;
    async fn put(&self, key: u32) -> std::result::Result<(), String>;
}

fn main() {}
