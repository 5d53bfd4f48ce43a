//! Nobody would hear of a refusal.

#[rpc::service]
pub trait Kv {
    #[rpc(oneway)]
    async fn log(&self, lines: rpc::Streaming<String>) -> rpc::Result<()>;
}

fn main() {}
