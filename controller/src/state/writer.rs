//! Marks of writers: they never go back. Watermarks follow from them.

use super::{Outcome, Refusal, State};
use crate::limits::WRITERS_MAX;
use crate::record::{Cut, MarkRecord, Name, StreamRecord, WriterCommand};
use thalweg_actor::probe;

impl State {
    pub(super) fn writer(&mut self, command: &WriterCommand) -> Result<Outcome, Refusal> {
        match command {
            WriterCommand::Mark { name, writer, time, position } => {
                self.mark(name, writer, *time, position)
            }
            WriterCommand::Leave { name, writer } => {
                let marks = self.record.marks.get_mut(name);
                let mark = marks.and_then(|marks| marks.get_mut(writer));
                mark.ok_or(Refusal::WriterUnknown)?.left = true;
                Ok(Outcome::Done)
            }
        }
    }

    fn mark(
        &mut self,
        name: &Name,
        writer: &str,
        time: i64,
        position: &Cut,
    ) -> Result<Outcome, Refusal> {
        let stream = self.stream(name).ok_or(Refusal::StreamNotFound)?;
        let marks = self.record.marks.get(name);
        let last = marks.and_then(|marks| marks.get(writer));
        if let Some(last) = last.filter(|mark| !mark.left) {
            if time < last.time {
                return Err(Refusal::TimeBackwards);
            }
            if stream.goes_back(&last.position, position) {
                return Err(Refusal::CutBackwards);
            }
        }
        let is_new = last.is_none();
        let marks = self.record.marks.entry(name.clone()).or_default();
        if is_new && marks.len() >= WRITERS_MAX {
            probe!("controller: writers that left are forgotten");
            marks.retain(|_, mark| !mark.left);
            if marks.len() >= WRITERS_MAX {
                let limit = WRITERS_MAX as u64;
                return Err(Refusal::TooMany { what: "writers of a stream", limit });
            }
        }
        let mark = MarkRecord { time, position: position.clone(), left: false };
        marks.insert(writer.to_owned(), mark);
        Ok(Outcome::Done)
    }
}

impl StreamRecord {
    /// True if `to` lies before `from` somewhere. Neither needs to be a cut: then only the offsets of segments that
    /// are in both are compared.
    fn goes_back(&self, from: &Cut, to: &Cut) -> bool {
        if self.is_cut(from) && self.is_cut(to) {
            return !self.is_before(from, to);
        }
        from.iter().any(|(id, offset)| to.get(id).is_some_and(|found| found < offset))
    }
}
