//! End to end: real servers, real clients, and peers that break every rule. Named by behaviour; one binary.
//!
//! No case asserts a time. What may hang is bounded by [`harness::HANG`], and a case that reaches it has failed.

mod aliases;
mod bad_input;
mod both_ways;
mod cases;
mod certificates;
mod codecs;
mod connections;
mod decode_limits;
mod dropped_at_every_poll;
mod endings;
#[cfg(all(unix, not(target_vendor = "apple")))]
mod fifos;
mod generic_services;
mod harness;
mod inspection;
mod lab;
mod large_bytes;
mod limits;
mod listeners;
mod local_services;
mod macro_keys;
#[cfg(unix)]
mod processes;
mod proxy;
mod raw;
mod regressions;
mod scheduling;
mod tls;
mod tower;
#[cfg(unix)]
mod unix_sockets;
#[cfg(windows)]
mod windows_pipes;
