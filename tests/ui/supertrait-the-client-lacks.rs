//! The client is an implementor too.

#[rpc::service]
pub trait Kv: std::error::Error {
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
