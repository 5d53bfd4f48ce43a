//! The targets of `rpc-core/tests/fuzz` for libFuzzer.

#[path = "../../rpc-core/tests/fuzz/seeds.rs"]
mod seeds;
// The property tests use more of it.
#[allow(dead_code)]
#[path = "../../rpc-core/tests/fuzz/targets/mod.rs"]
mod targets;

/// Runs a target; it panics where something does not hold.
///
/// # Panics
/// Also where there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let (_, run) = targets::ALL.into_iter().find(|(name, _)| *name == target).expect("it is listed");
    run(data);
}

/// Inputs to start from, by the name of their target.
pub fn seeds() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let inputs = |name| seeds::inputs(name, &seeds::parts(name));
    targets::ALL.into_iter().flat_map(move |(name, _)| inputs(name).into_iter().map(move |input| (name, input)))
}
