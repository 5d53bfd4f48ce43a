//! A service is a trait.

#[rpc::service]
pub struct Kv;

fn main() {}
