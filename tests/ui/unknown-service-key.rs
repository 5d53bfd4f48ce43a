//! A misspelt key is not ignored.

#[rpc::service(krate = "rpc")]
pub trait Kv {
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
