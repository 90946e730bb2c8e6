//! `thalweg bench ledger`: the replicated ledger alone, its owner in this process, each replica a process of its own.
//!
//! Throughput in both window shapes beside that of one replica, latency one in flight and in an open loop at half load,
//! and the same open loop with one replica suspended. An entry holds what a container would put into it.

mod cluster;
mod drive;

use super::append::Shape;
use super::load::{Blocks, Count, Meter};
use super::raw::{Raw, quantile};
use super::times::Times;
use super::{Common, Folder, device, spread};
use crate::cli::out;
use anyhow::bail;
use clap::Args;
use cluster::Replicas;
use drive::Drive;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How much worse the 99th percentile may be while one replica is suspended.
const SUSPENDED_FACTOR_MAX: f64 = 3.0;
/// Open loops without and with a suspended replica, by turns: a disk that stalls now and then, as shared ones do, would
/// decide a single comparison.
const PAIRS: u32 = 5;
/// Until a replica that was suspended has worked off what it had been sent.
const RECOVERY: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Replicas of each entry; a majority of them must have it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    /// Sizes of an event in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024, 10_240],
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sizes: Vec<u32>,
    /// Window shapes
    #[arg(long, value_delimiter = ',', default_values = ["narrow", "deep"])]
    shapes: Vec<Shape>,
    /// Size of an event where latency is measured
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    latency_size: u32,
    #[command(flatten)]
    common: Common,
}

/// What one case showed: medians over the runs, the rate with its range.
#[derive(Debug, Serialize)]
struct Case {
    replicas: u8,
    event_bytes: u32,
    shape: Shape,
    block_events: u32,
    window_events: u32,
    events_per_second: f64,
    events_per_second_min: f64,
    events_per_second_max: f64,
    mb_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    replicas_cpu_us_per_event: f64,
    owner_cpu_us_per_event: f64,
    device_flushes_per_second: Option<f64>,
    replica_resident_mb: f64,
    owner_resident_mb: f64,
    /// What reaches the disk in all, by what one writer of large blocks gets onto it.
    ratio_to_raw: f64,
    fraction_of_bar: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    event_bytes: u32,
    one_in_flight: Times,
    one_in_flight_one_replica: Times,
    highest_rate: f64,
    open_loop: Times,
    open_loop_one_suspended: Option<Times>,
    /// Median, lowest and highest of the pairs.
    suspended_factor: Option<(f64, f64, f64)>,
}

#[derive(Serialize)]
struct Report {
    raw: Raw,
    cases: Vec<Case>,
    latency: Latency,
}

/// Events a second that three replicas on one machine should reach.
fn bar(shape: Shape, bytes: u32) -> Option<f64> {
    match (shape, bytes) {
        (Shape::Deep, ..512) => Some(1_500_000.0),
        (Shape::Narrow, ..512) => Some(600_000.0),
        (_, 512..4096) => Some(150_000.0),
        _ => None,
    }
}

/// Does it.
pub(super) fn run(options: &Options, runtime: &Runtime) -> anyhow::Result<()> {
    let common = &options.common;
    if common.connect.is_some() {
        bail!("--connect: the ledger is measured on replicas of its own");
    }
    let folder = common.folder()?;
    let raw = Raw::measure(&folder.path, common.run_time().min(Duration::from_millis(700)))?;
    if !common.json {
        out::line(raw.describe())?;
        out::line(HEADING)?;
    }
    let bench = Bench { options, folder: &folder, raw: &raw };
    let cases = runtime.block_on(bench.cases())?;
    let latency = runtime.block_on(bench.latency())?;
    let suspended = latency.suspended_factor.map(|(factor, ..)| SUSPENDED_FACTOR_MAX / factor);
    let fractions = cases.iter().filter_map(|case| case.fraction_of_bar).chain(suspended);
    let lowest = fractions.fold(f64::MAX, f64::min);
    if common.json {
        out::line(serde_json::to_string(&Report { raw, cases, latency })?)?;
        return common.check(&format!("{lowest:.2} of the bar"), lowest);
    }
    latency.print()?;
    let of_all = cases.iter().filter(|case| case.replicas == options.replicas);
    let best = of_all.map(|case| case.events_per_second).fold(0.0, f64::max);
    let figure = format!("ledger: {best:.0} events/s at most, {lowest:.2} of the bar at least");
    common.conclude(&figure, lowest)
}

const HEADING: &str = "\
replicas event  shape  block/window |  events/s (lowest–highest)           MB/s   raw | p50 ms  p99 ms \
| CPU µs/ev: replicas owner | flush/s | MB: replica owner | bar";

impl Case {
    fn row(&self) -> String {
        let optional = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let load = format!(
            "{:>8} {:>5} {:>6} {:>5}/{:<6}",
            self.replicas,
            self.event_bytes,
            format!("{:?}", self.shape).to_lowercase(),
            self.block_events,
            self.window_events,
        );
        let rate = format!(
            "{:>9.0} ({:>9.0}–{:>9.0}) {:>9.1} {:>5.2}",
            self.events_per_second,
            self.events_per_second_min,
            self.events_per_second_max,
            self.mb_per_second,
            self.ratio_to_raw,
        );
        let cpu = format!(
            "{:>19.3} {:>5.3}",
            self.replicas_cpu_us_per_event, self.owner_cpu_us_per_event
        );
        let memory = format!("{:>11.0} {:>5.0}", self.replica_resident_mb, self.owner_resident_mb);
        format!(
            "{load} | {rate} | {:>6.2} {:>7.2} | {cpu} | {:>7} | {memory} | {}",
            self.p50_ms,
            self.p99_ms,
            optional(self.device_flushes_per_second, 0),
            optional(self.fraction_of_bar, 2),
        )
    }
}

/// What one run showed.
struct Measured {
    rate: f64,
    quantiles: [f64; 2],
    cpu_us: [f64; 2],
    flushes: Option<f64>,
}

struct Bench<'a> {
    options: &'a Options,
    folder: &'a Folder,
    raw: &'a Raw,
}

impl Bench<'_> {
    /// Every size and shape, with all replicas and with one.
    async fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        let mut counts = vec![self.options.replicas];
        if self.options.replicas > 1 {
            counts.push(1);
        }
        for count in counts {
            for bytes in &self.options.sizes {
                for shape in &self.options.shapes {
                    let case = self.case(count, *bytes, *shape).await?;
                    if !self.options.common.json {
                        out::line(case.row())?;
                    }
                    cases.push(case);
                }
            }
        }
        Ok(cases)
    }

    async fn case(&self, count: u8, bytes: u32, shape: Shape) -> anyhow::Result<Case> {
        let replicas = Replicas::start(&self.folder.path, count)?;
        let runs = self.throughput(&replicas, bytes, shape).await?;
        let (replica_memory, owner_memory) = replicas.memory();
        let median = |value: &dyn Fn(&Measured) -> f64| spread(runs.iter().map(value).collect()).0;
        let (rate, lowest, highest) = spread(runs.iter().map(|run| run.rate).collect());
        let flushes: Option<Vec<f64>> = runs.iter().map(|run| run.flushes).collect();
        let (block_events, window_events) = shape.window(bytes);
        let mb_per_second = rate * f64::from(bytes) / 1e6;
        let all = count == self.options.replicas && count == 3;
        Ok(Case {
            replicas: count,
            event_bytes: bytes,
            shape,
            block_events,
            window_events,
            events_per_second: rate,
            events_per_second_min: lowest,
            events_per_second_max: highest,
            mb_per_second,
            p50_ms: median(&|run| run.quantiles[0]),
            p99_ms: median(&|run| run.quantiles[1]),
            replicas_cpu_us_per_event: median(&|run| run.cpu_us[0]),
            owner_cpu_us_per_event: median(&|run| run.cpu_us[1]),
            device_flushes_per_second: flushes.map(|flushes| spread(flushes).0),
            replica_resident_mb: replica_memory as f64 / 1e6,
            owner_resident_mb: owner_memory as f64 / 1e6,
            ratio_to_raw: mb_per_second * f64::from(count) / self.raw.mb_per_second(),
            fraction_of_bar: bar(shape, bytes).filter(|_| all).map(|bar| rate / bar),
        })
    }

    async fn throughput(
        &self,
        replicas: &Replicas,
        bytes: u32,
        shape: Shape,
    ) -> anyhow::Result<Vec<Measured>> {
        let common = &self.options.common;
        let (block, window) = shape.window(bytes);
        let meter = Meter::new();
        let mut drive = Drive::new(replicas.ledger().await?, meter.clone());
        let warm_up = common.run_time() / 2;
        let end = Instant::now() + warm_up + common.run_time() * common.runs;
        let mut blocks = Blocks::new(bytes as usize, block);
        let load =
            tokio::spawn(async move { drive.full_speed(&mut blocks, (block, window), end).await });
        tokio::time::sleep(warm_up).await;
        let mut measured = Vec::new();
        for _ in 0..common.runs {
            let (cpu, flushes) = (replicas.cpu(), device::flushes(&self.folder.path));
            let started = Instant::now();
            meter.take();
            tokio::time::sleep(common.run_time()).await;
            let count = meter.take();
            let seconds = started.elapsed().as_secs_f64();
            let flushes = device::flushes(&self.folder.path).zip(flushes);
            let events = count.events.max(1) as f64;
            let after = replicas.cpu();
            let per_event = |after: Duration, before: Duration| {
                after.saturating_sub(before).as_secs_f64() * 1e6 / events
            };
            measured.push(Measured {
                rate: count.events as f64 / seconds,
                quantiles: [0.5, 0.99].map(|at| quantile(&count.times, at) / 1000.0),
                cpu_us: [per_event(after.0, cpu.0), per_event(after.1, cpu.1)],
                flushes: flushes.map(|(after, before)| (after - before) as f64 / seconds),
            });
        }
        load.await??;
        Ok(measured)
    }

    async fn latency(&self) -> anyhow::Result<Latency> {
        let length = self.options.common.run_time() * self.options.common.runs;
        let one_in_flight_one_replica = {
            let replicas = Replicas::start(&self.folder.path, 1)?;
            self.one_in_flight(&replicas, length).await?
        };
        let replicas = Replicas::start(&self.folder.path, self.options.replicas)?;
        let one_in_flight = self.one_in_flight(&replicas, length).await?;
        let runs = self.throughput(&replicas, self.options.latency_size, Shape::Narrow).await?;
        let highest_rate = spread(runs.iter().map(|run| run.rate).collect()).0;
        let rate = highest_rate / 2.0;
        // With fewer than three replicas nothing is committed while one is away.
        let (open_loop, suspended) = if self.options.replicas >= 3 {
            let (times, suspended, factors) = self.pairs(&replicas, rate, length / PAIRS).await?;
            (times, Some((suspended, factors)))
        } else {
            (self.open_loop(&replicas, rate, length, false).await?, None)
        };
        let (open_loop_one_suspended, suspended_factor) = suspended.unzip();
        Ok(Latency {
            event_bytes: self.options.latency_size,
            one_in_flight,
            one_in_flight_one_replica,
            highest_rate,
            open_loop,
            open_loop_one_suspended,
            suspended_factor,
        })
    }

    async fn one_in_flight(&self, replicas: &Replicas, length: Duration) -> anyhow::Result<Times> {
        let meter = Meter::new();
        let mut drive = Drive::new(replicas.ledger().await?, meter.clone());
        let mut blocks = Blocks::new(self.options.latency_size as usize, 1);
        drive.one_in_flight(&mut blocks, length / 4).await?;
        meter.take();
        let (started, flushes) = (Instant::now(), device::flushes(&self.folder.path));
        drive.one_in_flight(&mut blocks, length).await?;
        Ok(self.times(&meter.take(), started.elapsed(), flushes))
    }

    /// Open loops by turns: those of the middle pair, and how the 99th percentiles of all pairs compare.
    async fn pairs(
        &self,
        replicas: &Replicas,
        rate: f64,
        length: Duration,
    ) -> anyhow::Result<(Times, Times, (f64, f64, f64))> {
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            let all = self.open_loop(replicas, rate, length, false).await?;
            let suspended = self.open_loop(replicas, rate, length, true).await?;
            tokio::time::sleep(RECOVERY).await;
            pairs.push((suspended.p99_us / all.p99_us, all, suspended));
        }
        let factors = spread(pairs.iter().map(|(factor, ..)| *factor).collect());
        pairs.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
        let (_, all, suspended) = pairs.swap_remove(pairs.len() / 2);
        Ok((all, suspended, factors))
    }

    /// At `rate`; the last replica is suspended all the while, if that is wanted.
    async fn open_loop(
        &self,
        replicas: &Replicas,
        rate: f64,
        length: Duration,
        suspended: bool,
    ) -> anyhow::Result<Times> {
        let meter = Meter::new();
        let mut drive = Drive::new(replicas.ledger().await?, meter.clone());
        let mut blocks = Blocks::new(self.options.latency_size as usize, 100);
        drive.open_loop(&mut blocks, rate, length / 4).await?;
        meter.take();
        let victim = replicas.last().filter(|_| suspended);
        victim.inspect(|replica| replica.suspend());
        let (started, flushes) = (Instant::now(), device::flushes(&self.folder.path));
        let driven = drive.open_loop(&mut blocks, rate, length).await;
        victim.inspect(|replica| replica.resume());
        driven?;
        Ok(self.times(&meter.take(), started.elapsed(), flushes))
    }

    fn times(&self, count: &Count, took: Duration, flushes: Option<u64>) -> Times {
        Times::new(count, took, &self.folder.path, flushes)
    }
}

impl Latency {
    fn print(&self) -> anyhow::Result<()> {
        out::line(format!(
            "one event of {} B in flight: {}",
            self.event_bytes, self.one_in_flight
        ))?;
        out::line(format!("the same, one replica:      {}", self.one_in_flight_one_replica))?;
        out::line(format!("highest rate, narrow:       {:.0} events/s", self.highest_rate))?;
        out::line(format!("open loop, stamped if due:  {}", self.open_loop))?;
        if let Some((times, (factor, lowest, highest))) =
            self.open_loop_one_suspended.as_ref().zip(self.suspended_factor)
        {
            out::line(format!("the same, one suspended:    {times}"))?;
            out::line(format!(
                "p99 with one suspended by p99 without, {PAIRS} pairs: {factor:.2} \
                 ({lowest:.2}–{highest:.2}), at most {SUSPENDED_FACTOR_MAX}"
            ))?;
        }
        Ok(())
    }
}
