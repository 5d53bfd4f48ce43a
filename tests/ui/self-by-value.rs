//! A service outlives its calls.

#[rpc::service]
pub trait Kv {
    async fn get(self) -> rpc::Result<()>;
}

fn main() {}
