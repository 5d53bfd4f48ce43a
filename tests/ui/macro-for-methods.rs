//! The attribute is expanded before what is inside the trait.

macro_rules! methods {
    () => {
        async fn get(&self) -> rpc::Result<()>;
    };
}

#[rpc::service]
pub trait Kv {
    methods!();
}

fn main() {}
