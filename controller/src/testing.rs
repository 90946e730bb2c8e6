//! A segment store in memory: what tests and the simulator give the controller.

use crate::segments::{Fence, SegmentError, SegmentInfo, SegmentKind, Segments};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::BoxFuture;
use thalweg_types::name::SegmentName;

/// Segments in memory. Deleted names never come back: a command that would revive one panics.
#[derive(Debug, Default)]
pub struct MemorySegments {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    segments: BTreeMap<SegmentName, SegmentInfo>,
    /// What was written with [`Segments::append_at`], by offset.
    bytes: BTreeMap<(SegmentName, i64), Bytes>,
    deleted: BTreeSet<SegmentName>,
    failures: u32,
    spared: u32,
    losses: u32,
    held: Option<Arc<str>>,
    commands: Vec<String>,
}

impl MemorySegments {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` commands fail with an unknown outcome, without effect.
    pub fn fail_next(&self, count: u32) {
        let mut inside = self.lock();
        (inside.spared, inside.losses, inside.failures) = (0, 0, count);
    }

    /// Appends wait for `reason` from now on, or no more.
    pub fn hold(&self, reason: Option<&str>) {
        self.lock().held = reason.map(Arc::from);
    }

    /// The next `spared` commands are done, the answers of the `losses` behind them are lost although they take
    /// effect, and from then on nothing is done any more until [`MemorySegments::fail_next`].
    pub fn cut_off(&self, spared: u32, losses: u32) {
        let mut inside = self.lock();
        (inside.spared, inside.losses, inside.failures) = (spared, losses, u32::MAX);
    }

    /// Seals a segment, as a client would, behind the controller's back.
    pub fn seal_by_client(&self, name: &SegmentName) {
        if let Some(segment) = self.lock().segments.get_mut(name) {
            segment.sealed = true;
        }
    }

    /// The length of a segment in bytes, if it exists.
    pub fn length(&self, name: &SegmentName) -> Option<i64> {
        self.lock().segments.get(name).map(|segment| segment.length)
    }

    /// Appends `bytes` bytes to a segment, as a client would.
    pub fn grow(&self, name: &SegmentName, bytes: i64) {
        if let Some(segment) = self.lock().segments.get_mut(name).filter(|s| !s.sealed) {
            segment.length += bytes;
        }
    }

    /// The segments that exist, in order of name.
    pub fn names(&self) -> Vec<String> {
        self.lock().segments.keys().map(ToString::to_string).collect()
    }

    /// Every command so far, as `verb name`.
    pub fn commands(&self) -> Vec<String> {
        self.lock().commands.clone()
    }

    fn run<T: Send + 'static>(
        &self,
        verb: &str,
        name: &SegmentName,
        effect: impl FnOnce(&mut Inside) -> Result<T, SegmentError>,
    ) -> BoxFuture<'static, Result<T, SegmentError>> {
        let mut inside = self.lock();
        inside.commands.push(format!("{verb} {name}"));
        let unavailable =
            |reason: &str| SegmentError::Unavailable { name: name.clone(), reason: reason.into() };
        if inside.spared > 0 {
            inside.spared -= 1;
        } else if inside.losses > 0 {
            inside.losses -= 1;
            let _ = effect(&mut inside);
            return Box::pin(ready(Err(unavailable("its answer was lost"))));
        } else if inside.failures > 0 {
            inside.failures -= 1;
            return Box::pin(ready(Err(unavailable("planned"))));
        }
        Box::pin(ready(effect(&mut inside)))
    }
}

impl Inside {
    fn find(&mut self, name: &SegmentName) -> Result<&mut SegmentInfo, SegmentError> {
        let missing = || SegmentError::NotFound { name: name.clone() };
        self.segments.get_mut(name).ok_or_else(missing)
    }
}

impl Segments for MemorySegments {
    fn create<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
        _kind: SegmentKind,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        self.run("create", name, |inside| {
            assert!(!inside.deleted.contains(name), "{name} was deleted and comes back");
            let empty = SegmentInfo { start: 0, length: 0, sealed: false };
            inside.segments.entry(name.clone()).or_insert(empty);
            Ok(())
        })
    }

    fn seal<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<i64, SegmentError>> {
        self.run("seal", name, |inside| {
            let segment = inside.find(name)?;
            segment.sealed = true;
            Ok(segment.length)
        })
    }

    fn truncate<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
        offset: i64,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        self.run("truncate", name, |inside| {
            let segment = inside.find(name)?;
            let length = segment.length;
            if offset > length {
                return Err(SegmentError::BeyondEnd { name: name.clone(), length });
            }
            segment.start = segment.start.max(offset);
            Ok(())
        })
    }

    fn delete<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        self.run("delete", name, |inside| {
            inside.segments.remove(name);
            inside.deleted.insert(name.clone());
            Ok(())
        })
    }

    fn merge<'a>(
        &'a self,
        _fence: Fence,
        target: &'a SegmentName,
        source: &'a SegmentName,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        self.run("merge", source, |inside| {
            let bytes = inside.find(source)?.length;
            let into = inside.find(target)?;
            if into.sealed {
                return Err(SegmentError::Sealed { name: target.clone() });
            }
            into.length += bytes;
            inside.segments.remove(source);
            inside.deleted.insert(source.clone());
            Ok(())
        })
    }

    fn read<'a>(
        &'a self,
        name: &'a SegmentName,
        offset: i64,
        _len: usize,
    ) -> BoxFuture<'a, Result<Bytes, SegmentError>> {
        self.run("read", name, |inside| {
            inside.find(name)?;
            Ok(inside.bytes.get(&(name.clone(), offset)).cloned().unwrap_or_default())
        })
    }

    fn append_at<'a>(
        &'a self,
        name: &'a SegmentName,
        offset: i64,
        data: Bytes,
    ) -> BoxFuture<'a, Result<bool, SegmentError>> {
        self.run("append", name, |inside| {
            let segment = inside.find(name)?;
            if segment.sealed {
                return Err(SegmentError::Sealed { name: name.clone() });
            }
            let fits = segment.length == offset;
            if fits {
                segment.length += i64::try_from(data.len()).expect("small");
                inside.bytes.insert((name.clone(), offset), data);
            }
            Ok(fits)
        })
    }

    fn info<'a>(
        &'a self,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<SegmentInfo, SegmentError>> {
        self.run("info", name, |inside| inside.find(name).copied())
    }

    fn held(&self) -> Option<Arc<str>> {
        self.lock().held.clone()
    }
}
