//! The client cannot know what the implementor chooses.

#[rpc::service]
pub trait Kv {
    type Key;
}

fn main() {}
