//! The native async client: event writers, readers, reader groups, byte streams, tables.
//!
//! It lives on the seams of [`Env`] alone, so the same code runs on a real network and in the simulator. Decisions are
//! machines ([`writer::machine`], [`group`]); the rest waits. Every error says whether the thing happened: its
//! `is_refused` is true if it certainly did not.
//!
//! Not here: transactions, authentication, TLS.

pub mod byte_stream;
pub mod config;
pub mod controller;
mod dial;
pub mod event;
pub mod group;
mod link;
pub mod reader;
pub mod store;
pub mod table;
pub mod writer;

use byte_stream::{ByteReader, ByteStreamError, ByteWriter};
use config::Config;
use controller::{CallError, Controller, unexpected};
use group::Start;
use reader::{GroupError, ReaderGroup};
use store::{Stores, stream_name};
use table::Table;
use thalweg_actor::env::Env;
use thalweg_types::name::ScopedStream;
use thalweg_wire::controller::{
    CreateScopeStatus, CreateStreamStatus, Request, Response, StreamConfig,
};
use thiserror::Error;
use writer::EventWriter;

/// Why a scope or stream was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CreateError {
    /// The controller could not be asked, or gave no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The name is none that a scope or stream may have.
    #[error("{name} is no legal name: letters, digits, '.' and '-', at most 255")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The stream's scope does not exist.
    #[error("there is no scope {scope}")]
    ScopeNotFound {
        /// Its name.
        scope: String,
    },
    /// The controller did not do it and gave no reason.
    #[error("the controller failed to create {name}")]
    Failed {
        /// The scope's or stream's name.
        name: String,
    },
}

impl CreateError {
    /// True if it certainly did not happen.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Call(error) => error.is_refused(),
            Self::InvalidName { .. } | Self::ScopeNotFound { .. } => true,
            Self::Failed { .. } => false,
        }
    }
}

/// A client of one cluster. Cheap to clone; all clones share connections.
#[derive(Clone)]
pub struct Client {
    stores: Stores,
}

impl Client {
    /// A client that finds everything through the controllers of `config`. Nothing is connected yet.
    pub fn new(env: Env, config: Config) -> Self {
        let controller = Controller::new(env.clone(), config.clone());
        Self { stores: Stores::new(env, config, controller) }
    }

    /// The controllers, for what has no method here.
    pub fn controller(&self) -> &Controller {
        self.stores.controller()
    }

    /// Makes a scope; false if it was there.
    pub async fn create_scope(&self, scope: &str) -> Result<bool, CreateError> {
        let name = || scope.to_owned();
        match self.controller().call(Request::CreateScope { scope: name() }).await? {
            Response::CreateScope(CreateScopeStatus::Success) => Ok(true),
            Response::CreateScope(CreateScopeStatus::ScopeExists) => Ok(false),
            Response::CreateScope(CreateScopeStatus::InvalidScopeName) => {
                Err(CreateError::InvalidName { name: name() })
            }
            Response::CreateScope(CreateScopeStatus::Failure) => {
                Err(CreateError::Failed { name: name() })
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// Makes a stream with `segments` segments; false if it was there.
    pub async fn create_stream(
        &self,
        stream: &ScopedStream,
        segments: u32,
    ) -> Result<bool, CreateError> {
        let segments = i32::try_from(segments).unwrap_or(i32::MAX);
        let config = StreamConfig::fixed(stream_name(stream), segments);
        match self.controller().call(Request::CreateStream(config)).await? {
            Response::CreateStream(CreateStreamStatus::Success) => Ok(true),
            Response::CreateStream(CreateStreamStatus::StreamExists) => Ok(false),
            Response::CreateStream(CreateStreamStatus::ScopeNotFound) => {
                Err(CreateError::ScopeNotFound { scope: stream.scope.to_string() })
            }
            Response::CreateStream(CreateStreamStatus::InvalidStreamName) => {
                Err(CreateError::InvalidName { name: stream.to_string() })
            }
            Response::CreateStream(CreateStreamStatus::Failure) => {
                Err(CreateError::Failed { name: stream.to_string() })
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// Writes events to `stream`.
    pub fn event_writer(&self, stream: &ScopedStream) -> EventWriter {
        EventWriter::open(self.stores.clone(), stream.clone())
    }

    /// Reads the events of `stream` from `start` on, with as many readers as the group is asked for.
    pub async fn reader_group(
        &self,
        stream: &ScopedStream,
        start: Start,
    ) -> Result<ReaderGroup, GroupError> {
        ReaderGroup::open(self.stores.clone(), stream.clone(), start, false).await
    }

    /// Like [`reader_group`](Self::reader_group), but ends with what the stream holds now.
    pub async fn bounded_reader_group(
        &self,
        stream: &ScopedStream,
        start: Start,
    ) -> Result<ReaderGroup, GroupError> {
        ReaderGroup::open(self.stores.clone(), stream.clone(), start, true).await
    }

    /// Writes bytes to `stream`, which must have exactly one segment.
    pub async fn byte_writer(&self, stream: &ScopedStream) -> Result<ByteWriter, ByteStreamError> {
        ByteWriter::open(self.stores.clone(), stream).await
    }

    /// Reads the bytes of `stream`, which must have exactly one segment.
    pub async fn byte_reader(&self, stream: &ScopedStream) -> Result<ByteReader, ByteStreamError> {
        ByteReader::open(self.stores.clone(), stream).await
    }

    /// The table `table`, a segment of its own at the store.
    pub fn table(&self, table: &ScopedStream) -> Table {
        Table::new(self.stores.clone(), table.clone())
    }
}
