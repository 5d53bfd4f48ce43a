//! A key without a value has none.

#[rpc::service(local = true)]
pub trait Kv {
    #[rpc(oneway = true)]
    async fn log(&self) -> rpc::Result<()>;
}

fn main() {}
