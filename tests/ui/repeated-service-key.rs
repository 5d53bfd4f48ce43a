//! A key is given once.

#[rpc::service(local, local)]
pub trait Kv {
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
