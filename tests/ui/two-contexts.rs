//! A call has one context.

#[rpc::service]
pub trait Kv {
    async fn get(&self, cx: &rpc::Context, again: &rpc::Context) -> rpc::Result<()>;
}

fn main() {}
