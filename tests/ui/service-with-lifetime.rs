//! What a method borrows lives as long as its call, and no longer.

#[rpc::service]
pub trait Kv<'a> {
    async fn get(&self, key: &'a str) -> rpc::Result<()>;
}

fn main() {}
