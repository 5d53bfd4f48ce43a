//! A constant cannot be called.

#[rpc::service]
pub trait Kv {
    const LIMIT: u32;
}

fn main() {}
