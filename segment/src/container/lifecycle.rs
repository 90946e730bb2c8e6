//! Creating, describing, changing, sealing, truncating and deleting segments.

use crate::container::format::{Change, Kind, Operation, Policy, SegmentKey};
use crate::container::reads::Visible;
use crate::container::state::Content;
use crate::container::{Container, Effect, Effects};
use crate::request::{ConnectionId, Replies};
use thalweg_actor::probe;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    CODE_ILLEGAL_ARGUMENT, CreateSegment, CreateTransientSegment, DeleteSegment, ErrorMessage,
    GetSegmentAttribute, GetStreamSegmentInfo, LocateOffset, NoSuchSegment, OffsetLocated,
    OperationUnsupported, SealSegment, SegmentAlreadyExists, SegmentAttribute,
    SegmentAttributeUpdated, SegmentCreated, SegmentDeleted, SegmentIsSealed, SegmentIsTruncated,
    SegmentPolicyUpdated, SegmentSealed, SegmentTruncated, StreamSegmentInfo, TruncateSegment,
    UpdateSegmentAttribute, UpdateSegmentPolicy,
};

pub(super) fn no_such_segment(
    request_id: i64,
    segment: &SegmentName,
    offset: i64,
) -> NoSuchSegment {
    NoSuchSegment { request_id, segment: segment.clone(), trace: String::new(), offset }
}

pub(super) fn is_sealed(request_id: i64, segment: &SegmentName) -> SegmentIsSealed {
    SegmentIsSealed { request_id, segment: segment.clone(), trace: String::new(), offset: -1 }
}

pub(super) fn is_truncated(
    request_id: i64,
    segment: &SegmentName,
    start_offset: i64,
    offset: i64,
) -> SegmentIsTruncated {
    let (segment, trace) = (segment.clone(), String::new());
    SegmentIsTruncated { request_id, segment, start_offset, trace, offset }
}

pub(super) fn already_exists(request_id: i64, segment: SegmentName) -> SegmentAlreadyExists {
    SegmentAlreadyExists { request_id, segment, trace: String::new() }
}

/// Stream requests on a table and the reverse, mainly.
pub(super) fn unsupported(request_id: i64, operation: &str) -> OperationUnsupported {
    OperationUnsupported { request_id, operation_name: operation.to_owned(), trace: String::new() }
}

pub(super) fn illegal(request_id: i64, segment: &SegmentName, message: &str) -> ErrorMessage {
    ErrorMessage {
        request_id,
        segment: segment.clone(),
        message: message.to_owned(),
        error_code: CODE_ILLEGAL_ARGUMENT,
    }
}

impl Container {
    /// Logs the creation of a segment under a name that is free.
    pub(super) fn create(&mut self, name: SegmentName, kind: Kind, effects: &mut Effects) {
        let segment = SegmentKey(self.state.next_segment);
        self.log(&Operation::Create { segment, name, kind }, [], effects);
        self.tails.entry(segment).or_default();
        self.advance(segment);
    }

    /// True if no segment may be created under that name: there is one, or one of that name went into another.
    pub(super) fn is_taken(&self, name: &SegmentName) -> bool {
        self.state.names.contains_key(name) || self.state.merged.contains_key(name)
    }

    pub(super) fn create_segment(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        asked: CreateSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        if name.as_str().is_empty() {
            return self.close(connection, replies, "a segment without a name");
        }
        if self.is_taken(&name) {
            return self.answer(replies, already_exists(request_id, name));
        }
        let policy = Policy { scale_type: asked.scale_type, target_rate: asked.target_rate };
        let rollover_bytes = asked.rollover_size_bytes.max(0);
        self.create(name.clone(), Kind::Stream { policy, rollover_bytes }, effects);
        self.answer(replies, SegmentCreated { request_id, segment: name });
    }

    /// The segment of a large event: its name is new for ever, as epochs and counts only go up.
    pub(super) fn create_transient(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        asked: &CreateTransientSegment,
        effects: &mut Effects,
    ) {
        self.transients_made += 1;
        let name = SegmentName::from(format!(
            "{}#transient.{:032x}.{:016x}{:016x}",
            asked.parent_segment, asked.writer_id.0, self.epoch.0, self.transients_made
        ));
        if name.as_str().len() > usize::from(u16::MAX) {
            return self.close(connection, replies, "a segment name beyond the limit");
        }
        let kind = Kind::Stream { policy: Policy::default(), rollover_bytes: 0 };
        self.create(name.clone(), kind, effects);
        self.writers.client(connection).transients.push(name.clone());
        let request_id = asked.request_id;
        self.answer(replies, SegmentCreated { request_id, segment: name });
    }

    /// Answers what is committed, at once: whoever asks must not wait behind appends that wait for disk space. Only
    /// of a segment whose creation is under way, and of tables, it answers what is sequenced, once that is committed.
    pub(super) fn segment_info(
        &mut self,
        replies: &Replies,
        asked: GetStreamSegmentInfo,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((key, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        let committed = self.tails.get(&key).and_then(|tail| tail.visible);
        let committed = committed.filter(|_| !segment.is_table());
        let seen = committed.unwrap_or_else(|| Visible::of(segment));
        let info = StreamSegmentInfo {
            request_id,
            segment: name,
            exists: true,
            is_sealed: seen.is_sealed,
            is_deleted: false,
            last_modified: seen.modified,
            write_offset: seen.length,
            start_offset: seen.start,
        };
        if committed.is_none() {
            return self.answer(replies, info);
        }
        effects.push(Effect::Reply { replies: replies.clone(), command: info.into() });
    }

    pub(super) fn get_attribute(&mut self, replies: &Replies, asked: GetSegmentAttribute) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((_, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        let value = segment.attribute(asked.attribute_id);
        self.answer(replies, SegmentAttribute { request_id, value });
    }

    pub(super) fn update_attribute(
        &mut self,
        replies: &Replies,
        asked: UpdateSegmentAttribute,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((key, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        if segment.is_table() {
            return self.answer(replies, unsupported(request_id, "updateSegmentAttribute"));
        }
        if segment.sealed {
            return self.answer(replies, is_sealed(request_id, &name));
        }
        let value = segment.attribute(asked.attribute_id);
        let success = value == asked.expected_value;
        if success && value != asked.new_value {
            let (attribute, from, to) = (asked.attribute_id, value, asked.new_value);
            let change = Change { attribute, from, to };
            self.log(&Operation::Attribute { segment: key, change }, [], effects);
        }
        self.answer(replies, SegmentAttributeUpdated { request_id, success });
    }

    pub(super) fn locate_offset(&mut self, replies: &Replies, asked: LocateOffset) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((_, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        let Content::Stream { extents, .. } = &segment.content else {
            return self.answer(replies, unsupported(request_id, "locateOffset"));
        };
        let offset = if asked.target_offset <= segment.start {
            segment.start
        } else {
            extents.boundary(asked.target_offset).unwrap_or(segment.length)
        };
        self.answer(replies, OffsetLocated { request_id, segment: name, offset });
    }

    pub(super) fn update_policy(
        &mut self,
        replies: &Replies,
        asked: UpdateSegmentPolicy,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((segment, found)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        if found.is_table() {
            return self.answer(replies, unsupported(request_id, "updateSegmentPolicy"));
        }
        if found.sealed {
            return self.answer(replies, is_sealed(request_id, &name));
        }
        let policy = Policy { scale_type: asked.scale_type, target_rate: asked.target_rate };
        self.log(&Operation::SetPolicy { segment, policy }, [], effects);
        self.answer(replies, SegmentPolicyUpdated { request_id, segment: name });
    }

    pub(super) fn seal_segment(
        &mut self,
        replies: &Replies,
        asked: SealSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((segment, found)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        if found.is_table() {
            probe!("container: seal of a table");
            return self.answer(replies, unsupported(request_id, "sealSegment"));
        }
        if !found.sealed {
            self.log(&Operation::Seal { segment }, [], effects);
            self.advance(segment);
        }
        self.answer(replies, SegmentSealed { request_id, segment: name });
    }

    pub(super) fn truncate_segment(
        &mut self,
        connection: ConnectionId,
        replies: &Replies,
        asked: TruncateSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let start = asked.truncation_offset;
        if start < 0 {
            return self.close(connection, replies, "a truncation below 0");
        }
        let Some((segment, found)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, start));
        };
        if found.is_table() {
            return self.answer(replies, unsupported(request_id, "truncateSegment"));
        }
        if start < found.start || start > found.length {
            return self.answer(replies, is_truncated(request_id, &name, found.start, start));
        }
        if start > found.start {
            self.log(&Operation::Truncate { segment, start }, [], effects);
            self.retention.released();
            self.advance(segment);
            self.answer_truncated_reads(segment, start);
        }
        self.answer(replies, SegmentTruncated { request_id, segment: name });
    }

    pub(super) fn delete_segment(
        &mut self,
        replies: &Replies,
        asked: DeleteSegment,
        effects: &mut Effects,
    ) {
        let (request_id, name) = (asked.request_id, asked.segment);
        let Some((key, segment)) = self.state.find(&name) else {
            return self.answer(replies, no_such_segment(request_id, &name, -1));
        };
        if segment.is_table() {
            return self.answer(replies, unsupported(request_id, "deleteSegment"));
        }
        self.delete(key, effects);
        self.answer(replies, SegmentDeleted { request_id, segment: name });
    }

    /// Logs the end of a segment.
    pub(super) fn delete(&mut self, segment: SegmentKey, effects: &mut Effects) {
        self.log(&Operation::Delete { segment }, [], effects);
        self.retention.released();
        self.end_segment(segment);
    }

    /// A connection has ended: its writers, held reads and large events end too.
    pub(super) fn connection_closed(&mut self, connection: ConnectionId, effects: &mut Effects) {
        let Some(client) = self.writers.close(connection) else { return };
        self.forget_reads(connection, client.held.into_keys().collect());
        for name in client.transients {
            if let Some((key, _)) = self.state.find(&name) {
                probe!("container: connection ends within a large event");
                self.delete(key, effects);
            }
        }
    }
}
