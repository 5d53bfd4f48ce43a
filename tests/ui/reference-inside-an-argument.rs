//! Only the outermost type of an argument is borrowed.

#[rpc::service]
pub trait Kv {
    async fn get(&self, key: Option<&str>) -> rpc::Result<()>;
}

fn main() {}
