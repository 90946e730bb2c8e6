//! Filling answers with bytes from the cache, or from the log.

use crate::cache::{Cache, Payloads};
use crate::container::Load;
use crate::place::Place;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use thalweg_actor::probe;
use thalweg_log::ledger::{Ledger, ReadError};
use thalweg_types::id::{Address, ContainerId};
use thalweg_wire::segment::{
    CODE_UNSPECIFIED, Command, ErrorMessage, SegmentRead, TableEntriesDeltaRead, TableEntriesRead,
    TableRead,
};

/// Where a container's bytes are read from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) container: ContainerId,
    pub(super) cache: Arc<Cache>,
    pub(super) ledger: Arc<dyn Ledger>,
}

/// The lowest entry that the answer needs.
pub(super) fn lowest(load: &Load) -> Option<Address> {
    load.places.iter().map(|(_, place)| place.address).min()
}

impl Source {
    /// Completes the answer from the cache alone; gives it back if an entry is missing there.
    pub(super) fn try_cache(&self, load: Load) -> Option<Load> {
        let mut filling = Filling::default();
        for (index, place) in &load.places {
            let known = filling.entry_of(*place);
            let Some(payload) = known.or_else(|| self.cache.get(self.container, place.address))
            else {
                return Some(load);
            };
            if !filling.take(*index, *place, payload) {
                return Some(load);
            }
        }
        let Load { replies, mut reply, .. } = load;
        filling.fill(&mut reply);
        replies.send(reply);
        None
    }

    /// Completes the answer, reading what the cache lacks.
    pub(super) async fn read_log(&self, load: Load) {
        let Load { replies, mut reply, places } = load;
        let mut filling = Filling::default();
        for (index, place) in places {
            let payload = match filling.entry_of(place) {
                Some(payload) => Ok(payload),
                None => self.entry(place.address).await,
            };
            let fault = match payload {
                Ok(payload) => {
                    if filling.take(index, place, payload) {
                        continue;
                    }
                    too_short(place.address)
                }
                Err(fault) => fault,
            };
            tracing::error!(container = %self.container, %fault, "bytes cannot be read");
            if let ReadError::Stopped(_) = fault {
                return replies.close("the log has stopped");
            }
            return match refusal(&reply, &fault) {
                Some(refusal) => replies.send(refusal),
                None => replies.close("bytes cannot be read"),
            };
        }
        filling.fill(&mut reply);
        replies.send(reply);
    }

    /// The values at `places`, in order.
    pub(super) async fn read_values(&self, places: &[Place]) -> Result<Vec<Bytes>, ReadError> {
        let mut filling = Filling::default();
        for (index, place) in places.iter().enumerate().filter(|(_, place)| place.len > 0) {
            let payload = match filling.entry_of(*place) {
                Some(payload) => payload,
                None => self.entry(place.address).await?,
            };
            if !filling.take(index, *place, payload) {
                return Err(too_short(place.address));
            }
        }
        Ok(filling.pieces.into_iter().map(|(_, piece)| piece).collect())
    }

    async fn entry(&self, address: Address) -> Result<Payloads, ReadError> {
        if let Some(payload) = self.cache.get(self.container, address) {
            return Ok(payload);
        }
        probe!("load: entry read from the log");
        let payload = Payloads::new(&[self.ledger.read(address).await?]);
        self.cache.insert(self.container, address, payload.clone());
        Ok(payload)
    }
}

fn too_short(address: Address) -> ReadError {
    let reason = "the entry is shorter than what it should hold".into();
    ReadError::Unknown { address, reason }
}

/// The pieces of an answer as they are found.
#[derive(Default)]
struct Filling {
    pieces: Vec<(usize, Bytes)>,
    last: Option<(Address, Payloads)>,
}

impl Filling {
    /// The entry that was used last, if the place lies in it.
    fn entry_of(&self, place: Place) -> Option<Payloads> {
        let (address, payload) = self.last.as_ref()?;
        (*address == place.address).then(|| payload.clone())
    }

    /// Takes the pieces of one place; false if the entry is too short.
    fn take(&mut self, index: usize, place: Place, payload: Payloads) -> bool {
        let pieces = &mut self.pieces;
        let found = payload.pieces(place.position as usize, place.len as usize, |piece| {
            pieces.push((index, piece));
        });
        self.last = Some((place.address, payload));
        found
    }

    fn fill(self, reply: &mut Command) {
        match reply {
            Command::SegmentRead(SegmentRead { data, .. }) => {
                self.pieces.into_iter().for_each(|(_, piece)| data.push(piece));
            }
            Command::TableRead(TableRead { entries, .. })
            | Command::TableEntriesRead(TableEntriesRead { entries, .. })
            | Command::TableEntriesDeltaRead(TableEntriesDeltaRead { entries, .. }) => {
                for (index, piece) in self.pieces {
                    let Some(entry) = entries.get_mut(index) else { continue };
                    entry.value = if entry.value.is_empty() {
                        piece
                    } else {
                        // A value in several pieces: rare, as values are appended in one.
                        let mut whole = BytesMut::from(&entry.value[..]);
                        whole.extend_from_slice(&piece);
                        whole.freeze()
                    };
                }
            }
            _ => debug_assert!(false, "{} holds no bytes", reply.name()),
        }
    }
}

/// What a client is told when bytes that it asked for are unknown.
fn refusal(reply: &Command, fault: &ReadError) -> Option<ErrorMessage> {
    let (request_id, segment) = match reply {
        Command::SegmentRead(reply) => (reply.request_id, &reply.segment),
        Command::TableRead(reply) => (reply.request_id, &reply.segment),
        Command::TableEntriesRead(reply) => (reply.request_id, &reply.segment),
        Command::TableEntriesDeltaRead(reply) => (reply.request_id, &reply.segment),
        _ => return None,
    };
    Some(ErrorMessage {
        request_id,
        segment: segment.clone(),
        message: fault.to_string(),
        error_code: CODE_UNSPECIFIED,
    })
}
