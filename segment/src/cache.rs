//! Payloads of committed log entries, kept in memory for readers: one cache for all containers of a process.
//!
//! Bounded in bytes. What was read since it came up for eviction gets a second round; the rest goes in the order of
//! its arrival. Entries never change, so nothing in it is ever stale.

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::{planted, probe};
use thalweg_types::id::{Address, ContainerId};

/// Chunks shorter than this on average are copied together: many small slices would keep many large receive buffers
/// alive.
const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// What an entry costs besides its payload.
const OVERHEAD_BYTES: usize = 160;

type Key = (ContainerId, Address);

/// An entry's payload, in pieces.
#[derive(Clone, Debug)]
pub struct Payloads {
    chunks: Arc<[Bytes]>,
    len: usize,
}

impl Payloads {
    /// The payload that `chunks` make up, one behind the other.
    pub fn new(chunks: &[Bytes]) -> Self {
        let len: usize = chunks.iter().map(Bytes::len).sum();
        if len < CHUNK_BYTES_MIN * chunks.len() {
            let mut whole = BytesMut::with_capacity(len);
            for chunk in chunks {
                whole.extend_from_slice(chunk);
            }
            return Self { chunks: Arc::from([whole.freeze()]), len };
        }
        Self { chunks: chunks.into(), len }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without a byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives `len` bytes from `position` on to `take`, in pieces. False if they are not all there.
    pub fn pieces(&self, position: usize, len: usize, mut take: impl FnMut(Bytes)) -> bool {
        if position + len > self.len {
            return false;
        }
        let (mut skip, mut left) = (position, len);
        for chunk in self.chunks.iter() {
            if left == 0 {
                break;
            }
            if skip >= chunk.len() {
                skip -= chunk.len();
                continue;
            }
            let end = chunk.len().min(skip + left);
            take(chunk.slice(skip..end));
            left -= end - skip;
            skip = 0;
        }
        true
    }
}

#[derive(Debug)]
struct Slot {
    payload: Payloads,
    was_read: bool,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: BTreeMap<Key, Slot>,
    /// Keys in the order in which they come up for eviction; some may be gone.
    queue: VecDeque<Key>,
    bytes: usize,
}

/// The cache. Share it in an [`Arc`].
#[derive(Debug)]
pub struct Cache {
    slots: Mutex<Slots>,
    bytes_max: usize,
}

impl Cache {
    /// An empty cache for up to `bytes_max` bytes of payload.
    pub fn new(bytes_max: usize) -> Self {
        Self { slots: Mutex::default(), bytes_max }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // The lock is held for a few lines that do not panic; if they did, the cache would still be sound.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the payload of a committed entry, and lets others go to make room.
    pub fn insert(&self, container: ContainerId, address: Address, payload: Payloads) {
        let cost = payload.len() + OVERHEAD_BYTES;
        if payload.is_empty() || cost > self.bytes_max / 2 {
            return;
        }
        let key = (container, address);
        let mut slots = self.slots();
        if slots.by_key.insert(key, Slot { payload, was_read: false }).is_some() {
            return;
        }
        slots.bytes += cost;
        slots.queue.push_back(key);
        while slots.bytes > self.bytes_max {
            let Some(oldest) = slots.queue.pop_front() else { break };
            let Some(slot) = slots.by_key.get_mut(&oldest) else { continue };
            if std::mem::take(&mut slot.was_read) {
                slots.queue.push_back(oldest);
                continue;
            }
            probe!("cache: evicted");
            let cost = slot.payload.len() + OVERHEAD_BYTES;
            slots.by_key.remove(&oldest);
            slots.bytes -= cost;
        }
    }

    /// The payload of an entry, if it is here.
    pub fn get(&self, container: ContainerId, address: Address) -> Option<Payloads> {
        let mut slots = self.slots();
        if planted!("PB-S6") && slots.bytes * 2 > self.bytes_max {
            // The planted bug: under pressure the container is not looked at.
            let mut same = slots.by_key.iter().filter(|((_, at), _)| at.entry == address.entry);
            if let Some((_, slot)) = same.next() {
                return Some(slot.payload.clone());
            }
        }
        let slot = slots.by_key.get_mut(&(container, address))?;
        slot.was_read = true;
        Some(slot.payload.clone())
    }

    /// Bytes of payload held now.
    pub fn bytes(&self) -> usize {
        self.slots().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_types::id::{EntryId, Epoch};

    fn at(entry: u64) -> Address {
        Address::new(Epoch(1), EntryId(entry))
    }

    fn payload(byte: u8, len: usize) -> Payloads {
        Payloads::new(&[vec![byte; len].into()])
    }

    fn bytes(payload: &Payloads, position: usize, len: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        payload.pieces(position, len, |piece| out.extend_from_slice(&piece)).then_some(out)
    }

    #[test]
    fn pieces_are_found_across_chunks() {
        let chunks: Vec<Bytes> =
            [1_u8, 2, 3].iter().map(|byte| vec![*byte; CHUNK_BYTES_MIN].into()).collect();
        let payload = Payloads::new(&chunks);
        let middle = bytes(&payload, CHUNK_BYTES_MIN - 1, CHUNK_BYTES_MIN + 2).unwrap();
        assert_eq!((middle[0], middle[1], middle[middle.len() - 1]), (1, 2, 3));
        assert_eq!(middle.len(), CHUNK_BYTES_MIN + 2);
        assert_eq!(bytes(&payload, 0, 3 * CHUNK_BYTES_MIN + 1), None);
    }

    #[test]
    fn small_chunks_are_copied_together() {
        let payload = Payloads::new(&[Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]);
        assert_eq!(payload.chunks.len(), 1);
        assert_eq!(bytes(&payload, 1, 2), Some(b"bc".to_vec()));
    }

    #[test]
    fn the_bound_holds_and_what_is_read_stays_longer() {
        let cache = Cache::new(10_000);
        cache.insert(ContainerId(0), at(0), payload(0, 1000));
        for entry in 1..100 {
            assert!(cache.get(ContainerId(0), at(0)).is_some(), "read again and again");
            cache.insert(ContainerId(0), at(entry), payload(1, 1000));
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.get(ContainerId(0), at(1)).is_none());
        assert!(cache.get(ContainerId(0), at(99)).is_some());
        assert!(cache.get(ContainerId(1), at(99)).is_none(), "containers are apart");
    }

    #[test]
    fn what_is_larger_than_half_of_it_is_not_kept() {
        let cache = Cache::new(1000);
        cache.insert(ContainerId(0), at(0), payload(0, 600));
        assert_eq!(cache.bytes(), 0);
    }
}
