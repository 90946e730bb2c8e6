//! The threads of a data folder.

use super::direct::Aligned;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use thalweg_actor::BoxFuture;
use tokio::sync::oneshot;

/// Reads and lengthy work happen on so many threads besides the one that writes.
const ASIDE_THREADS: usize = 3;
/// They call the system and nothing else.
const STACK_BYTES: usize = 256 * 1024;
/// A write past the page cache goes to the device in parts of this size.
const SCRATCH_BYTES: usize = 1024 * 1024;

type Ordered = Box<dyn FnOnce(&mut Aligned) + Send>;
type Aside = Box<dyn FnOnce() + Send>;

/// Runs what the folder is asked for. The threads end when this is dropped and their work is done.
pub(super) struct Threads {
    ordered: Sender<Ordered>,
    aside: Sender<Aside>,
}

impl Threads {
    pub(super) fn start() -> io::Result<Self> {
        let (ordered, ordered_work) = channel::<Ordered>();
        let (aside, aside_work) = channel::<Aside>();
        named("disk-writes").spawn(move || {
            let mut scratch = Aligned::zeroed(SCRATCH_BYTES);
            for work in ordered_work {
                work(&mut scratch);
            }
        })?;
        let aside_work = Arc::new(Mutex::new(aside_work));
        for _ in 0..ASIDE_THREADS {
            let work = Arc::clone(&aside_work);
            named("disk-reads").spawn(move || {
                while let Some(work) = next(&work) {
                    work();
                }
            })?;
        }
        Ok(Self { ordered, aside })
    }

    /// Runs `work` behind all earlier work of this kind.
    pub(super) fn in_order<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Aligned) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let (done, outcome) = oneshot::channel();
        let sent = self.ordered.send(Box::new(move |scratch| {
            // Nobody waits for it any more when this fails.
            let _ = done.send(work(scratch));
        }));
        wait(outcome, sent.is_ok())
    }

    /// Runs `work` as soon as a thread is free.
    pub(super) fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let (done, outcome) = oneshot::channel();
        let sent = self.aside.send(Box::new(move || {
            let _ = done.send(work());
        }));
        wait(outcome, sent.is_ok())
    }
}

fn wait<T: Send + 'static>(
    outcome: oneshot::Receiver<io::Result<T>>,
    sent: bool,
) -> BoxFuture<'static, io::Result<T>> {
    Box::pin(async move {
        if sent && let Ok(outcome) = outcome.await {
            return outcome;
        }
        Err(io::Error::other("a thread of the data folder has ended"))
    })
}

fn next(work: &Mutex<Receiver<Aside>>) -> Option<Aside> {
    work.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES)
}
