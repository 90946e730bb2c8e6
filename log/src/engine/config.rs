//! The engine's sizes and waits.

use rand_core::RngCore;
use std::time::Duration;
use thalweg_types::id::NodeId;

const MIB: u64 = 1024 * 1024;

/// How one engine behaves. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster that the storage must belong to; `None` takes the one that is found, or draws a new one.
    pub cluster: Option<u128>,
    /// The node that mounts the storage.
    pub node: NodeId,
    /// Size of the first file. Each next one is twice the one that was filled before it.
    pub file_first: u64,
    /// Where the doubling ends.
    pub file_max: u64,
    /// Size of each of the two files that are kept for a full disk.
    pub reserve: u64,
    /// What a batch aims at; a larger frame travels alone.
    pub batch_target: usize,
    /// New files are written with zeros in steps of this size…
    pub allocate_step: u64,
    /// …with this pause in between, unless somebody waits for the file.
    pub allocate_pause: Duration,
    /// Bytes that may be dead in files that are not written any more before what is live among them is copied to free
    /// them, on a disk with several times more room: most entries are trimmed soon, and their files die by themselves.
    pub dead_max: u64,
    /// An idle disk writes one empty batch this long after the last one.
    pub idle: Duration,
    /// How often a full disk is asked again.
    pub full_retry: Duration,
    /// Names that others keep in the same folder.
    pub bystanders: Vec<String>,
}

impl Config {
    /// What a real node uses.
    pub fn production() -> Self {
        Self {
            cluster: None,
            node: NodeId(0),
            file_first: 16 * MIB,
            file_max: 256 * MIB,
            reserve: 16 * MIB,
            batch_target: 4 * 1024 * 1024,
            allocate_step: 2 * MIB,
            allocate_pause: Duration::from_millis(4),
            dead_max: 512 * MIB,
            idle: Duration::from_millis(1),
            full_retry: Duration::from_secs(1),
            bystanders: vec!["lock".to_owned()],
        }
    }

    /// How much is moved in one batch, in bytes: enough that what moves takes less space than before, since each batch
    /// is padded.
    pub(super) fn move_target(&self) -> usize {
        self.batch_target.max(64 * 1024)
    }

    /// Small sizes drawn from `rng`, so that a short simulation meets every file boundary.
    pub fn simulated(rng: &mut impl RngCore) -> Self {
        let mut pick = |choices: &[u64]| choices[rng.next_u32() as usize % choices.len()];
        let file_first = pick(&[32, 64, 256, 1024]) * 1024;
        Self {
            file_first,
            file_max: file_first * pick(&[1, 2, 8]),
            reserve: pick(&[32, 64]) * 1024,
            batch_target: usize::try_from(pick(&[1, 8, 64, 1024])).unwrap_or(1) * 1024,
            allocate_step: pick(&[16, 64, 1024]) * 1024,
            allocate_pause: Duration::from_micros(pick(&[0, 100, 2000])),
            full_retry: Duration::from_millis(pick(&[20, 200])),
            dead_max: pick(&[0, 64, 1024]) * 1024,
            ..Self::production()
        }
    }
}
