//! Tests of the container as a machine, each with a log of its own in memory.

mod appends;
mod bench;
mod formats;
mod merges;
mod reads;
mod recovery;
mod segments;
