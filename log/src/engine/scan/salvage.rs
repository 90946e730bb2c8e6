//! The scan of a storage that has peers: damage that cannot be put down to single ledgers is doubt about all of
//! them, and no reason to refuse the start.
//!
//! Whatever lies in front of the START that followed the newest such doubt (`limbo_from`) is read for its entries only:
//! that START has stated anew all that was known, and what it vouches for. So a doubt survives any number of starts,
//! and damage that was looked at once does not raise it again.

use super::walk::Walk;
use super::{Found, Reader, Scanned, StartError, strict};
use crate::engine::files::{FIRST_BATCH, LogFile};
use crate::engine::format::Record;
use std::sync::Arc;
use thalweg_actor::probe;

/// What is wrong with a file as a whole.
pub(in crate::engine) struct FileFlaw {
    /// The file's place in the log.
    pub number: u64,
    /// What it is, for people.
    pub what: String,
}

/// What the superblock says of earlier damage.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Doubt {
    /// The START behind the newest doubt; 0 if there never was one.
    pub from: u64,
    /// The last batch if the engine stopped cleanly, else 0.
    pub clean: u64,
}

/// The number of the first batch in `log` that can be read, and whether it is the START of a mount.
async fn first_batch(log: &LogFile) -> Option<(u64, bool)> {
    let mut reader = Reader::new(log);
    if let Ok(Found::Batch(front)) = reader.batch(FIRST_BATCH).await {
        let is_start = matches!(front.header.record(0, &front.bytes), Ok((_, Record::Start(_))));
        return Some((front.header.chain.seq, is_start));
    }
    let found = reader.search(FIRST_BATCH, |_| true).await.ok().flatten();
    found.map(|(_, front)| (front.header.chain.seq, false))
}

/// Scans the files in use that can be opened; `flaws` says what is wrong with those that cannot.
pub(in crate::engine) async fn scan_doubtful(
    folder: &str,
    logs: &[Arc<LogFile>],
    flaws: &[FileFlaw],
    doubt: Doubt,
) -> Result<Scanned, StartError> {
    let old = settled(logs, doubt.from).await;
    let lost_start = old.is_none();
    let old = old.unwrap_or(0);
    // The file with the damage may be one that cannot be used, so that nothing lies in front of that START.
    let first = if doubt.from == 0 || lost_start { 0 } else { logs[old].number() };
    let flaws: Vec<&FileFlaw> = flaws.iter().filter(|flaw| flaw.number >= first).collect();
    let begin = before(folder, &logs[..old]).await;
    if flaws.is_empty() && !lost_start {
        match strict(folder, &logs[old..], doubt.clean, begin).await {
            Ok(scanned) => return Ok(scanned.trimmed()),
            Err(error @ StartError::Version { .. }) => return Err(error),
            Err(error) => {
                probe!("engine: damage that concerns all ledgers");
                let begin = before(folder, &logs[..old]).await;
                let mut all = salvage(folder, &logs[old..], true, begin).await;
                all.damages.push(error.to_string());
                return Ok(all.doubtful().trimmed());
            }
        }
    }
    let all = salvage(folder, &logs[old..], true, begin).await;
    let mut walk = Walk::new(folder, 0, Vec::new(), all);
    for flaw in flaws {
        probe!("engine: file that cannot be used");
        walk.note_file(flaw.number, &flaw.what);
    }
    let mut all = walk.finish();
    if lost_start {
        let from = doubt.from;
        all.damages.push(format!("{folder}: the doubt about what lies before batch {from} stands"));
    }
    Ok(all.doubtful().trimmed())
}

/// How many of `logs` lie before the START `from`; `None` if it should be there and is not.
async fn settled(logs: &[Arc<LogFile>], from: u64) -> Option<usize> {
    if from == 0 {
        return Some(0);
    }
    let mut head = None;
    for (at, log) in logs.iter().enumerate() {
        let Some((seq, is_start)) = first_batch(log).await else { continue };
        if is_start && seq == from {
            return Some(at);
        }
        head.get_or_insert((at, seq));
    }
    // Its file was freed: all that is left came later.
    head.filter(|(at, seq)| *at == 0 && *seq > from).map(|_| 0)
}

/// Takes in what lies before the newest doubt: what is damaged there has been doubted already.
async fn before(folder: &str, logs: &[Arc<LogFile>]) -> Scanned {
    Scanned { limbo_from: None, ..salvage(folder, logs, false, Scanned::default()).await }
}

/// Takes in what can be read of `logs`, if there are any.
async fn salvage(folder: &str, logs: &[Arc<LogFile>], last: bool, out: Scanned) -> Scanned {
    if logs.is_empty() {
        return out;
    }
    let mut walk = Walk::new(folder, 0, Vec::new(), out);
    walk.salvage(logs, last).await;
    let mut out = walk.finish();
    out.salvaged = true;
    out
}
