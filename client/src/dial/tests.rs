//! Callers that are polled once and then forgotten, and others that need the connection meanwhile.

use super::*;
use crate::store::Commands;
use bytes::{Bytes, BytesMut};
use rand_core::SeedableRng as _;
use rand_pcg::Pcg64Mcg;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_actor::disk::{Disk, File, Open, Space};
use thalweg_actor::entropy::Entropy;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Listener, Network};
use thalweg_actor::spawn::{Spawn, Task};
use thalweg_types::time::{Instant, WallTime};

/// A world in which every connection is made at once, and tasks run when the test says so.
#[derive(Default)]
struct World {
    tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
    connects: AtomicU32,
}

struct Silent;

impl ByteReader for Silent {
    fn read<'a>(&'a mut self, _into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(std::future::pending())
    }
}

impl ByteWriter for Silent {
    fn write(&mut self, _chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Network for World {
    fn listen<'a>(&'a self, _at: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn connect<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Connection>> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let (reader, writer) = (Box::new(Silent), Box::new(Silent));
        Box::pin(std::future::ready(Ok(Connection { reader, writer, peer: to.clone() })))
    }
}

impl Spawn for World {
    fn spawn(&self, _name: &'static str, actor: BoxFuture<'static, ()>) -> Task {
        self.tasks.lock().unwrap().push(actor);
        Task::new(|| {})
    }
}

impl Clock for World {
    fn now(&self) -> Instant {
        Instant(0)
    }

    fn sleep_until(&self, _at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

impl Entropy for World {
    fn draw(&self) -> u128 {
        1
    }

    fn stream(&self, _concern: &str) -> Pcg64Mcg {
        Pcg64Mcg::seed_from_u64(1)
    }
}

impl Disk for World {
    fn open<'a>(&'a self, _: &'a str, _: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn sync_dir(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn space(&self) -> BoxFuture<'_, io::Result<Space>> {
        Box::pin(std::future::ready(Ok(Space { total: 0, free: 0 })))
    }

    fn describe(&self) -> String {
        "nowhere".to_owned()
    }
}

impl World {
    fn env(self: &Arc<Self>) -> Env {
        Env {
            network: Arc::clone(self) as _,
            disk: Arc::clone(self) as _,
            clock: Arc::clone(self) as _,
            entropy: Arc::clone(self) as _,
            spawn: Arc::clone(self) as _,
        }
    }

    /// Polls every task once.
    fn run_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        let left = tasks.into_iter().filter_map(|mut task| {
            let poll = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            poll.is_pending().then_some(task)
        });
        let left: Vec<_> = left.collect();
        self.tasks.lock().unwrap().extend(left);
    }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_caller_that_is_not_polled_holds_up_nobody() {
    let world = Arc::new(World::default());
    let (env, config) = (world.env(), Config::production(Vec::new()));
    let dialer = Dialer::<Commands>::default();
    let mut forgotten = pin!(dialer.link(&env, &config, || "a:1".into()));
    assert!(poll(forgotten.as_mut()).is_pending());
    let mut waiting = pin!(dialer.link(&env, &config, || "a:1".into()));
    assert!(poll(waiting.as_mut()).is_pending());
    world.run_tasks();
    assert!(matches!(poll(waiting), Poll::Ready(Ok(_))), "the first caller is never polled again");
    assert_eq!(world.connects.load(Ordering::Relaxed), 1, "both share one connection");
    assert!(matches!(poll(pin!(dialer.link(&env, &config, || "a:1".into()))), Poll::Ready(Ok(_))));
    assert_eq!(world.connects.load(Ordering::Relaxed), 1);
}

#[test]
fn an_ended_connection_is_made_anew() {
    let world = Arc::new(World::default());
    let (env, config) = (world.env(), Config::production(Vec::new()));
    let dialer = Dialer::<Commands>::default();
    let connect = || {
        let mut link = pin!(dialer.link(&env, &config, || "a:1".into()));
        let _first = poll(link.as_mut());
        world.run_tasks();
        match poll(link) {
            Poll::Ready(Ok(link)) => link,
            _ => panic!("no link"),
        }
    };
    connect().end();
    assert!(!connect().is_ended());
    assert_eq!(world.connects.load(Ordering::Relaxed), 2);
}
