//! A task of its own would not be on the service's thread.

#[rpc::service(local)]
pub trait Kv {
    #[rpc(spawn)]
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
