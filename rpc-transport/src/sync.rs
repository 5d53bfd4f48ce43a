//! What the rooms share whose interleavings are tried out: `models/` puts others in its place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use tokio::sync::{Notify, mpsc, oneshot};
pub(crate) use tokio::task::spawn_local;
