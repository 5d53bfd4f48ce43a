//! The implementor is another type on the other side.

#[rpc::service]
pub trait Kv<K: From<Self>, V = Self> {
    async fn get(&self, key: K) -> rpc::Result<V>;
}

fn main() {}
