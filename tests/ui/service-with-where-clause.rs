//! The client implements the service too, and would have to be what is asked of `Self`.

#[rpc::service]
pub trait Kv
where
    Self: Sized,
{
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
