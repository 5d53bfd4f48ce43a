//! Nothing comes back.

#[rpc::service]
pub trait Kv {
    #[rpc(oneway)]
    async fn log(&self, line: &str) -> rpc::Result<u32>;
    #[rpc(oneway)]
    async fn warn(&self, line: &str) -> rpc::Result<(), String>;
}

fn main() {}
