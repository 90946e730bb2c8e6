//! Clients of single segments, by the wire's own commands: pipelined and conditional appends, writers that come back on
//! a second connection while the first still talks, merges of transient segments, truncation, seal and removal.

use super::rawlog::RawLog;
use super::stage::Stage;
use super::wire::{Wire, insist};
use crate::world::executor;
use crate::world::rng::Rng;
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use thalweg_types::id::WriterId;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    AppendBlockEnd, Command, ConditionalBlockEnd, CreateSegment, CreateTransientSegment,
    DeleteSegment, GetStreamSegmentInfo, MergeSegments, NULL, ReadSegment, SealSegment,
    SetupAppend, TruncateSegment,
};

fn token() -> String {
    String::new()
}

/// One part's place at one segment.
#[derive(Clone)]
struct Part {
    stage: Stage,
    raw: usize,
    name: SegmentName,
}

/// Whether a part goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Reconnect,
    Stop,
}

/// Goes through one segment after another until the stage closes. The last is sealed for the judge.
pub(super) async fn perform(stage: Stage, number: u64, mut rng: Rng) {
    let mut generation = 0;
    while !stage.is_closing() {
        let name = SegmentName::from(format!("world/raw-{number}-{generation}/0.#epoch.0"));
        generation += 1;
        let raw = stage.with(|shared| {
            shared.raws.push(RawLog::new(name.clone()));
            shared.raws.len() - 1
        });
        let part = Part { stage: stage.clone(), raw, name };
        part.create().await;
        let (plain, conditional) = (rng.range(1, 4), rng.below(4));
        for _ in 0..plain {
            stage.spawn("raw writer", part.clone().append(rng.fork()));
        }
        for _ in 0..conditional {
            stage.spawn("raw conditional writer", part.clone().append_if(rng.fork()));
        }
        stage.spawn("raw reader", part.clone().read(rng.fork()));
        let until = executor::now() + rng.range(100_000_000, 2_000_000_000);
        while executor::now() < until && !stage.is_closing() {
            stage.pause(rng.millis(5, 200)).await;
            match rng.below(4) {
                0 => part.truncate(&mut rng).await,
                1 => drop(part.merge(&mut rng).await),
                _ => drop(part.look().await),
            }
        }
        part.seal().await;
        if rng.percent(30) && !stage.is_closing() {
            part.judge().await;
            part.delete().await;
        }
    }
}

/// Seals a segment that others have written, for the judge.
pub(super) async fn finish(stage: Stage, raw: usize, name: SegmentName) {
    Part { stage, raw, name }.seal().await;
}

/// Judges every segment that was not removed.
pub(super) async fn judge(stage: &Stage) {
    let raws = stage.with(|shared| {
        let raws = shared.raws.iter().enumerate();
        let left = raws.filter(|(_, log)| !log.may_be_gone && log.sealed.is_some());
        left.map(|(raw, log)| (raw, log.name.clone())).collect::<Vec<_>>()
    });
    for (raw, name) in raws {
        Part { stage: stage.clone(), raw, name }.judge().await;
    }
}

fn append(writer_id: WriterId, number: i64, data: Bytes) -> Command {
    let size_of_whole_events = i32::try_from(data.len()).expect("short");
    let last_event_number = number;
    AppendBlockEnd {
        writer_id,
        size_of_whole_events,
        data,
        num_events: 1,
        last_event_number,
        request_id: 1,
    }
    .into()
}

impl Part {
    fn log<T>(&self, look: impl FnOnce(&mut RawLog, &mut crate::report::Outcome) -> T) -> T {
        self.stage.with(|shared| look(&mut shared.raws[self.raw], &mut shared.out))
    }

    fn wrong(&self, what: &str, reply: &Command) {
        let text: String = format!("{}: {what}: {reply:?}", self.name).chars().take(300).collect();
        self.stage.with(|shared| shared.out.violate("answer", text));
    }

    /// The segment is gone or sealed: is that so?
    fn ended(&self, reply: &Command) -> Go {
        let explained = self.log(|log, _| match reply {
            Command::SegmentIsSealed(_) => log.may_be_sealed,
            Command::NoSuchSegment(_) => log.may_be_gone,
            _ => false,
        });
        if explained {
            return Go::Stop;
        }
        if matches!(reply, Command::SegmentIsSealed(_) | Command::NoSuchSegment(_)) {
            self.wrong("nobody asked for that", reply);
            return Go::Stop;
        }
        Go::Reconnect
    }

    async fn create(&self) {
        let command = CreateSegment {
            request_id: 1,
            segment: self.name.clone(),
            target_rate: 0,
            scale_type: 0,
            token: token(),
            rollover_size_bytes: 0,
        };
        match insist(&self.stage.env, command).await {
            Command::SegmentCreated(_) | Command::SegmentAlreadyExists(_) => {}
            other => self.wrong("not created", &other),
        }
    }

    /// A connection on which the writer is announced, and the last number that is stored, -1 for none.
    async fn set_up(&self, id: WriterId, writer: u16) -> Result<(Wire, i64), Go> {
        let floor = self.log(|log, _| log.acked_upto(writer));
        let mut wire = Wire::open(&self.stage.env).await.ok_or(Go::Reconnect)?;
        let segment = self.name.clone();
        let setup = SetupAppend { request_id: 1, writer_id: id, segment, token: token() };
        match wire.ask(setup).await.ok_or(Go::Reconnect)? {
            Command::AppendSetup(reply) => {
                let last =
                    if reply.last_event_number == NULL { -1 } else { reply.last_event_number };
                self.log(|log, out| {
                    log.handshake(writer, floor, last, out);
                    log.acked(writer, last);
                });
                self.stage.count("raw handshakes", 1);
                Ok((wire, last))
            }
            other => Err(self.ended(&other)),
        }
    }

    /// Appends records, several at a time.
    async fn append(self, mut rng: Rng) {
        let id = WriterId(rng.wide());
        let writer = self.log(|log, _| log.add_writer());
        while !self.stage.is_closing() {
            match self.set_up(id, writer).await {
                Ok((wire, last)) => {
                    if self.pipeline(wire, (id, writer), last, &mut rng).await == Go::Stop {
                        return;
                    }
                }
                Err(Go::Stop) => return,
                Err(_) => {}
            }
            self.stage.pause(rng.millis(1, 40)).await;
        }
    }

    async fn pipeline(
        &self,
        mut wire: Wire,
        (id, writer): (WriterId, u16),
        mut last: i64,
        rng: &mut Rng,
    ) -> Go {
        while !self.stage.is_closing() {
            let mut burst = Vec::new();
            for number in last + 1..=last + i64::try_from(rng.range(1, 7)).expect("small") {
                let len = u16::try_from(rng.below(300)).expect("short");
                let data = self.log(|log, _| {
                    if number < log.count(writer) {
                        log.again(writer, number)
                    } else {
                        log.compose(writer, len, None)
                    }
                });
                burst.push(append(id, number, data));
                last = number;
            }
            if rng.percent(5) {
                return self.twice(wire, (id, writer), &burst, rng).await;
            }
            if !wire.send(burst).await {
                return Go::Reconnect;
            }
            while self.log(|log, _| log.acked_upto(writer)) < last {
                let Some(reply) = wire.next().await else { return Go::Reconnect };
                let go = self.told(writer, &reply);
                if go != Go::On {
                    return go;
                }
            }
            self.stage.pause(rng.millis(0, 20)).await;
        }
        Go::Reconnect
    }

    /// What the server says to an appending writer.
    fn told(&self, writer: u16, reply: &Command) -> Go {
        match reply {
            Command::DataAppended(reply) => {
                self.log(|log, out| {
                    log.acked(writer, reply.event_number);
                    let length = reply.current_segment_write_offset;
                    // Replies of several connections overtake one another: no floor here.
                    log.length = log.length.max(length);
                    if log.sealed.is_some_and(|sealed| length > sealed) {
                        let what = format!("{}: an append at {length} behind its seal", log.name);
                        out.violate("I8", what);
                    }
                });
                self.stage.count("raw appends acked", 1);
                Go::On
            }
            Command::InvalidEventNumber(_) => Go::Reconnect,
            other => self.ended(other),
        }
    }

    /// The writer comes back on a second connection, and the first says the same as the second.
    async fn twice(
        &self,
        mut old: Wire,
        (id, writer): (WriterId, u16),
        burst: &[Command],
        rng: &mut Rng,
    ) -> Go {
        let Ok((mut new, last)) = self.set_up(id, writer).await else { return Go::Reconnect };
        let is_left = |command: &&Command| match command {
            Command::AppendBlockEnd(block) => block.last_event_number > last,
            _ => false,
        };
        let rest: Vec<Command> = burst.iter().filter(is_left).cloned().collect();
        self.stage.count("raw writers on two connections", 1);
        let first = rng.percent(50);
        for turn in [first, !first] {
            let wire = if turn { &mut old } else { &mut new };
            if !wire.send(rest.clone()).await {
                return Go::Reconnect;
            }
        }
        for wire in [&mut old, &mut new] {
            for _ in &rest {
                let Some(reply) = wire.next().await else { break };
                match self.told(writer, &reply) {
                    Go::On => {}
                    Go::Reconnect => break,
                    Go::Stop => return Go::Stop,
                }
            }
        }
        Go::Reconnect
    }

    /// Appends records where it believes the segment to end.
    async fn append_if(self, mut rng: Rng) {
        let id = WriterId(rng.wide());
        let writer = self.log(|log, _| log.add_writer());
        // The record whose outcome is open: its number and where it must stand.
        let mut open: Option<(i64, i64, Bytes)> = None;
        while !self.stage.is_closing() {
            self.stage.pause(rng.millis(0, 30)).await;
            let (mut wire, last) = match self.set_up(id, writer).await {
                Ok(ready) => ready,
                Err(Go::Stop) => return,
                Err(_) => continue,
            };
            open = open.filter(|(number, ..)| *number > last);
            if open.is_none() {
                let Some(length) = self.look().await else { continue };
                // Not -1: that is any place.
                let wrong = i64::from(rng.percent(10) && length > 0);
                let at = length - wrong;
                let len = u16::try_from(rng.below(200)).expect("short");
                let data = self.log(|log, _| log.compose(writer, len, Some(at)));
                open = Some((self.log(|log, _| log.count(writer)) - 1, at, data));
            }
            let Some((event_number, expected_offset, data)) = open.clone() else { continue };
            let append = ConditionalBlockEnd {
                writer_id: id,
                event_number,
                expected_offset,
                data,
                request_id: 1,
            };
            match wire.ask(append).await {
                Some(Command::ConditionalCheckFailed(_)) => {
                    self.log(|log, _| log.refused(writer));
                    self.stage.count("raw conditions failed", 1);
                    open = None;
                }
                Some(reply) => match self.told(writer, &reply) {
                    Go::On => open = None,
                    Go::Reconnect => {}
                    Go::Stop => return,
                },
                None => {}
            }
        }
    }

    /// The length now, once.
    async fn look(&self) -> Option<i64> {
        let before = self.log(|log, _| log.known());
        let mut wire = Wire::open(&self.stage.env).await?;
        let segment = self.name.clone();
        match wire.ask(GetStreamSegmentInfo { request_id: 1, segment, token: token() }).await? {
            Command::StreamSegmentInfo(info) => {
                self.log(|log, out| log.told_length(before, info.write_offset, out));
                Some(info.write_offset)
            }
            _ => None,
        }
    }

    /// Reads the segment in order, with jumps back.
    async fn read(self, mut rng: Rng) {
        let mut at = 0;
        while !self.stage.is_closing() {
            let Some(mut wire) = Wire::open(&self.stage.env).await else {
                self.stage.pause(rng.millis(1, 40)).await;
                continue;
            };
            while !self.stage.is_closing() {
                if rng.percent(5) {
                    at = i64::try_from(rng.below(u64::try_from(at).unwrap_or(0) + 1)).unwrap_or(0);
                }
                let start = self.log(|log, _| log.start);
                let len = rng.pick(&[1, 100, 4_000, 100_000]);
                let Some(reply) = wire.ask(self.read_at(at, len)).await else { break };
                match reply {
                    Command::SegmentRead(read) => {
                        let data = join(read.data.pieces());
                        self.log(|log, out| log.saw(start, read.offset, &data, out));
                        at = read.offset + i64::try_from(data.len()).expect("short");
                        self.stage.count("raw reads", 1);
                        if read.end_of_segment && rng.percent(50) {
                            return;
                        }
                    }
                    Command::SegmentIsTruncated(told) => {
                        self.log(|log, out| log.told_start(told.start_offset, out));
                        at = at.max(told.start_offset);
                    }
                    Command::NoSuchSegment(_) => {
                        self.ended(&reply);
                        return;
                    }
                    _ => break,
                }
            }
        }
    }

    fn read_at(&self, offset: i64, suggested_length: i32) -> ReadSegment {
        let segment = self.name.clone();
        ReadSegment { segment, offset, suggested_length, token: token(), request_id: 1 }
    }

    /// Cuts the segment off in front of some record.
    async fn truncate(&self, rng: &mut Rng) {
        let boundaries = self.log(|log, _| log.boundaries());
        let Some((offset, records)) = boundaries.get(rng.index(boundaries.len())).cloned() else {
            return;
        };
        self.log(|log, _| log.truncating(offset, records));
        let Some(mut wire) = Wire::open(&self.stage.env).await else { return };
        let segment = self.name.clone();
        let request =
            TruncateSegment { request_id: 1, segment, truncation_offset: offset, token: token() };
        if let Some(Command::SegmentTruncated(_)) = wire.ask(request).await {
            self.log(|log, _| log.start = log.start.max(offset));
            self.stage.count("raw truncations", 1);
        }
    }

    /// Fills a transient segment and merges it: all of it or nothing.
    async fn merge(&self, rng: &mut Rng) -> Option<()> {
        let id = WriterId(rng.wide());
        let writer = self.log(|log, _| log.add_writer());
        let mut wire = Wire::open(&self.stage.env).await?;
        let parent_segment = self.name.clone();
        let create =
            CreateTransientSegment { request_id: 1, writer_id: id, parent_segment, token: token() };
        let Command::SegmentCreated(made) = wire.ask(create).await? else { return None };
        let setup = SetupAppend {
            request_id: 1,
            writer_id: id,
            segment: made.segment.clone(),
            token: token(),
        };
        let Command::AppendSetup(_) = wire.ask(setup).await? else { return None };
        let count = i64::try_from(rng.range(1, 9)).expect("small");
        let records: Vec<Command> = (0..count)
            .map(|number| {
                let len = u16::try_from(rng.below(2_000)).expect("short");
                append(id, number, self.log(|log, _| log.compose(writer, len, None)))
            })
            .collect();
        self.log(|log, _| log.merges(writer, 0));
        if !wire.send(records).await {
            return None;
        }
        loop {
            match wire.next().await? {
                Command::DataAppended(reply) if reply.event_number + 1 == count => break,
                Command::DataAppended(_) => {}
                _ => return None,
            }
        }
        let (target, source) = (self.name.clone(), made.segment);
        let merge =
            MergeSegments { request_id: 1, target, source, token: token(), updates: Vec::new() };
        if let Command::SegmentsMerged(_) = wire.ask(merge).await? {
            self.log(|log, _| log.acked(writer, count - 1));
            self.stage.count("raw merges", 1);
        }
        Some(())
    }

    async fn seal(&self) {
        self.log(|log, _| log.may_be_sealed = true);
        let segment = self.name.clone();
        let reply =
            insist(&self.stage.env, SealSegment { request_id: 1, segment, token: token() }).await;
        if !matches!(reply, Command::SegmentSealed(_) | Command::SegmentIsSealed(_)) {
            return self.wrong("not sealed", &reply);
        }
        let (before, segment) = (self.log(|log, _| log.known()), self.name.clone());
        let info = GetStreamSegmentInfo { request_id: 1, segment, token: token() };
        match insist(&self.stage.env, info).await {
            Command::StreamSegmentInfo(info) => self.log(|log, out| {
                log.told_length(before, info.write_offset, out);
                log.sealed = Some(info.write_offset);
            }),
            other => self.wrong("no length", &other),
        }
        self.stage.count("raw segments sealed", 1);
    }

    async fn delete(&self) {
        self.log(|log, _| log.may_be_gone = true);
        let segment = self.name.clone();
        let reply =
            insist(&self.stage.env, DeleteSegment { request_id: 1, segment, token: token() }).await;
        if !matches!(reply, Command::SegmentDeleted(_) | Command::NoSuchSegment(_)) {
            return self.wrong("not deleted", &reply);
        }
        if !matches!(insist(&self.stage.env, self.read_at(0, 10)).await, Command::NoSuchSegment(_))
        {
            self.wrong("read after its removal", &reply);
        }
    }

    /// Reads the sealed segment from its start to its end and judges it.
    async fn judge(&self) {
        let (start, before) = self.log(|log, _| (log.start, log.known()));
        let (mut begin, mut content) = (0, BytesMut::new());
        loop {
            let at = begin + i64::try_from(content.len()).expect("short");
            match insist(&self.stage.env, self.read_at(at, 1 << 20)).await {
                Command::SegmentRead(read) => {
                    let data = join(read.data.pieces());
                    self.log(|log, out| log.saw(start, read.offset, &data, out));
                    content.extend_from_slice(&data);
                    if read.end_of_segment {
                        break;
                    }
                }
                Command::SegmentIsTruncated(told) if content.is_empty() => {
                    self.log(|log, out| log.told_start(told.start_offset, out));
                    begin = told.start_offset;
                }
                Command::ErrorMessage(_) => executor::sleep(Duration::from_millis(100)).await,
                other => return self.wrong("cannot be read to its end", &other),
            }
        }
        self.log(|log, out| {
            let end = begin + i64::try_from(content.len()).expect("short");
            log.told_length(before, end, out);
            log.judge(begin, &content, out);
            out.add("raw segments judged", 1);
        });
    }
}

fn join(pieces: &[Bytes]) -> Bytes {
    let mut all = BytesMut::new();
    for piece in pieces {
        all.extend_from_slice(piece);
    }
    all.freeze()
}
