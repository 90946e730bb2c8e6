//! A container's state as a fold over its operations: pure, the same live and in a replay.
//!
//! Invariants
//! 1. Every name leads to a segment of that name, and every segment has its name there.
//! 2. `0 <= start <= length` for each segment.
//! 3. (C8) A stream segment's extents partition `[start, length)`.
//! 4. Segment numbers are given out once, upwards.
//!
//! [`State::apply`] verifies what the operation says it met (offsets, attribute values): live this proves that the
//! sequencer and the state agree, in a replay that the log is the one that was written.

use crate::container::extents::{Extent, Extents};
use crate::container::format::{Change, Kind, Operation, Policy, SegmentKey, Source};
use crate::place::Place;
use crate::table::Table;
use std::collections::{BTreeMap, VecDeque};
use thalweg_actor::planted;
use thalweg_types::id::{Address, Epoch};
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::NULL;
use thiserror::Error;

/// How many merged segments a container remembers, so that a merge that is asked for again is answered as done. The
/// oldest is forgotten first.
pub(crate) const MERGED_MAX: usize = 65_536;

/// Why an operation does not fit the state: the log is not the one that was written, or this is a bug. Never passed
/// over.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Mismatch {
    /// There is no such segment.
    #[error("segment {segment} does not exist")]
    NoSegment {
        /// Its number.
        segment: u64,
    },
    /// The segment number or name is taken.
    #[error("segment {segment} ({name}) cannot be created: number or name is taken")]
    Taken {
        /// Its number.
        segment: u64,
        /// Its name.
        name: SegmentName,
    },
    /// Something stands at another offset.
    #[error("{name}: {what} at {found}, but the length is {length}")]
    Offset {
        /// Which segment.
        name: SegmentName,
        /// What was to be put there.
        what: &'static str,
        /// Where it says it stands.
        found: i64,
        /// The segment's length.
        length: i64,
    },
    /// An attribute has another value.
    #[error("{name}: attribute {attribute:032x} goes from {from}, but is {value}")]
    Attribute {
        /// Which segment.
        name: SegmentName,
        /// Which attribute.
        attribute: u128,
        /// What the operation says it was.
        from: i64,
        /// What it is.
        value: i64,
    },
    /// The segment takes no such operation.
    #[error("{name}: {what} is not possible")]
    Impossible {
        /// Which segment.
        name: SegmentName,
        /// What was asked.
        what: &'static str,
    },
    /// The table's own verdict.
    #[error("{name}: {reason}")]
    Table {
        /// Which table.
        name: SegmentName,
        /// Why.
        reason: String,
    },
    /// An owner's epoch does not go up.
    #[error("owner of epoch {epoch} starts behind epoch {last}")]
    Epoch {
        /// The new owner's.
        epoch: Epoch,
        /// The last owner's.
        last: Epoch,
    },
    /// The segment's extents are broken.
    #[error("{name}: {reason}")]
    Extents {
        /// Which segment.
        name: SegmentName,
        /// What is wrong.
        reason: String,
    },
}

/// What a segment holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Stream { extents: Extents, policy: Policy, rollover_bytes: i64 },
    Table(Box<Table>),
}

/// One segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    /// The first byte that is still there.
    pub(crate) start: i64,
    pub(crate) length: i64,
    pub(crate) sealed: bool,
    /// In milliseconds since 1970.
    pub(crate) modified: i64,
    /// Events that clients said they wrote.
    pub(crate) events: u64,
    /// Values by id; writers' positions are among them.
    pub(crate) attributes: BTreeMap<u128, i64>,
    pub(crate) content: Content,
}

impl Segment {
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.content, Content::Table(_))
    }

    /// An attribute's value, `NULL` if it is absent.
    pub(crate) fn attribute(&self, id: u128) -> i64 {
        self.attributes.get(&id).copied().unwrap_or(NULL)
    }

    /// The places of up to `len` bytes from `offset` on; none for a table.
    pub(crate) fn places(&self, offset: i64, len: u32) -> Vec<Place> {
        match &self.content {
            Content::Stream { extents, .. } => extents.places(offset, len),
            Content::Table(_) => Vec::new(),
        }
    }

    /// The lowest entry that anything of it lies in.
    fn lowest(&self) -> Option<Address> {
        match &self.content {
            Content::Stream { extents, .. } => extents.lowest(),
            Content::Table(table) => table.oldest(),
        }
    }

    fn change(&mut self, change: Change) -> Result<(), Mismatch> {
        let value = self.attribute(change.attribute);
        if value != change.from {
            return Err(Mismatch::Attribute {
                name: self.name.clone(),
                attribute: change.attribute,
                from: change.from,
                value,
            });
        }
        if change.to == NULL {
            self.attributes.remove(&change.attribute);
        } else {
            self.attributes.insert(change.attribute, change.to);
        }
        Ok(())
    }

    fn at_length(&self, what: &'static str, offset: i64) -> Result<(), Mismatch> {
        if offset == self.length {
            return Ok(());
        }
        Err(Mismatch::Offset { name: self.name.clone(), what, found: offset, length: self.length })
    }

    fn impossible(&self, what: &'static str) -> Mismatch {
        Mismatch::Impossible { name: self.name.clone(), what }
    }
}

/// What is known of a segment that went into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) target: SegmentKey,
    /// The target's length right behind it.
    pub(crate) end: i64,
}

/// Where an operation stands in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) address: Address,
    /// Where its payload begins in the entry's.
    pub(crate) position: u32,
    /// When the entry began, in milliseconds since 1970.
    pub(crate) wall: i64,
}

/// Everything a container knows that must survive it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The newest owner that has started.
    pub(crate) epoch: Epoch,
    pub(crate) next_segment: u64,
    pub(crate) names: BTreeMap<SegmentName, SegmentKey>,
    pub(crate) segments: BTreeMap<SegmentKey, Segment>,
    pub(crate) merged: BTreeMap<SegmentName, Merged>,
    /// The keys of `merged` in the order of the merges.
    pub(crate) merged_order: VecDeque<SegmentName>,
}

impl State {
    /// The segment of that name.
    pub(crate) fn find(&self, name: &SegmentName) -> Option<(SegmentKey, &Segment)> {
        let key = *self.names.get(name)?;
        self.segments.get(&key).map(|segment| (key, segment))
    }

    fn segment(&mut self, key: SegmentKey) -> Result<&mut Segment, Mismatch> {
        self.segments.get_mut(&key).ok_or(Mismatch::NoSegment { segment: key.0 })
    }

    /// Takes the step. On an error nothing has changed that a later step could rely on: the container must end.
    pub(crate) fn apply(&mut self, operation: &Operation, at: At) -> Result<(), Mismatch> {
        match operation {
            Operation::OwnerStart { epoch } => self.start(*epoch),
            Operation::NoOp | Operation::Snapshot { .. } => Ok(()),
            Operation::Create { segment, name, kind } => self.create(*segment, name, *kind, at),
            Operation::Append { segment, offset, len, events, writer } => {
                self.append(*segment, *offset, *len, at)?;
                let target = self.segment(*segment)?;
                target.events = target.events.saturating_add(u64::from(*events));
                writer.map_or(Ok(()), |change| target.change(change))
            }
            Operation::Attribute { segment, change } => self.touch(*segment, at)?.change(*change),
            Operation::SetPolicy { segment, policy } => {
                let segment = self.touch(*segment, at)?;
                let impossible = segment.impossible("a scaling policy");
                let Content::Stream { policy: old, .. } = &mut segment.content else {
                    return Err(impossible);
                };
                *old = *policy;
                Ok(())
            }
            Operation::Seal { segment } => {
                self.touch(*segment, at)?.sealed = true;
                Ok(())
            }
            Operation::Truncate { segment, start } => self.truncate(*segment, *start),
            Operation::Delete { segment } => self.delete(*segment).map(drop),
            Operation::Merge { target, offset, sources, changes } => {
                self.merge(*target, *offset, sources, at)?;
                let target = self.segment(*target)?;
                changes.iter().try_for_each(|change| target.change(*change))
            }
            Operation::Rows { segment, offset, len, header } => {
                self.rows(
                    *segment,
                    *offset,
                    header,
                    Place { address: at.address, position: at.position, len: *len },
                )?;
                self.touch(*segment, at).map(drop)
            }
        }
    }

    fn touch(&mut self, key: SegmentKey, at: At) -> Result<&mut Segment, Mismatch> {
        let segment = self.segment(key)?;
        segment.modified = at.wall;
        Ok(segment)
    }

    fn start(&mut self, epoch: Epoch) -> Result<(), Mismatch> {
        if epoch <= self.epoch {
            return Err(Mismatch::Epoch { epoch, last: self.epoch });
        }
        self.epoch = epoch;
        Ok(())
    }

    fn create(
        &mut self,
        key: SegmentKey,
        name: &SegmentName,
        kind: Kind,
        at: At,
    ) -> Result<(), Mismatch> {
        if key.0 < self.next_segment || self.names.contains_key(name) {
            return Err(Mismatch::Taken { segment: key.0, name: name.clone() });
        }
        let content = match kind {
            Kind::Stream { policy, rollover_bytes } => {
                Content::Stream { extents: Extents::default(), policy, rollover_bytes }
            }
            Kind::Table { key_length } => {
                let table = Table::new(key_length).map_err(|error| Mismatch::Table {
                    name: name.clone(),
                    reason: error.to_string(),
                })?;
                Content::Table(Box::new(table))
            }
        };
        self.next_segment = key.0 + 1;
        self.names.insert(name.clone(), key);
        self.segments.insert(
            key,
            Segment {
                name: name.clone(),
                start: 0,
                length: 0,
                sealed: false,
                modified: at.wall,
                events: 0,
                attributes: BTreeMap::new(),
                content,
            },
        );
        Ok(())
    }

    fn append(&mut self, key: SegmentKey, offset: i64, len: u32, at: At) -> Result<(), Mismatch> {
        let segment = self.touch(key, at)?;
        segment.at_length("an append stands", offset)?;
        let impossible = segment.impossible("an append");
        if segment.sealed && !planted!("PB-S11") {
            return Err(impossible);
        }
        let Content::Stream { extents, .. } = &mut segment.content else {
            return Err(impossible);
        };
        let place = Place { address: at.address, position: at.position, len };
        extents.push(Extent { offset, place, whole: true });
        segment.length += i64::from(len);
        Ok(())
    }

    fn truncate(&mut self, key: SegmentKey, start: i64) -> Result<(), Mismatch> {
        let segment = self.segment(key)?;
        if start < segment.start || start > segment.length {
            return Err(Mismatch::Offset {
                name: segment.name.clone(),
                what: "a truncation stands",
                found: start,
                length: segment.length,
            });
        }
        let impossible = segment.impossible("a truncation");
        let Content::Stream { extents, .. } = &mut segment.content else {
            return Err(impossible);
        };
        extents.truncate(start);
        segment.start = start;
        Ok(())
    }

    fn delete(&mut self, key: SegmentKey) -> Result<Segment, Mismatch> {
        let segment = self.segments.remove(&key).ok_or(Mismatch::NoSegment { segment: key.0 })?;
        self.names.remove(&segment.name);
        Ok(segment)
    }

    fn merge(
        &mut self,
        target: SegmentKey,
        offset: i64,
        sources: &[Source],
        at: At,
    ) -> Result<(), Mismatch> {
        self.touch(target, at)?.at_length("a merge stands", offset)?;
        for source in sources {
            if source.segment == target {
                return Err(self.segment(target)?.impossible("a merge into itself"));
            }
            let moved = self.delete(source.segment)?;
            if moved.start != 0 || moved.length != source.length {
                return Err(moved.impossible("a merge at this length"));
            }
            let impossible = moved.impossible("a merge of these kinds");
            let into = self.segment(target)?;
            let (Content::Stream { extents, .. }, Content::Stream { extents: more, .. }) =
                (&mut into.content, moved.content)
            else {
                return Err(impossible);
            };
            let one_event = moved.name.is_transient();
            extents.absorb(more, into.length, one_event);
            into.length += moved.length;
            into.events = into.events.saturating_add(if one_event { 1 } else { moved.events });
            let end = into.length;
            self.remember(moved.name, Merged { target, end });
        }
        Ok(())
    }

    fn remember(&mut self, name: SegmentName, merged: Merged) {
        if self.merged.insert(name.clone(), merged).is_none() {
            self.merged_order.push_back(name);
        }
        if self.merged_order.len() > MERGED_MAX
            && let Some(oldest) = self.merged_order.pop_front()
        {
            self.merged.remove(&oldest);
        }
    }

    fn rows(
        &mut self,
        key: SegmentKey,
        offset: i64,
        header: &[u8],
        payload: Place,
    ) -> Result<(), Mismatch> {
        let segment = self.segment(key)?;
        segment.at_length("rows stand", offset)?;
        let impossible = segment.impossible("a table's rows");
        let Content::Table(table) = &mut segment.content else {
            return Err(impossible);
        };
        table.apply_rows(header, payload).map_err(|error| Mismatch::Table {
            name: segment.name.clone(),
            reason: error.to_string(),
        })?;
        let info = table.info();
        segment.start = info.start;
        segment.length = info.length;
        Ok(())
    }

    /// The lowest entry that any byte of any segment lies in: the log must be kept from there. It never goes down,
    /// as operations only add entries above all others.
    pub(crate) fn lowest(&self) -> Option<Address> {
        self.segments.values().filter_map(Segment::lowest).min()
    }

    /// Invariants 1–4. Walks everything: for recovery and tests.
    pub(crate) fn verify(&self) -> Result<(), Mismatch> {
        for (name, key) in &self.names {
            match self.segments.get(key) {
                Some(segment) if segment.name == *name && key.0 < self.next_segment => {}
                _ => return Err(Mismatch::NoSegment { segment: key.0 }),
            }
        }
        for (key, segment) in &self.segments {
            if self.names.get(&segment.name) != Some(key)
                || !(0..=segment.length).contains(&segment.start)
            {
                return Err(segment.impossible("this state"));
            }
            if let Content::Stream { extents, .. } = &segment.content {
                extents
                    .verify(segment.start, segment.length)
                    .map_err(|reason| Mismatch::Extents { name: segment.name.clone(), reason })?;
            }
        }
        Ok(())
    }
}
