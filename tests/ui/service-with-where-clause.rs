//! A service is the same for all who implement it.

#[rpc::service]
pub trait Kv
where
    Self: Sized,
{
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
