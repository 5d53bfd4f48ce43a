//! It stays on its thread.

#[rpc::service(local)]
pub trait Kv: Send + Sync {
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
