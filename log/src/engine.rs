//! The disk log engine.

pub(crate) mod facts;
mod format;
