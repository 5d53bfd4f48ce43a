//! `pipe://name`: what a platform calls a pipe with a name.

#[cfg(windows)]
mod windows;

#[cfg(windows)]
pub(super) use windows::{connect, listen};
