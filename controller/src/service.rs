//! Serves the native protocol on a connection.
//!
//! Requests are answered as they are done, in any order; a client that does not read its answers is not read either.
//! A record that is not a request ends the connection: what was asked before is still answered.

use crate::controller::Controller;
use crate::limits::{REQUEST_READ_BYTES, REQUESTS_IN_FLIGHT_MAX};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Endpoint};
use thalweg_types::record::{RECORD_HEADER_BYTES, Record, RecordError};
use thalweg_wire::controller::{Code, MessageError, RpcError, decode_request, encode_response};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

/// Why a connection ended before the client closed it.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The connection broke.
    #[error("connection to {peer}: {error}")]
    Broken {
        /// The client.
        peer: Endpoint,
        /// What happened.
        error: io::Error,
    },
    /// The bytes are not a record.
    #[error("connection to {peer}: {error}")]
    NotARecord {
        /// The client.
        peer: Endpoint,
        /// What they are not.
        error: RecordError,
    },
    /// The record is not a request.
    #[error("connection to {peer}: {error}")]
    NotARequest {
        /// The client.
        peer: Endpoint,
        /// What it is not.
        error: MessageError,
    },
    /// The client closed the connection in the middle of a record.
    #[error("connection to {peer}: closed in the middle of a record")]
    Cut {
        /// The client.
        peer: Endpoint,
    },
}

/// Answers the requests of one client until it closes the connection.
pub async fn serve(controller: Controller, connection: Connection) -> Result<(), ServeError> {
    let Connection { reader, writer, peer } = connection;
    let (answers, queue) = mpsc::channel(REQUESTS_IN_FLIGHT_MAX);
    let spawn = Arc::clone(&controller.inner.env.spawn);
    let _runs_on = spawn.spawn("controller-answers", Box::pin(write_answers(writer, queue)));
    let mut requests = Requests { reader, peer, buffer: BytesMut::new() };
    let room = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX));
    while let Some(record) = requests.next().await? {
        let request = decode_request(&record)
            .map_err(|error| ServeError::NotARequest { peer: requests.peer.clone(), error })?;
        let permit = Arc::clone(&room).acquire_owned().await.expect("never closed");
        let (controller, answers) = (controller.clone(), answers.clone());
        let answer = async move {
            let answer = controller.call(request).await;
            // The client may have gone.
            let _ = answers.send(encode_answer(record.address, &answer)).await;
            drop(permit);
        };
        let _runs_on = spawn.spawn("controller-request", Box::pin(answer));
    }
    Ok(())
}

fn encode_answer(
    number: u64,
    answer: &Result<thalweg_wire::controller::Response, RpcError>,
) -> Bytes {
    encode_response(number, answer).unwrap_or_else(|error| {
        let refusal = RpcError::new(Code::ResourceExhausted, error.to_string());
        encode_response(number, &Err(refusal)).expect("an error is short")
    })
}

async fn write_answers(mut writer: Box<dyn ByteWriter>, mut queue: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, REQUESTS_IN_FLIGHT_MAX).await > 0 {
        if let Err(error) = writer.write(std::mem::take(&mut batch)).await {
            tracing::debug!(%error, "a client went without its answers");
            return;
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "a connection could not be shut down");
    }
}

/// The records that a client sends.
struct Requests {
    reader: Box<dyn ByteReader>,
    peer: Endpoint,
    buffer: BytesMut,
}

impl Requests {
    /// The next record; `None` when the client has closed the connection between two records.
    async fn next(&mut self) -> Result<Option<Record>, ServeError> {
        loop {
            let needed = self.needed()?;
            if self.buffer.len() >= needed {
                let bytes = self.buffer.split_to(needed).freeze();
                let (record, _) = Record::decode(&bytes).map_err(|error| self.not(error))?;
                return Ok(Some(record));
            }
            self.buffer.reserve((needed - self.buffer.len()).max(REQUEST_READ_BYTES));
            let broken = |error| ServeError::Broken { peer: self.peer.clone(), error };
            if self.reader.read(&mut self.buffer).await.map_err(broken)? == 0 {
                let cut = ServeError::Cut { peer: self.peer.clone() };
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut) };
            }
        }
    }

    /// Length of the record at the start of the buffer, as far as it can be known by now.
    fn needed(&self) -> Result<usize, ServeError> {
        let header = &self.buffer[..self.buffer.len().min(RECORD_HEADER_BYTES)];
        match Record::decode(&Bytes::copy_from_slice(header)) {
            Err(RecordError::Incomplete { needed }) => Ok(needed),
            Err(RecordError::Checksum { .. }) | Ok(_) => Ok(RECORD_HEADER_BYTES),
            Err(error) => Err(self.not(error)),
        }
    }

    fn not(&self, error: RecordError) -> ServeError {
        ServeError::NotARecord { peer: self.peer.clone(), error }
    }
}

#[cfg(test)]
mod tests;
