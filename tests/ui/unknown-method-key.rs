//! A misspelt key is not ignored, and the keys after it are read.

#[rpc::service]
pub trait Kv {
    #[rpc(one_way, retries = 3, idempotent)]
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
