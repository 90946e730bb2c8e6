//! Why a node does not start, and why it has ended.

use std::sync::Arc;
use thalweg_log::engine;
use thalweg_log::ledger::OpenError;
use thalweg_segment::store;
use thiserror::Error;

/// Why a node does not start. Nothing has been deleted, cut or acknowledged.
#[derive(Debug, Error)]
pub enum StartError {
    /// The disk log cannot be mounted.
    #[error(transparent)]
    Log(#[from] engine::StartError),
    /// The controller's commands cannot be read back.
    #[error("the controller's log: {0}")]
    ControllerLog(OpenError),
    /// The controller's state cannot be rebuilt.
    #[error(transparent)]
    Controller(#[from] thalweg_controller::StartError),
    /// A container does not start.
    #[error(transparent)]
    Store(#[from] store::StartError),
}

/// Why a node has ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Ended {
    /// The disk has failed: nothing more may be acknowledged. What was acknowledged is durable.
    #[error("the disk has failed: {0}")]
    Disk(Arc<str>),
    /// The controller has ended.
    #[error("the controller has ended: {0}")]
    Controller(Arc<str>),
    /// A container has ended.
    #[error("a container has ended: {0}")]
    Container(Arc<str>),
}
