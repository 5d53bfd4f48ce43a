//! A call is no call of the platform's.

#[rpc::service]
pub trait Kv {
    async extern "C" fn get(&self) -> rpc::Result<()>;
}

fn main() {}
