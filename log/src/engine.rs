//! The disk log engine.

pub(crate) mod facts;
