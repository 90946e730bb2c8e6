//! Requests about reader groups and subscribers.

use super::convert::stream_message;
use super::{exhausted, invalid, scope_name, stream_name, unexpected};
use crate::controller::Controller;
use crate::limits::{GROUP_NAME_CHARS_MAX, GROUP_STREAMS_MAX};
use crate::record::{Command, Cut, GroupCommand, GroupConfigRecord, GroupRecord, Name};
use crate::state::{Outcome, Refusal, State, companion, group_stream};
use thalweg_types::name::is_entity_name;
use thalweg_wire::controller::{
    Code, CreateReaderGroupStatus, CutOfStream, DeleteReaderGroupStatus, ReaderGroupConfig,
    Response, RpcError, StreamName, UpdateReaderGroupStatus, UpdateSubscriberStatus,
};

/// What marks a random UUID: version 4 and the usual variant.
const UUID_RANDOM: u128 = 0x4000_8000_0000_0000_0000;
const UUID_MARKS: u128 = 0xf000_c000_0000_0000_0000;
/// Digits between the dashes of a UUID.
const UUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

impl Controller {
    /// Answers when the group's stream is there. A group that exists is success: the caller sees by the generation
    /// and by the configuration whether it is the one it wanted.
    pub(super) async fn create_group(
        &self,
        config: ReaderGroupConfig,
    ) -> Result<Response, RpcError> {
        scope_name(&config.scope)?;
        let asked = parse_uuid(&config.id)?;
        let name = Name::new(config.scope.clone(), config.group.clone());
        let record = config_record(config)?;
        let refused = |status| Ok(Response::CreateReaderGroup { status, config: None });
        if !is_group_name(&name.stream) {
            return refused(CreateReaderGroupStatus::InvalidName);
        }
        let id = if asked == 0 { self.new_uuid() } else { asked };
        let command = GroupCommand::Create { name: name.clone(), id, config: record };
        match self.propose_when_idle(Command::Group(command)).await? {
            Ok(Outcome::Done) => {}
            Err(Refusal::ScopeNotFound) => return refused(CreateReaderGroupStatus::ScopeNotFound),
            Err(Refusal::StreamNotFound) => return refused(CreateReaderGroupStatus::Failure),
            Err(refusal @ Refusal::TooMany { .. }) => return Err(exhausted(&refusal)),
            other => return Err(unexpected(&other)),
        }
        let stream = group_stream(&name);
        let idle = |state: &State, name: &Name| {
            state.any_stream(name).is_none_or(|stream| stream.workflow.is_none())
        };
        let made = |state: &State| {
            let both = idle(state, &stream) && companion(&stream).is_none_or(|s| idle(state, &s));
            both.then(|| state.reader_group(&name).cloned())
        };
        // Gone already: somebody removed it in the meantime.
        let Some(group) = self.inner.wait_for(made).await? else {
            return refused(CreateReaderGroupStatus::Failure);
        };
        let config = Some(config_message(&name, &group));
        Ok(Response::CreateReaderGroup { status: CreateReaderGroupStatus::Success, config })
    }

    fn new_uuid(&self) -> u128 {
        (self.inner.env.entropy.draw() & !UUID_MARKS) | UUID_RANDOM
    }

    pub(super) async fn update_group(
        &self,
        config: ReaderGroupConfig,
    ) -> Result<Response, RpcError> {
        let id = parse_uuid(&config.id)?;
        let name = self.group_name(&config.scope, &config.group)?;
        let asked = config.generation;
        let config = config_record(config)?;
        let command = GroupCommand::Update { name, id, generation: asked, config };
        let (status, generation) = match self.inner.propose(Command::Group(command)).await? {
            Ok(Outcome::Done) => (UpdateReaderGroupStatus::Success, asked.saturating_add(1)),
            Err(Refusal::GroupNotFound) => (UpdateReaderGroupStatus::GroupNotFound, 0),
            Err(Refusal::OtherGroup | Refusal::OtherGeneration { .. }) => {
                (UpdateReaderGroupStatus::InvalidConfig, asked)
            }
            Err(Refusal::StreamNotFound) => (UpdateReaderGroupStatus::Failure, asked),
            other => return Err(unexpected(&other)),
        };
        Ok(Response::UpdateReaderGroup { status, generation })
    }

    pub(super) fn group_config(&self, scope: &str, group: &str) -> Result<Response, RpcError> {
        let name = self.group_name(scope, group)?;
        let found =
            self.read(|state| state.reader_group(&name).map(|group| config_message(&name, group)));
        Ok(Response::ReaderGroupConfig(found))
    }

    /// Answers when the group's stream is gone.
    pub(super) async fn delete_group(
        &self,
        scope: &str,
        group: &str,
        id: &str,
    ) -> Result<Response, RpcError> {
        let name = self.group_name(scope, group)?;
        let id = parse_uuid(id)?;
        let command = GroupCommand::Delete { name: name.clone(), id };
        let status = match self.propose_when_idle(Command::Group(command)).await? {
            Ok(Outcome::Started(started)) => {
                let stream = group_stream(&name);
                let gone = |state: &State| {
                    state.any_stream(&stream).is_none_or(|found| found.id != started.stream)
                };
                self.inner.wait_for(|state| gone(state).then_some(())).await?;
                DeleteReaderGroupStatus::Success
            }
            Ok(Outcome::Done) => DeleteReaderGroupStatus::Success,
            Err(Refusal::GroupNotFound | Refusal::OtherGroup) => {
                DeleteReaderGroupStatus::GroupNotFound
            }
            other => return Err(unexpected(&other)),
        };
        Ok(Response::DeleteReaderGroup(status))
    }

    pub(super) fn subscribers(&self, stream: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(stream)?;
        self.known_scope(&name.scope)?;
        let found = self.read(|state| {
            state.stream(&name)?;
            let text = |group: &Name| format!("{}/{}", group.scope, group.stream);
            Some(state.subscribers(&name).map(text).collect())
        });
        Ok(Response::Subscribers(found))
    }

    pub(super) async fn update_subscriber_cut(
        &self,
        subscriber: &str,
        (id, generation): (&str, i64),
        cut: CutOfStream,
    ) -> Result<Response, RpcError> {
        let stream = stream_name(cut.stream)?;
        let id = parse_uuid(id)?;
        if cut.cut.is_empty() {
            return Err(invalid("the cut is empty"));
        }
        self.known_scope(&stream.scope)?;
        let (scope, group) = subscriber.split_once('/').unwrap_or(("", subscriber));
        let name = Name::new(scope, group);
        let cut = cut.cut;
        let command = GroupCommand::Consume { name, id, generation, stream, cut };
        let status = match self.inner.propose(Command::Group(command)).await? {
            Ok(Outcome::Done) => UpdateSubscriberStatus::Success,
            Err(Refusal::StreamNotFound) => UpdateSubscriberStatus::StreamNotFound,
            Err(Refusal::GroupNotFound | Refusal::OtherGroup) => {
                UpdateSubscriberStatus::SubscriberNotFound
            }
            Err(Refusal::OtherGeneration { .. }) => UpdateSubscriberStatus::GenerationMismatch,
            Err(Refusal::UnknownEpoch { .. }) => UpdateSubscriberStatus::Failure,
            Err(Refusal::CutNotValid | Refusal::CutBackwards) => {
                UpdateSubscriberStatus::CutNotValid
            }
            other => return Err(unexpected(&other)),
        };
        Ok(Response::UpdateSubscriberCut(status))
    }

    /// The group's name, if neither part is empty and the scope exists.
    fn group_name(&self, scope: &str, group: &str) -> Result<Name, RpcError> {
        scope_name(scope)?;
        if group.is_empty() {
            return Err(invalid("the reader group's name is empty"));
        }
        self.known_scope(scope)?;
        Ok(Name::new(scope, group))
    }

    fn known_scope(&self, scope: &str) -> Result<(), RpcError> {
        let known = self.read(|state| state.visible_scope(scope).is_some());
        let message = || format!("there is no scope {scope}");
        if known { Ok(()) } else { Err(RpcError::new(Code::NotFound, message())) }
    }
}

/// No underscore in front: those are the names of internal streams.
fn is_group_name(name: &str) -> bool {
    is_entity_name(name) && !name.starts_with('_') && name.len() <= GROUP_NAME_CHARS_MAX
}

/// The record of `config`, refused where a client's builder would have refused it.
fn config_record(config: ReaderGroupConfig) -> Result<GroupConfigRecord, RpcError> {
    let cuts = |cuts: Vec<CutOfStream>| -> Result<Vec<(Name, Cut)>, RpcError> {
        if cuts.len() > GROUP_STREAMS_MAX {
            let count = cuts.len();
            return Err(invalid(format!("{count} streams, the limit is {GROUP_STREAMS_MAX}")));
        }
        cuts.into_iter().map(|cut| Ok((stream_name(cut.stream)?, cut.cut))).collect()
    };
    let (starts, ends) = (cuts(config.starts)?, cuts(config.ends)?);
    if starts.is_empty() {
        return Err(invalid("the reader group has no streams"));
    }
    for (name, end) in &ends {
        let Some((_, start)) = starts.iter().find(|(start, _)| start == name) else {
            return Err(invalid("an end without a start"));
        };
        let ends_before = |(id, to): (_, &i64)| *to >= 0 && start.get(id).is_some_and(|at| at > to);
        if end.iter().any(ends_before) {
            return Err(invalid("a start behind its end"));
        }
    }
    if config.max_outstanding_checkpoints <= 0 {
        return Err(invalid("no checkpoint may be outstanding"));
    }
    if config.rollover_size_bytes < 0 {
        return Err(invalid(format!("rollover size {} is negative", config.rollover_size_bytes)));
    }
    if !(0..=2).contains(&config.retention) {
        return Err(invalid(format!("retention {} is none of 0, 1 and 2", config.retention)));
    }
    Ok(GroupConfigRecord {
        refresh_ms: config.refresh_ms,
        checkpoint_interval_ms: config.checkpoint_interval_ms,
        max_outstanding_checkpoints: config.max_outstanding_checkpoints,
        retention: config.retention,
        starts,
        ends,
    })
}

fn config_message(name: &Name, group: &GroupRecord) -> ReaderGroupConfig {
    let cuts = |cuts: &[(Name, Cut)]| {
        let one = |(name, cut): &(Name, Cut)| CutOfStream {
            stream: stream_message(name),
            cut: cut.clone(),
        };
        cuts.iter().map(one).collect()
    };
    let config = &group.config;
    ReaderGroupConfig {
        scope: name.scope.clone(),
        group: name.stream.clone(),
        refresh_ms: config.refresh_ms,
        checkpoint_interval_ms: config.checkpoint_interval_ms,
        max_outstanding_checkpoints: config.max_outstanding_checkpoints,
        retention: config.retention,
        generation: group.generation,
        id: uuid_text(group.id),
        starts: cuts(&config.starts),
        ends: cuts(&config.ends),
        rollover_size_bytes: 0,
    }
}

/// The number of a UUID in its usual form, in digits of either case.
fn parse_uuid(text: &str) -> Result<u128, RpcError> {
    let parts: Vec<&str> = text.split('-').collect();
    let fits = parts.iter().map(|part| part.len()).eq(UUID_PARTS);
    let digits = parts.concat();
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| fits && is_hex);
    number.ok_or_else(|| invalid(format!("{text:?} is not a UUID")))
}

fn uuid_text(id: u128) -> String {
    let digits = format!("{id:032x}");
    let mut at = 0;
    let parts = UUID_PARTS.map(|length| {
        at += length;
        &digits[at - length..at]
    });
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_as_it_is_written_and_nothing_else_is() {
        let id = 0x0123_4567_89ab_4def_8000_0000_0000_00ff;
        assert_eq!(uuid_text(id), "01234567-89ab-4def-8000-0000000000ff");
        assert_eq!(parse_uuid("01234567-89AB-4def-8000-0000000000ff"), Ok(id));
        for text in [
            "",
            "zz",
            "0123456789ab4def80000000000000ff",
            "01234567-89ab-4def-8000-0000000000f",
            "+1234567-89ab-4def-8000-0000000000ff",
            "01234567-89ab-4def-8000-0000000000ff-",
        ] {
            assert!(parse_uuid(text).is_err(), "{text}");
        }
    }
}
