//! An argument has a name.

#[rpc::service]
pub trait Kv {
    async fn put(&self, (key, value): (u32, u32), _: u32) -> rpc::Result<()>;
}

fn main() {}
