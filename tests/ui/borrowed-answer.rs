//! The answer comes out of a frame that is gone by then.

#[rpc::service]
pub trait Kv {
    async fn get(&self, key: u32) -> rpc::Result<&str>;
}

fn main() {}
