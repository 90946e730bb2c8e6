//! Reader groups. Who subscribes to a stream is not stored but follows from the groups' configurations.

use super::{Outcome, Refusal, State, companion};
use crate::limits::GROUP_STREAM_ROLLOVER_BYTES;
use crate::record::{ConfigRecord, Cut, GroupCommand, GroupConfigRecord, GroupRecord, Name, Stamp};
use std::collections::BTreeMap;
use thalweg_actor::probe;

/// What the name of a reader group's stream begins with.
pub const GROUP_STREAM_PREFIX: &str = "_RG";

/// The stream in which a reader group keeps its state.
pub fn group_stream(group: &Name) -> Name {
    Name::new(&group.scope, format!("{GROUP_STREAM_PREFIX}{}", group.stream))
}

impl State {
    pub(super) fn group(
        &mut self,
        command: &GroupCommand,
        stamp: Stamp,
    ) -> Result<Outcome, Refusal> {
        match command {
            GroupCommand::Create { name, id, config } => {
                self.create_group(name, *id, config, stamp)
            }
            GroupCommand::Update { name, id, generation, config } => {
                self.update_group(name, (*id, *generation), config)
            }
            GroupCommand::Delete { name, id } => self.delete_group(name, *id),
            GroupCommand::Consume { name, id, generation, stream, cut } => {
                self.consume(name, (*id, *generation), stream, cut)
            }
        }
    }

    /// The group, if clients may know of it.
    pub fn reader_group(&self, name: &Name) -> Option<&GroupRecord> {
        self.visible_scope(&name.scope)?;
        self.record.groups.get(name)
    }

    /// The groups that hold the data of `stream`, in order of name.
    pub fn subscribers<'a>(&'a self, stream: &'a Name) -> impl Iterator<Item = &'a Name> {
        let all = self.record.groups.iter();
        all.filter(|(_, group)| group.subscribes(stream)).map(|(name, _)| name)
    }

    fn create_group(
        &mut self,
        name: &Name,
        id: u128,
        config: &GroupConfigRecord,
        stamp: Stamp,
    ) -> Result<Outcome, Refusal> {
        self.visible_scope(&name.scope).ok_or(Refusal::ScopeNotFound)?;
        if self.record.groups.contains_key(name) {
            return Ok(Outcome::Done);
        }
        self.are_subscribable(config)?;
        let stream = group_stream(name);
        let mut made = ConfigRecord::fixed(1);
        made.rollover_size_bytes = GROUP_STREAM_ROLLOVER_BYTES;
        match self.create_stream(&stream, &made, stamp) {
            // Anybody may have made a stream of that name: then the group has it.
            Ok(_) | Err(Refusal::StreamExists) => {}
            Err(refusal) => return Err(refusal),
        }
        let (config, consumed) = (config.clone(), BTreeMap::new());
        self.record
            .groups
            .insert(name.clone(), GroupRecord { id, generation: 0, config, consumed });
        Ok(Outcome::Done)
    }

    /// A group that holds data needs streams that have some: others could never let go of it.
    fn are_subscribable(&self, config: &GroupConfigRecord) -> Result<(), Refusal> {
        let missing = config.starts.iter().any(|(stream, _)| self.stream(stream).is_none());
        if config.retention != 0 && missing { Err(Refusal::StreamNotFound) } else { Ok(()) }
    }

    fn update_group(
        &mut self,
        name: &Name,
        (id, generation): (u128, i64),
        config: &GroupConfigRecord,
    ) -> Result<Outcome, Refusal> {
        let found = self.reader_group(name).ok_or(Refusal::GroupNotFound)?;
        if found.id != id {
            return Err(Refusal::OtherGroup);
        }
        if found.generation != generation {
            return Err(Refusal::OtherGeneration { stored: found.generation });
        }
        self.are_subscribable(config)?;
        let group = self.record.groups.get_mut(name).expect("found above");
        group.generation += 1;
        group.config = config.clone();
        let stays: Vec<Name> =
            group.consumed.keys().filter(|name| group.subscribes(name)).cloned().collect();
        group.consumed.retain(|name, _| stays.contains(name));
        Ok(Outcome::Done)
    }

    /// The group is gone at once; its stream goes by a workflow of its own.
    fn delete_group(&mut self, name: &Name, id: u128) -> Result<Outcome, Refusal> {
        let found = self.reader_group(name).ok_or(Refusal::GroupNotFound)?;
        if found.id != id {
            return Err(Refusal::OtherGroup);
        }
        let outcome = match self.delete(&group_stream(name), true) {
            Ok(started) => started,
            Err(Refusal::StreamNotFound | Refusal::Deleting) => {
                probe!("controller: a reader group's stream went before it");
                Outcome::Done
            }
            Err(refusal) => return Err(refusal),
        };
        self.record.groups.remove(name);
        Ok(outcome)
    }

    fn consume(
        &mut self,
        name: &Name,
        (id, generation): (u128, i64),
        stream: &Name,
        cut: &Cut,
    ) -> Result<Outcome, Refusal> {
        let of = self.stream(stream).ok_or(Refusal::StreamNotFound)?;
        let group = self.reader_group(name).ok_or(Refusal::GroupNotFound)?;
        if group.id != id || !group.subscribes(stream) {
            return Err(Refusal::OtherGroup);
        }
        if group.generation != generation {
            return Err(Refusal::OtherGeneration { stored: group.generation });
        }
        if let Some(epoch) = of.unknown_epoch(cut) {
            return Err(Refusal::UnknownEpoch { epoch });
        }
        if !of.is_cut(cut) || cut.values().any(|offset| *offset < -1) {
            return Err(Refusal::CutNotValid);
        }
        if group.consumed.get(stream).is_some_and(|last| !of.is_before(last, cut)) {
            return Err(Refusal::CutBackwards);
        }
        let group = self.record.groups.get_mut(name).expect("found above");
        group.consumed.insert(stream.clone(), cut.clone());
        Ok(Outcome::Done)
    }

    /// What is known of a stream besides its own record goes with it: another of that name begins anew.
    pub(super) fn forget_stream(&mut self, name: &Name) {
        self.record.marks.remove(name);
        for group in self.record.groups.values_mut() {
            group.consumed.remove(name);
        }
    }
}

/// True if nothing stands in the way of making or removing the stream of `group`.
pub(crate) fn is_group_free(state: &State, group: &Name) -> bool {
    let stream = group_stream(group);
    let idle = |name: &Name| state.any_stream(name).is_none_or(|stream| stream.workflow.is_none());
    !state.is_committing(&stream)
        && idle(&stream)
        && companion(&stream).is_none_or(|name| idle(&name))
}
