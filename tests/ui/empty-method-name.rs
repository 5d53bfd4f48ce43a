//! A name on the wire is a word.

#[rpc::service]
pub trait Kv {
    #[rpc(name = "")]
    async fn get(&self) -> rpc::Result<()>;
}

fn main() {}
