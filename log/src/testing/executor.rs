//! One thread, virtual time: runs actors deterministically.

use super::disk::MemoryDisk;
use rand_core::{RngCore as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_actor::entropy::Entropy;
use thalweg_actor::env::Env;
use thalweg_actor::network::{Connection, Endpoint, Listener, Network};
use thalweg_actor::spawn::{Spawn, Task};
use thalweg_types::time::{Instant, WallTime};

/// More turns than this are taken for a circle.
const TURNS_MAX: u64 = 2_000_000;

#[derive(Default)]
struct State {
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    ready: VecDeque<u64>,
    timers: BTreeMap<(Instant, u64), Waker>,
    now: Instant,
    next: u64,
}

/// Runs what is spawned on it. Clones share everything. Time passes only when nothing else can happen. What is still
/// running ends with the last clone.
#[derive(Clone, Default)]
pub struct Executor {
    state: Arc<Mutex<State>>,
    seed: u64,
    /// What is spawned holds the executor as well, but not this.
    _owner: Option<Arc<Owner>>,
}

/// Breaks the circle of the executor and the tasks that it holds.
struct Owner(Arc<Mutex<State>>);

impl Drop for Owner {
    fn drop(&mut self) {
        let Ok(mut state) = self.0.lock() else { return };
        let left = (std::mem::take(&mut state.tasks), std::mem::take(&mut state.timers));
        drop(state);
        drop(left);
    }
}

struct Wakeup {
    state: Arc<Mutex<State>>,
    task: u64,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock().expect("no task panics while it holds the executor");
        if !state.ready.contains(&self.task) {
            state.ready.push_back(self.task);
        }
    }
}

impl Executor {
    /// An executor whose entropy comes from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = Arc::default();
        let owner = Owner(Arc::clone(&state));
        Self { state, seed, _owner: Some(Arc::new(owner)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no task panics while it holds the executor")
    }

    /// A world with `disk` and without a network.
    pub fn env(&self, disk: &MemoryDisk) -> Env {
        let entropy = SeededEntropy { seed: self.seed, drawn: Mutex::new(0) };
        let inner = Arc::new(Self { _owner: None, ..self.clone() });
        Env {
            network: Arc::new(NoNetwork),
            disk: Arc::new(disk.clone()),
            clock: inner.clone(),
            entropy: Arc::new(entropy),
            spawn: inner,
        }
    }

    /// Runs until `future` is done. Panics if nothing can happen any more.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.try_run(future).expect("the future can still make progress")
    }

    /// Runs until `future` is done, or until nothing can happen any more. Panics if neither comes to pass.
    pub fn try_run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        self.lock().ready.push_back(0);
        for turn in 0_u64.. {
            assert!(turn < TURNS_MAX, "tasks run for ever");
            let next = self.lock().ready.pop_front();
            let Some(task) = next else {
                let timer = {
                    let mut state = self.lock();
                    let timer = state.timers.pop_first();
                    if let Some(((at, _), _)) = &timer {
                        state.now = state.now.max(*at);
                    }
                    timer
                };
                timer?.1.wake();
                continue;
            };
            let waker = Waker::from(Arc::new(Wakeup { state: self.state.clone(), task }));
            let mut context = Context::from_waker(&waker);
            if task == 0 {
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return Some(output);
                }
                continue;
            }
            let Some(mut actor) = self.lock().tasks.remove(&task) else { continue };
            if actor.as_mut().poll(&mut context).is_pending() {
                self.lock().tasks.insert(task, actor);
            }
        }
        None
    }
}

impl Spawn for Executor {
    fn spawn(&self, _name: &'static str, actor: BoxFuture<'static, ()>) -> Task {
        let mut state = self.lock();
        state.next += 1;
        let task = state.next;
        state.tasks.insert(task, actor);
        state.ready.push_back(task);
        let shared = self.state.clone();
        Task::new(move || {
            let aborted = shared.lock().map(|mut state| state.tasks.remove(&task));
            drop(aborted);
        })
    }
}

struct Sleep {
    executor: Executor,
    at: Instant,
    /// Its one entry among the timers, once it has been polled.
    timer: Option<(Instant, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = Arc::clone(&self.executor.state);
        let mut state = state.lock().expect("no task panics while it holds the executor");
        if state.now >= self.at {
            return Poll::Ready(());
        }
        state.next += 1;
        let fresh = (self.at, state.next);
        let key = *self.timer.get_or_insert(fresh);
        state.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.executor.lock().timers.remove(&timer);
        }
    }
}

impl Clock for Executor {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { executor: self.clone(), at, timer: None })
    }

    fn wall(&self) -> WallTime {
        WallTime(i64::try_from(self.now().0 / 1_000_000).unwrap_or(i64::MAX))
    }
}

struct SeededEntropy {
    seed: u64,
    drawn: Mutex<u64>,
}

impl Entropy for SeededEntropy {
    fn draw(&self) -> u128 {
        let mut drawn = self.drawn.lock().expect("no draw panics");
        *drawn += 1;
        let mut coin = Pcg64Mcg::seed_from_u64(self.seed.wrapping_mul(1_000_003) + *drawn);
        u128::from(coin.next_u64()) << 64 | u128::from(coin.next_u64())
    }

    fn stream(&self, concern: &str) -> Pcg64Mcg {
        let salt = concern
            .bytes()
            .fold(self.seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Pcg64Mcg::seed_from_u64(salt)
    }
}

struct NoNetwork;

impl Network for NoNetwork {
    fn listen<'a>(&'a self, _at: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect<'a>(&'a self, _to: &'a Endpoint) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}
