//! A name is a text, and a path is one too.

#[rpc::service(crate = rpc)]
pub trait Kv {
    #[rpc(name = 7)]
    async fn get(&self) -> rpc::Result<()>;
    #[rpc(name)]
    async fn put(&self) -> rpc::Result<()>;
}

fn main() {}
