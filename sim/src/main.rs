//! Deterministic simulation: simulated seams, nemesis, workloads, oracles.
fn main() {}
