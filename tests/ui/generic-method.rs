//! The other side has to know the types.

#[rpc::service]
pub trait Kv {
    async fn get<K>(&self, key: K) -> rpc::Result<()>;
}

fn main() {}
