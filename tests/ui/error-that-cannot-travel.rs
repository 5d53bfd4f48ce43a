//! The error stands at the error.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<(), u32>;
}

fn main() {}
