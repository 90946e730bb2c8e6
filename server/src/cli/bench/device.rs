//! How often a folder's disk was flushed: the proof that acknowledged means durable.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Flush requests that the folder's device has completed since the system started. `None`: the system does not say.
pub(super) fn flushes(folder: &Path) -> Option<u64> {
    let device = std::fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    flushes_of(&std::fs::read_to_string("/proc/diskstats").ok()?, major, minor)
}

/// Field 16 behind the device's name; kernels before 5.5 do not have it.
fn flushes_of(stats: &str, major: u32, minor: u32) -> Option<u64> {
    let is_it = |fields: &Vec<&str>| {
        fields.first().and_then(|f| f.parse().ok()) == Some(major)
            && fields.get(1).and_then(|f| f.parse().ok()) == Some(minor)
    };
    let fields = stats.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).find(is_it)?;
    fields.get(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_are_counted_for_the_right_device() {
        let stats = " 254  0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 777 17\n 7 0 loop0 1 2 3\n";
        assert_eq!(flushes_of(stats, 254, 0), Some(777));
        assert_eq!(flushes_of(stats, 7, 0), None, "an old kernel");
        assert_eq!(flushes_of(stats, 8, 0), None);
    }
}
