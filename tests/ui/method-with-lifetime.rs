//! A call lives as long as what it borrows.

#[rpc::service]
pub trait Kv {
    async fn get<'a>(&self, key: &'a str) -> rpc::Result<()>;
}

fn main() {}
