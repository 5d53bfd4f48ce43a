//! Values of the type travel.

#[rpc::service]
pub trait Kv<K: ?Sized, V>
where
    V: ?Sized,
{
    async fn get(&self, key: &K) -> rpc::Result<()>;
}

fn main() {}
