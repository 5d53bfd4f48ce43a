//! A promise of the caller does not cross the wire.

#[rpc::service]
pub trait Kv {
    async unsafe fn get(&self) -> rpc::Result<()>;
}

fn main() {}
