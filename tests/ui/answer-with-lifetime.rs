//! The answer comes out of a frame that is gone by then.

use std::borrow::Cow;

#[rpc::service]
pub trait Kv {
    async fn get(&self, key: &str) -> rpc::Result<Cow<'_, str>>;
}

fn main() {}
