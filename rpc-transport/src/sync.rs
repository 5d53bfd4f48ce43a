//! The locks of rooms whose interleavings are tried out: `models/` puts others in their place.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
