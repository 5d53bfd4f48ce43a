//! A promise of the implementor does not cross the wire.

#[rpc::service]
pub unsafe trait Kv {
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
