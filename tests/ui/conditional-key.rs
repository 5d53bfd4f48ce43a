//! The keys are read before `cfg_attr` is.

#[rpc::service]
pub trait Kv {
    #[cfg_attr(unix, rpc(oneway))]
    async fn log(&self, line: &str) -> rpc::Result<()>;
}

fn main() {}
