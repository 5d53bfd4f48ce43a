//! All that is wrong is said at once, and the trait still stands.

#[rpc::service]
pub trait Kv {
    fn get(&mut self, key: &mut u32) -> u32;
    #[rpc(twice)]
    async fn put(&self, key: u32) -> rpc::Result<()>;
    async fn delete(&self, key: &str) -> rpc::Result<()>;
}

// Nothing below is an error: the trait is there, and so are the client and the server of its sound methods.
pub struct Store;

impl Kv for Store {
    fn get(&mut self, key: &mut u32) -> u32 {
        *key
    }
    async fn put(&self, _key: u32) -> rpc::Result<()> {
        Ok(())
    }
    async fn delete(&self, _key: &str) -> rpc::Result<()> {
        Ok(())
    }
}

pub async fn delete(kv: &KvClient) -> rpc::Result<()> {
    kv.delete("key").await
}

pub fn serve() -> KvServer<Store> {
    KvServer::new(Store)
}

fn main() {}
