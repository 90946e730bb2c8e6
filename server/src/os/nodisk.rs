//! The disk of a process that stores nothing: a client.

use std::io;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_actor::disk::{Disk, File, Open, Space};

/// Refuses everything.
pub(crate) struct NoDisk;

fn refused<T: Send + 'static>() -> BoxFuture<'static, io::Result<T>> {
    Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "a client has no disk")) })
}

impl Disk for NoDisk {
    fn open<'a>(&'a self, _name: &'a str, _how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        refused()
    }

    fn rename<'a>(&'a self, _from: &'a str, _to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        refused()
    }

    fn remove<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        refused()
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        refused()
    }

    fn sync_dir(&self) -> BoxFuture<'_, io::Result<()>> {
        refused()
    }

    fn space(&self) -> BoxFuture<'_, io::Result<Space>> {
        refused()
    }

    fn describe(&self) -> String {
        "no disk".to_owned()
    }
}
