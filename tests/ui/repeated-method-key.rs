//! A key is given once.

#[rpc::service]
pub trait Kv {
    #[rpc(idempotent, idempotent)]
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
