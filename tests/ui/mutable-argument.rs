//! What the service changes, it changes on its own side.

#[rpc::service]
pub trait Kv {
    async fn sort(&self, rows: &mut String) -> rpc::Result<()>;
}

fn main() {}
