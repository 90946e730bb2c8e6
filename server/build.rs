//! Turns the controller's interface into Rust: the compiler for it is Rust too, so no `protoc` is needed.

use std::error::Error;

const PROTO: &str = "proto/controller.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure().build_client(false).btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
