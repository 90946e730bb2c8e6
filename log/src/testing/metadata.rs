//! A metadata log in memory.

use crate::ledger::Stopped;
use crate::metadata::{MetadataLog, RecoveredCommands};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard};
use thalweg_actor::BoxFuture;

#[derive(Default)]
struct State {
    stored: RecoveredCommands,
    next: u64,
    answered: bool,
    stopped: Option<Arc<str>>,
}

/// A [`MetadataLog`] in memory: every command is committed at once.
#[derive(Default)]
pub struct MemoryMetadataLog {
    state: Mutex<State>,
}

impl MemoryMetadataLog {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The log as a restart finds it.
    pub fn restart(&self) -> Arc<Self> {
        let state = self.lock();
        let (stored, next) = (state.stored.clone(), state.next);
        let state = State { stored, next, ..State::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Ends the log, as a failed disk does.
    pub fn fail(&self, reason: &str) {
        self.lock().stopped = Some(Arc::from(reason));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the log")
    }
}

impl State {
    fn running(&self) -> Result<(), Stopped> {
        match self.stopped.clone() {
            Some(reason) => Err(Stopped { reason }),
            None => Ok(()),
        }
    }
}

impl MetadataLog for MemoryMetadataLog {
    fn recovered(&self) -> RecoveredCommands {
        let mut state = self.lock();
        if std::mem::replace(&mut state.answered, true) {
            return RecoveredCommands::default();
        }
        state.stored.clone()
    }

    fn append(&self, command: Bytes) -> BoxFuture<'_, Result<u64, Stopped>> {
        let mut state = self.lock();
        let outcome = state.running().map(|()| {
            state.next += 1;
            let index = state.next;
            state.stored.commands.push((index, command));
            index
        });
        Box::pin(async move { outcome })
    }

    fn snapshot(&self, upto: u64, snapshot: Bytes) -> BoxFuture<'_, Result<(), Stopped>> {
        let mut state = self.lock();
        let outcome = state.running().map(|()| {
            state.stored.commands.retain(|(index, _)| *index > upto);
            state.stored.snapshot = Some((upto, snapshot));
        });
        Box::pin(async move { outcome })
    }
}
