//! What the compiler says about services that cannot be. One file a fault; the text beside it is what a user reads.
//!
//! `TRYBUILD=overwrite cargo test --test ui` writes the texts anew: read them as a user would before they are kept.

#[test]
fn every_fault_is_reported_where_it_is_written() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
