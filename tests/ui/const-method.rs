//! A call takes time.

#[rpc::service]
pub trait Kv {
    const fn get(&self) -> rpc::Result<()>;
}

fn main() {}
