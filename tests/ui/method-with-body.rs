//! The answer comes from the other side.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<u32> {
        Ok(7)
    }
}

fn main() {}
