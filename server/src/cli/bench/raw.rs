//! What the disk and the loopback can do, measured beside the server: the divisor of its figures.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Length of the file that is written over and over, as a log's recycled files are.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The sizes of one write.
const SIZES: [usize; 3] = [4 * 1024, 64 * 1024, 1024 * 1024];
/// Each measurement is made so often; the best counts.
const ROUNDS: usize = 3;
/// Bytes that go to and fro on the loopback.
const PING_BYTES: usize = 100;
/// How often they do in one round.
const PINGS: usize = 2000;

/// Write and fdatasync of one size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sync {
    pub(super) bytes: usize,
    pub(super) per_second: f64,
    pub(super) mb_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
}

/// The limits of this machine, now.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Raw {
    /// 4 KiB, 64 KiB, 1 MiB.
    pub(super) syncs: Vec<Sync>,
    pub(super) loopback_p50_us: f64,
}

impl Raw {
    /// Measures in `folder`. A measurement takes `round`; nine of them are made, and the loopback.
    pub(super) fn measure(folder: &Path, round: Duration) -> io::Result<Self> {
        let path = folder.join("raw");
        let file = recycled(&path)?;
        let mut syncs = Vec::new();
        for bytes in SIZES {
            let rounds: io::Result<Vec<_>> =
                (0..ROUNDS).map(|_| sync(&file, bytes, round)).collect();
            let best = rounds?.into_iter().max_by(|a, b| a.per_second.total_cmp(&b.per_second));
            syncs.extend(best);
        }
        drop(file);
        std::fs::remove_file(&path)?;
        Ok(Self { syncs, loopback_p50_us: loopback()? })
    }

    /// Writes of 4 KiB.
    pub(super) fn small(&self) -> &Sync {
        &self.syncs[0]
    }

    /// The highest rate that one write after the other can have, in MB/s.
    pub(super) fn mb_per_second(&self) -> f64 {
        self.syncs.iter().map(|sync| sync.mb_per_second).fold(0.0, f64::max)
    }

    pub(super) fn describe(&self) -> String {
        let mut text = String::from("raw limits, same disk, same run, best of three:\n");
        for s in &self.syncs {
            let line = format!(
                "  write + fdatasync {:>4} KiB, recycled file: {:>7.0}/s {:>7.1} MB/s   \
                 p50 {:.0} µs  p99 {:.0} µs  p99.9 {:.0} µs",
                s.bytes / 1024,
                s.per_second,
                s.mb_per_second,
                s.p50_us,
                s.p99_us,
                s.p999_us,
            );
            text += &line;
            text.push('\n');
        }
        // Because: writing to a string cannot fail.
        let _infallible = write!(
            text,
            "  loopback, {PING_BYTES} B to and fro: p50 {:.0} µs",
            self.loopback_p50_us
        );
        text
    }
}

/// A file whose blocks are allocated and were written before.
fn recycled(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let zeros = vec![0; SIZES[2]];
    for at in (0..FILE_BYTES).step_by(SIZES[2]) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn sync(file: &File, bytes: usize, round: Duration) -> io::Result<Sync> {
    let data = vec![0x5a; bytes];
    let mut times = histogram();
    let (started, mut at, mut count) = (Instant::now(), 0, 0_u64);
    while started.elapsed() < round {
        let before = Instant::now();
        file.write_all_at(&data, at)?;
        file.sync_data()?;
        times.saturating_record(nanos(before.elapsed()));
        at = (at + bytes as u64) % FILE_BYTES;
        count += 1;
    }
    let per_second = count as f64 / started.elapsed().as_secs_f64();
    Ok(Sync {
        bytes,
        per_second,
        mb_per_second: per_second * bytes as f64 / 1e6,
        p50_us: quantile(&times, 0.5),
        p99_us: quantile(&times, 0.99),
        p999_us: quantile(&times, 0.999),
    })
}

fn loopback() -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; PING_BYTES];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut best = f64::MAX;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    for _ in 0..ROUNDS {
        let mut times = histogram();
        let mut bytes = [0; PING_BYTES];
        for _ in 0..PINGS {
            let before = Instant::now();
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            times.saturating_record(nanos(before.elapsed()));
        }
        best = best.min(quantile(&times, 0.5));
    }
    drop(stream);
    echo.join().map_err(|_| io::Error::other("the echo thread failed"))??;
    Ok(best)
}

/// For nanoseconds up to a minute, three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("the bounds are legal")
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// In microseconds.
pub(super) fn quantile(times: &Histogram<u64>, at: f64) -> f64 {
    times.value_at_quantile(at) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_takes_time() {
        assert!(loopback().unwrap() > 0.1);
    }
}
