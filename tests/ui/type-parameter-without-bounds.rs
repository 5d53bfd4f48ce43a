//! What stays open has to travel too, and the trait says so.

#[rpc::service]
pub trait Kv<K> {
    async fn get(&self, key: K) -> rpc::Result<()>;
}

fn main() {}
