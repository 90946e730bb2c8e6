//! The metadata state machine: scopes, streams, epochs, container registers; workflows.
