//! The thalweg binary: every role in one process.
fn main() {}
