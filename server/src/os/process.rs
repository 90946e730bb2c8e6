//! What this process uses of the machine.

use rustix::time::ClockId;
use std::time::Duration;

/// CPU time of all threads so far.
pub(crate) fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// Resident memory in bytes; 0 if the system does not say.
pub(crate) fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * u64::try_from(rustix::param::page_size()).unwrap_or(0)
}

/// Open files, sockets included; 0 if the system does not say.
pub(crate) fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_memory_and_files() {
        let before = cpu();
        while cpu() == before {
            std::hint::black_box(0);
        }
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let with = memory();
        assert!(with > 64 << 20);
        drop(block);
        assert!(memory() < with);
        assert!(open_files() >= 3);
    }
}
