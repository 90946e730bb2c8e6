//! The metadata state machine: scopes, streams, epochs, container registers; workflows.
//!
//! * [`state`] decides: a pure function from [`record::Command`]s to state, replayed from the metadata log.
//! * [`controller`] runs it: proposes, applies, answers; its drivers carry workflows out at the segment store.
//! * `rpc` says what each request of a client means.
//! * [`service`] serves the native protocol on a connection.

pub mod controller;
mod driver;
mod join;
pub mod limits;
pub mod record;
mod rpc;
pub mod segments;
pub mod service;
pub mod state;
pub mod testing;
mod watermark;

pub use controller::{Config, Controller, Ended, StartError};
