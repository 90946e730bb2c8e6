//! The thalweg binary: every role in one process.

mod exit;
mod os;

fn main() {}
