//! What is borrowed is held over every await of a handler that may move between threads.

use std::cell::Cell;

#[rpc::service]
pub trait Kv {
    async fn put(&self, row: &Cell<u32>) -> rpc::Result<()>;
}

fn main() {}
