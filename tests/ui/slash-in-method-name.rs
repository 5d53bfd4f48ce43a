//! The slash stands between service and method.

#[rpc::service]
pub trait Kv {
    #[rpc(name = "kv/get")]
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
