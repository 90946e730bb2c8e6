//! `thalweg bench append`: throughput of one writer, narrow and deep.

use super::child::Server;
use super::load::{Blocks, Lane, Meter, full_speed, keys};
use super::raw::{Raw, quantile};
use super::{Common, Folder, client, device, spread};
use crate::cli::{out, write};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::time::{Duration, Instant};
use thalweg_types::name::ScopedStream;
use tokio::runtime::Runtime;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Sizes of an event in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024, 10_240],
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sizes: Vec<u32>,
    /// Window shapes
    #[arg(long, value_delimiter = ',', default_values = ["narrow", "deep"])]
    shapes: Vec<Shape>,
    /// Segments of the stream
    #[arg(long, value_delimiter = ',', default_values_t = [1],
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    segments: Vec<u32>,
    #[command(flatten)]
    common: Common,
}

/// How much is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Shape {
    /// 200 events of 100 B a block, 20,000 in flight; 100 / 4,000 of 1 KiB; 16 / 400 of 10 KiB
    Narrow,
    /// 2,000 / 200,000; 500 / 40,000; 64 / 4,000
    Deep,
}

impl Shape {
    /// Events of `bytes` each in a block, and in flight.
    pub(super) fn window(self, bytes: u32) -> (u32, u32) {
        match (self, bytes) {
            (Self::Narrow, ..512) => (200, 20_000),
            (Self::Narrow, 512..4096) => (100, 4_000),
            (Self::Narrow, _) => (16, 400),
            (Self::Deep, ..512) => (2_000, 200_000),
            (Self::Deep, 512..4096) => (500, 40_000),
            (Self::Deep, _) => (64, 4_000),
        }
    }

    /// What a node should reach with one segment: events per second.
    fn bar(self, bytes: u32) -> f64 {
        match (self, bytes) {
            (Self::Narrow, ..512) => 1_000_000.0,
            (Self::Narrow, 512..4096) => 300_000.0,
            (Self::Deep, ..512) => 2_500_000.0,
            (Self::Deep, 512..4096) => 400_000.0,
            (_, bytes) => 500e6 / f64::from(bytes),
        }
    }

    /// What an event should cost the server at most, in µs of CPU.
    fn cpu_bar(self, bytes: u32) -> Option<f64> {
        match (self, bytes) {
            (Self::Narrow, ..512) => Some(0.6),
            (Self::Deep, ..512) => Some(0.25),
            (Self::Deep, 512..4096) => Some(1.3),
            _ => None,
        }
    }
}

/// What one case showed: medians over the runs, the rate with its range.
#[derive(Debug, Serialize)]
struct Case {
    event_bytes: u32,
    shape: Shape,
    block_events: u32,
    window_events: u32,
    segments: u32,
    events_per_second: f64,
    events_per_second_min: f64,
    events_per_second_max: f64,
    mb_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    server_cpu_us_per_event: Option<f64>,
    server_cpu_us_bar: Option<f64>,
    device_flushes_per_second: Option<f64>,
    server_resident_mb: Option<f64>,
    ratio_to_raw: f64,
    fraction_of_bar: f64,
}

/// What one run showed.
struct Measured {
    rate: f64,
    quantiles: [f64; 3],
    cpu_us: Option<f64>,
    flushes: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    raw: Raw,
    cases: Vec<Case>,
}

/// Does it.
pub(super) fn run(options: &Options, runtime: &Runtime) -> anyhow::Result<()> {
    let common = &options.common;
    let folder = common.folder()?;
    let raw = Raw::measure(&folder.path, common.run_time().min(Duration::from_millis(700)))?;
    if !common.json {
        out::line(raw.describe())?;
        out::line(HEADING)?;
    }
    let mut cases = Vec::new();
    for segments in &options.segments {
        for bytes in &options.sizes {
            for shape in &options.shapes {
                let case = Plan { bytes: *bytes, shape: *shape, segments: *segments };
                let case = runtime.block_on(case.run(common, &folder, &raw))?;
                if !common.json {
                    out::line(case.row())?;
                }
                cases.push(case);
            }
        }
    }
    let lowest = cases.iter().map(|c| c.fraction_of_bar).fold(f64::MAX, f64::min);
    if common.json {
        out::line(serde_json::to_string(&Report { raw, cases })?)?;
        return common.check(&format!("{lowest:.2} of the bar"), lowest);
    }
    let best = cases.iter().map(|c| c.events_per_second).fold(0.0, f64::max);
    let figure = format!("append: {best:.0} events/s at most, {lowest:.2} of the bar at least");
    common.conclude(&figure, lowest)
}

const HEADING: &str = "\
 event  shape  block/window seg |  events/s (lowest–highest)           MB/s   raw | p50 ms  p99 ms p99.9 ms \
| CPU µs/ev  flush/s   MB | bar";

impl Case {
    fn row(&self) -> String {
        let optional = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let load = format!(
            "{:>6} {:>6} {:>5}/{:<7}{:>3}",
            self.event_bytes,
            format!("{:?}", self.shape).to_lowercase(),
            self.block_events,
            self.window_events,
            self.segments,
        );
        let rate = format!(
            "{:>9.0} ({:>9.0}–{:>9.0}) {:>9.1} {:>5.2}",
            self.events_per_second,
            self.events_per_second_min,
            self.events_per_second_max,
            self.mb_per_second,
            self.ratio_to_raw,
        );
        let times = format!("{:>6.2} {:>7.2} {:>8.2}", self.p50_ms, self.p99_ms, self.p999_ms);
        let server = format!(
            "{:>9} {:>8} {:>4}",
            optional(self.server_cpu_us_per_event, 3),
            optional(self.device_flushes_per_second, 0),
            optional(self.server_resident_mb, 0),
        );
        format!("{load} | {rate} | {times} | {server} | {:.2}", self.fraction_of_bar)
    }
}

/// A case to be measured.
struct Plan {
    bytes: u32,
    shape: Shape,
    segments: u32,
}

impl Plan {
    /// Measures on a server of its own, or on the one that is given.
    async fn run(&self, common: &Common, folder: &Folder, raw: &Raw) -> anyhow::Result<Case> {
        let data = folder.path.join("data");
        let server = match &common.connect {
            Some(_) => None,
            None => Some(Server::start(&folder.path)?),
        };
        let controller = common.connect.clone().or(server.as_ref().map(|s| s.controller.clone()));
        let controller = controller.unwrap_or_default();
        let measured = self.measure(common, folder, &controller, server.as_ref()).await;
        let memory = server.as_ref().map(|server| server.memory() as f64 / 1e6);
        if server.is_some() {
            drop(server);
            std::fs::remove_dir_all(&data)?;
        }
        Ok(self.case(&measured?, memory, raw))
    }

    async fn measure(
        &self,
        common: &Common,
        folder: &Folder,
        controller: &str,
        server: Option<&Server>,
    ) -> anyhow::Result<Vec<Measured>> {
        let (block, window) = self.shape.window(self.bytes);
        let client = client(controller, window)?;
        let name = format!("append-{}-{}-{}", self.bytes, self.segments, std::process::id());
        let stream = ScopedStream::new("bench", &name);
        write::create(&client, &stream, self.segments).await?;
        let meter = Meter::new();
        let keys = keys(&client, &stream).await?;
        let lanes: Vec<_> = keys.into_iter().map(|key| Lane::new(key, meter.clone())).collect();
        let warm_up = common.run_time() / 2;
        let end = Instant::now() + warm_up + common.run_time() * common.runs;
        let blocks = Blocks::new(self.bytes as usize, block);
        let writer = client.event_writer(&stream);
        let load = tokio::spawn(full_speed(writer, blocks, block, lanes, end));
        let mut measured = Vec::new();
        tokio::time::sleep(warm_up).await;
        for _ in 0..common.runs {
            let (cpu, flushes) = (server.map(Server::cpu), device::flushes(&folder.path));
            let started = Instant::now();
            meter.take();
            tokio::time::sleep(common.run_time()).await;
            let count = meter.take();
            let seconds = started.elapsed().as_secs_f64();
            let cpu = server.zip(cpu).map(|(server, before)| server.cpu().saturating_sub(before));
            let flushes = device::flushes(&folder.path).zip(flushes);
            let flushes = flushes.map(|(after, before)| (after - before) as f64 / seconds);
            let events = count.events.max(1) as f64;
            measured.push(Measured {
                rate: count.events as f64 / seconds,
                quantiles: [0.5, 0.99, 0.999].map(|at| quantile(&count.times, at) / 1000.0),
                cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / events),
                flushes,
            });
        }
        load.await??;
        Ok(measured)
    }

    fn case(&self, runs: &[Measured], server_resident_mb: Option<f64>, raw: &Raw) -> Case {
        let median = |value: &dyn Fn(&Measured) -> f64| spread(runs.iter().map(value).collect()).0;
        let optional = |value: &dyn Fn(&Measured) -> Option<f64>| {
            runs.iter().map(value).collect::<Option<Vec<_>>>().map(|values| spread(values).0)
        };
        let (rate, lowest, highest) = spread(runs.iter().map(|run| run.rate).collect());
        let (block_events, window_events) = self.shape.window(self.bytes);
        let mb_per_second = rate * f64::from(self.bytes) / 1e6;
        Case {
            event_bytes: self.bytes,
            shape: self.shape,
            block_events,
            window_events,
            segments: self.segments,
            events_per_second: rate,
            events_per_second_min: lowest,
            events_per_second_max: highest,
            mb_per_second,
            p50_ms: median(&|run| run.quantiles[0]),
            p99_ms: median(&|run| run.quantiles[1]),
            p999_ms: median(&|run| run.quantiles[2]),
            server_cpu_us_per_event: optional(&|run| run.cpu_us),
            server_cpu_us_bar: self.shape.cpu_bar(self.bytes),
            device_flushes_per_second: optional(&|run| run.flushes),
            server_resident_mb,
            ratio_to_raw: mb_per_second / raw.mb_per_second(),
            fraction_of_bar: rate / self.shape.bar(self.bytes),
        }
    }
}
