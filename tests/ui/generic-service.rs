//! The other side could not know `K`.

#[rpc::service]
pub trait Kv<K> {
    async fn get(&self, key: K) -> rpc::Result<()>;
}

fn main() {}
