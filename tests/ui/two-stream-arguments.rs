//! A call has one stream in each direction.

#[rpc::service]
pub trait Kv {
    async fn join(&self, left: rpc::Streaming<u32>, right: rpc::Streaming<u32>) -> rpc::Result<()>;
}

fn main() {}
