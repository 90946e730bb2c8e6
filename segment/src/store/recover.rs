//! Opening a container's log and rebuilding its state.

use super::StartError;
use crate::container::{Parts, Recovery, RecoveryError, Replayed};
use std::sync::Arc;
use thalweg_actor::probe;
use thalweg_log::ledger::{Ledger, Logs, Opened, SnapshotPointer, SnapshotPointers};
use thalweg_types::id::ContainerId;

/// A recovered container and the log it goes on with.
pub(super) struct Recovered {
    pub(super) recovery: Recovery,
    pub(super) replayed: Replayed,
    pub(super) opened: Opened,
    /// The snapshots that are good for another recovery.
    pub(super) snapshots: SnapshotPointers,
}

/// Takes the container over and replays its log.
pub(super) async fn recover(
    logs: &Arc<dyn Logs>,
    container: ContainerId,
) -> Result<Recovered, StartError> {
    let opened = logs.open(container).await?;
    let (mut recovery, snapshots) = begin(container, &opened).await?;
    let mut replay = logs.replay(&opened, recovery.from());
    while let Some(entry) =
        replay.next().await.map_err(|fault| StartError::Read { container, fault })?
    {
        recovery.replay(entry).map_err(|fault| StartError::Recovery { container, fault })?;
    }
    drop(replay);
    let replayed = recovery.verify().map_err(|fault| StartError::Recovery { container, fault })?;
    Ok(Recovered { recovery, replayed, opened, snapshots })
}

/// The newest snapshot that is whole, or the beginning of the log if that is still there.
async fn begin(
    container: ContainerId,
    opened: &Opened,
) -> Result<(Recovery, SnapshotPointers), StartError> {
    let SnapshotPointers { newest, older } = opened.snapshots.clone();
    let mut last_fault = None;
    for (pointer, rest) in [(newest, older), (older, None)] {
        let Some(pointer) = pointer else { continue };
        match read_snapshot(opened, pointer).await {
            Ok(recovery) => {
                let snapshots = SnapshotPointers { newest: Some(pointer), older: rest };
                return Ok((recovery, snapshots));
            }
            Err(fault) => {
                probe!("recovery: a snapshot cannot be used");
                tracing::warn!(%container, %fault, "a snapshot cannot be used");
                last_fault = Some(fault);
            }
        }
    }
    // The log is trimmed only when there is an older snapshot: until then it is whole from its beginning.
    match last_fault {
        Some(fault) if older.is_some() => Err(StartError::Recovery { container, fault }),
        _ => Ok((Recovery::blank(), SnapshotPointers::default())),
    }
}

async fn read_snapshot(
    opened: &Opened,
    pointer: SnapshotPointer,
) -> Result<Recovery, RecoveryError> {
    let ledger: &dyn Ledger = &*opened.ledger;
    let mut parts = Parts::new(pointer);
    while let Some(address) = parts.next() {
        let payload = ledger
            .read(address)
            .await
            .map_err(|error| RecoveryError::Snapshot { address, reason: error.to_string() })?;
        parts.push(&payload)?;
    }
    Recovery::from_parts(&parts, opened.keep_from)
}
