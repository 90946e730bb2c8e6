//! Sparse bytes of one file.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = PAGE_BYTES as u64;
const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// The bytes of a file: pages that were never written read as zeros and cost nothing. Clones share pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    map: BTreeMap<u64, Arc<Page>>,
    len: u64,
}

/// Part of `[offset, offset + len)` in one page: the page, where in the page, where in the range, how many bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let inside = usize::try_from(at % PAGE).expect("a page is small");
        let count = (len - done).min(PAGE_BYTES - inside);
        done += count;
        Some((at / PAGE, inside, done - count, count))
    })
}

impl Pages {
    /// The length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes at `offset`, fewer than `len` at the end.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(there)];
        for (page, inside, at, count) in parts(offset, bytes.len()) {
            if let Some(page) = self.map.get(&page) {
                bytes[at..at + count].copy_from_slice(&page[inside..inside + count]);
            }
        }
        bytes
    }

    /// Writes `bytes`, growing where needed.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, inside, at, count) in parts(offset, bytes.len()) {
            let page = self.map.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[inside..inside + count].copy_from_slice(&bytes[at..at + count]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Grows to `len` with zeros; never shortens.
    pub(crate) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Cuts or grows to `len`.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, inside) = (len / PAGE, usize::try_from(len % PAGE).expect("small"));
            drop(self.map.split_off(&len.div_ceil(PAGE)));
            if let Some(page) = self.map.get_mut(&page) {
                Arc::make_mut(page)[inside..].fill(0);
            }
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_across_page_borders() {
        let mut pages = Pages::default();
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        pages.write(4_000, &bytes);
        assert_eq!(pages.read(4_000, 10_000), bytes);
        assert_eq!(pages.read(0, 4_000), vec![0; 4_000]);
        assert_eq!(pages.read(13_999, 10), bytes[9_999..]);
        assert_eq!(pages.len(), 14_000);
    }

    #[test]
    fn what_was_cut_reads_as_zeros_when_the_file_grows_again() {
        let mut pages = Pages::default();
        pages.write(0, &[7; 9_000]);
        pages.set_len(5_000);
        pages.grow(9_000);
        assert_eq!(pages.read(4_999, 3), [7, 0, 0]);
        assert_eq!(pages.read(8_999, 1), [0]);
    }
}
