//! One process: wires disk, log, controller, containers and listeners to an environment.

mod segments;
