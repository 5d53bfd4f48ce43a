//! Both sides must have the same methods.

#[rpc::service]
pub trait Kv {
    #[cfg(windows)]
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
