//! What a system offers to the load, whatever it is: the one seam between the workloads and the neighbours.

use std::any::Any;
use std::convert::Infallible;

use bytes::Bytes;

use crate::common::Nested;
use crate::workload::Workload;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A system under measurement; a value of it is one caller.
///
/// Futures need not be `Send`: everything runs on a runtime of one thread, which takes both kinds.
pub(crate) trait Neighbour: Sized + 'static {
    /// By which name it is called on the command line and in tables.
    const NAME: &'static str;

    /// What is counted as a session in W7.
    const UNIT: &'static str;

    /// Workloads that it has nothing for, with the reason.
    const LACKS: &'static [(Workload, &'static str)] = &[];

    /// Whether one caller has all calls that are in flight: they are written at once and come back at once.
    const WHOLE_WINDOW: bool = false;

    /// The struct of W6 as the application has it here.
    type Value: From<Nested> + PartialEq;

    /// Listens, says where, and answers for as long as it is polled.
    async fn serve(announce: impl FnOnce(String)) -> Outcome<Infallible>;

    /// Makes one connection, and so many callers of it.
    async fn connect(address: &str, callers: usize) -> Outcome<Vec<Self>>;

    /// One unary call. `see` is shown what came back, where it lies.
    async fn echo(&mut self, body: &Bytes, see: impl FnOnce(&[u8])) -> Outcome<()>;

    /// One unary call with a struct.
    async fn nested(&mut self, value: &Self::Value) -> Outcome<Self::Value> {
        let _ = value;
        Err("there are no typed calls".into())
    }

    /// One stream of `count` items down, each of `size` bytes. How many came.
    async fn items(&mut self, count: u64, size: u32) -> Outcome<u64> {
        let _ = (count, size);
        Err("there are no streams".into())
    }

    /// Brings up `count` sessions that do nothing; they are there until the value is dropped.
    async fn idle(address: &str, count: usize) -> Outcome<Box<dyn Any>> {
        let _ = (address, count);
        Err("there are no sessions".into())
    }
}
