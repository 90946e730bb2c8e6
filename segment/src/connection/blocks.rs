//! Blocks of appends: which bytes of `AppendBlock` and `AppendBlockEnd` are one append.

use bytes::Bytes;
use thalweg_types::id::WriterId;
use thalweg_wire::segment::frame::FRAME_HEADER_BYTES;
use thalweg_wire::segment::{AppendBlock, AppendBlockEnd, Payload};
use thiserror::Error;

const PADDING: i32 = -1;
const PARTIAL_EVENT: i32 = -2;

/// Why blocks do not fit together. The connection ends, and nothing is stored.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum BlockError {
    /// A block was not ended.
    #[error("{0} between an AppendBlock and its end")]
    Interrupted(&'static str),
    /// A block was ended by another writer.
    #[error("an AppendBlockEnd of another writer than its AppendBlock")]
    OtherWriter,
    /// The whole events do not lie in the block.
    #[error("{whole} bytes of whole events in a block of {block}")]
    Whole {
        /// `sizeOfWholeEvents`.
        whole: i32,
        /// Length of the block.
        block: usize,
    },
    /// Behind the whole events is something else than one padding or partial event.
    #[error("no padding and no partial event fills the block")]
    Nested,
    /// The end carries data that belong to no partial event.
    #[error("data at the end of a block that no partial event begins")]
    Tail,
}

/// The block that has begun and not ended.
#[derive(Default)]
pub(super) struct Blocks {
    open: Option<AppendBlock>,
}

impl Blocks {
    /// A command of the append path other than a block's end has come.
    pub(super) fn interrupt(&self, command: &'static str) -> Result<(), BlockError> {
        if self.open.is_some() {
            return Err(BlockError::Interrupted(command));
        }
        Ok(())
    }

    /// A block begins.
    pub(super) fn begin(&mut self, block: AppendBlock) -> Result<(), BlockError> {
        self.interrupt("AppendBlock")?;
        self.open = Some(block);
        Ok(())
    }

    /// The bytes that the block's end makes an append of.
    pub(super) fn end(&mut self, end: &AppendBlockEnd) -> Result<Payload, BlockError> {
        let Some(AppendBlock { writer_id, data }) = self.open.take() else {
            return Ok(end.data.clone().into());
        };
        check_writer(writer_id, end.writer_id)?;
        let whole = usize::try_from(end.size_of_whole_events).ok();
        let Some(whole) = whole.filter(|whole| *whole <= data.len()) else {
            let (whole, block) = (end.size_of_whole_events, data.len());
            return Err(BlockError::Whole { whole, block });
        };
        let mut payload = Payload::from(data.slice(..whole));
        match nested(&data.slice(whole..))? {
            Some(partial) => {
                payload.push(partial);
                payload.push(end.data.clone());
            }
            None if !end.data.is_empty() => return Err(BlockError::Tail),
            None => {}
        }
        Ok(payload)
    }
}

fn check_writer(begun: WriterId, ended: WriterId) -> Result<(), BlockError> {
    if begun == ended { Ok(()) } else { Err(BlockError::OtherWriter) }
}

/// The beginning of an append that the rest of a block holds, if it is not padding.
fn nested(rest: &Bytes) -> Result<Option<Bytes>, BlockError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let header = rest.first_chunk::<FRAME_HEADER_BYTES>().ok_or(BlockError::Nested)?;
    let code = i32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let length = i32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if usize::try_from(length) != Ok(rest.len() - FRAME_HEADER_BYTES) {
        return Err(BlockError::Nested);
    }
    match code {
        PADDING => Ok(None),
        PARTIAL_EVENT => Ok(Some(rest.slice(FRAME_HEADER_BYTES..))),
        _ => Err(BlockError::Nested),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(parts: &[&[u8]]) -> AppendBlock {
        AppendBlock { writer_id: WriterId(1), data: parts.concat().into() }
    }

    fn end(whole: i32, data: &'static [u8]) -> AppendBlockEnd {
        AppendBlockEnd {
            writer_id: WriterId(1),
            size_of_whole_events: whole,
            data: Bytes::from_static(data),
            num_events: 1,
            last_event_number: 1,
            request_id: 1,
        }
    }

    fn nested_frame(code: i32, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len()).unwrap();
        [&code.to_be_bytes()[..], &length.to_be_bytes(), body].concat()
    }

    fn assembled(begin: Option<AppendBlock>, end: &AppendBlockEnd) -> Result<Vec<u8>, BlockError> {
        let mut blocks = Blocks::default();
        if let Some(begin) = begin {
            blocks.begin(begin)?;
        }
        blocks.end(end).map(|payload| payload.into_bytes().to_vec())
    }

    #[test]
    fn a_lone_end_is_all_of_its_data_whatever_it_says() {
        assert_eq!(assembled(None, &end(3, b"0123456789")), Ok(b"0123456789".to_vec()));
        assert_eq!(assembled(None, &end(-3, b"")), Ok(vec![]));
    }

    #[test]
    fn padding_is_dropped_and_a_partial_event_goes_on_in_the_end() {
        assert_eq!(assembled(Some(block(&[b"abc"])), &end(3, b"")), Ok(b"abc".to_vec()));
        let padded = block(&[b"abc", &nested_frame(PADDING, &[0; 51])]);
        assert_eq!(assembled(Some(padded), &end(3, b"")), Ok(b"abc".to_vec()));
        let full = block(&[b"abc", &nested_frame(PADDING, b"")]);
        assert_eq!(assembled(Some(full), &end(3, b"")), Ok(b"abc".to_vec()));
        let partial = block(&[b"abc", &nested_frame(PARTIAL_EVENT, b"de")]);
        assert_eq!(assembled(Some(partial), &end(3, b"fg")), Ok(b"abcdefg".to_vec()));
        let only = block(&[&nested_frame(PARTIAL_EVENT, b"de")]);
        assert_eq!(assembled(Some(only), &end(0, b"fg")), Ok(b"defg".to_vec()));
        assert_eq!(assembled(Some(block(&[])), &end(0, b"")), Ok(vec![]));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |begin, end: &AppendBlockEnd| assembled(Some(begin), end).unwrap_err();
        let whole = BlockError::Whole { whole: 5, block: 4 };
        assert_eq!(refused(block(&[b"abcd"]), &end(5, b"")), whole);
        let whole = BlockError::Whole { whole: -1, block: 4 };
        assert_eq!(refused(block(&[b"abcd"]), &end(-1, b"")), whole);
        let other = block(&[b"ab", &nested_frame(100, b"zzzz")]);
        assert_eq!(refused(other, &end(2, b"")), BlockError::Nested);
        assert_eq!(refused(block(&[b"abcd"]), &end(2, b"")), BlockError::Nested);
        let two = block(&[&nested_frame(PADDING, b""), &nested_frame(PADDING, b"")]);
        assert_eq!(refused(two, &end(0, b"")), BlockError::Nested);
        let padded = block(&[b"abc", &nested_frame(PADDING, &[0; 8])]);
        assert_eq!(refused(padded, &end(3, b"more")), BlockError::Tail);
        assert_eq!(refused(block(&[b"abc"]), &end(3, b"more")), BlockError::Tail);
        let other = AppendBlockEnd { writer_id: WriterId(2), ..end(3, b"") };
        assert_eq!(refused(block(&[b"abc"]), &other), BlockError::OtherWriter);
    }

    #[test]
    fn a_block_must_end_before_the_next_append_command() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.interrupt("SetupAppend"), Ok(()));
        blocks.begin(block(&[b"abc"])).unwrap();
        let interrupted = BlockError::Interrupted("SetupAppend");
        assert_eq!(blocks.interrupt("SetupAppend"), Err(interrupted));
        assert!(blocks.begin(block(&[b"abc"])).is_err());
        blocks.end(&end(3, b"")).unwrap();
        assert_eq!(blocks.interrupt("SetupAppend"), Ok(()));
    }
}
