//! The error stands at the error.

#[rpc::service]
pub trait Kv {
    async fn export(&self) -> rpc::Result<rpc::Streaming<u32, String>>;
}

fn main() {}
