//! The other side has to know the type; a stream is `rpc::Streaming`.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<impl ToString>;
    async fn watch(&self) -> rpc::Result<impl futures::Stream<Item = u32>>;
}

fn main() {}
