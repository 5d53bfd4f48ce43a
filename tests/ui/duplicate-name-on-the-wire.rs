//! A pinned name is taken as any other.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<()>;
    #[rpc(name = "get")]
    async fn fetch(&self) -> rpc::Result<()>;
}

fn main() {}
