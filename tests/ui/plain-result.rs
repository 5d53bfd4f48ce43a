//! The prelude has a `Result` too, and its error has no place for what happens on the way.

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> Result<u32, String>;
}

fn main() {}
