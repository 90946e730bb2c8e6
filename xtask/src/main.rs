//! The project's own commands: cargo xtask test, tidy, acceptance, conformance, crash, bars.
fn main() {}
