//! The conformance suite (conformance/README.md) against this implementation: every script over every backend, the vectors
//! against the encoders and decoders, and the proof that a wrong implementation is noticed.

#[path = "../../conformance/runner/mod.rs"]
mod runner;

#[path = "../it/certificates.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod certificates;

mod coverage;
mod sabotage;
mod scripts;
mod vectors;
