//! There is always a service that answers.

#[rpc::service]
pub trait Kv {
    async fn get(key: u32) -> rpc::Result<()>;
}

fn main() {}
