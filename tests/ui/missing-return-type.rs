//! Any call can fail on its way.

#[rpc::service]
pub trait Kv {
    async fn put(&self, key: u32);
}

fn main() {}
