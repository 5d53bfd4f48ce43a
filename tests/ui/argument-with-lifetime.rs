//! What is borrowed lives as long as the call.

#[rpc::service]
pub trait Kv {
    async fn get(&self, key: &'static str) -> rpc::Result<()>;
}

fn main() {}
