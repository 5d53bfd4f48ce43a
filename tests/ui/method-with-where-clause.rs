//! A method is the same for all who call it.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<()>
    where
        Self: Sized;
}

fn main() {}
