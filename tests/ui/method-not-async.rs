//! A call takes time.

#[rpc::service]
pub trait Kv {
    fn get(&self) -> rpc::Result<()>;
}

fn main() {}
