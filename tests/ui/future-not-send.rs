//! A handler may be moved between threads; the error stands where it would not be.

use std::rc::Rc;

#[rpc::service]
pub trait Kv {
    async fn get(&self) -> rpc::Result<u32>;
}

pub struct Store;

impl Kv for Store {
    async fn get(&self) -> rpc::Result<u32> {
        let value = Rc::new(7);
        std::future::ready(()).await;
        Ok(*value)
    }
}

fn main() {}
