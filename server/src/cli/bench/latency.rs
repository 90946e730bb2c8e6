//! `thalweg bench latency`: one event in flight, then an open loop at half of the highest rate.
//!
//! In the open loop every event is stamped with the time when it is due, so a server that stalls is charged for all
//! events that wait meanwhile.

use super::child::Server;
use super::load::{Blocks, Count, Lane, Meter, full_speed, keys};
use super::raw::Raw;
use super::times::Times;
use super::{Common, Folder, client, device};
use crate::cli::{out, write};
use clap::Args;
use serde::Serialize;
use std::time::{Duration, Instant};
use thalweg_client::Client;
use thalweg_types::name::ScopedStream;
use tokio::runtime::Runtime;

/// Events that the open loop puts into one block at most: what a client would gather.
const BLOCK_EVENTS_MAX: u32 = 100;
/// Events in flight that the open loop never reaches.
const WINDOW_EVENTS: u32 = 50_000_000;
/// How often the open loop looks for events that are due.
const TICK: Duration = Duration::from_millis(1);

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Size of an event in bytes
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    size: u32,
    /// Events a second in the open loop; half of the highest rate by default
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Report {
    raw: Raw,
    event_bytes: u32,
    one_in_flight: Times,
    highest_rate: f64,
    open_loop: Times,
    bars: Vec<Bar>,
}

/// A limit and what was reached.
#[derive(Serialize)]
struct Bar {
    what: &'static str,
    us: f64,
    limit_us: f64,
    /// The limit by the figure: 1 or more is met.
    fraction: f64,
}

impl Bar {
    fn new(what: &'static str, us: f64, limit_us: f64) -> Self {
        Self { what, us, limit_us, fraction: limit_us / us.max(0.001) }
    }
}

/// Does it.
pub(super) fn run(options: &Options, runtime: &Runtime) -> anyhow::Result<()> {
    let common = &options.common;
    let folder = common.folder()?;
    let raw = Raw::measure(&folder.path, common.run_time().min(Duration::from_millis(700)))?;
    let server = match &common.connect {
        Some(_) => None,
        None => Some(Server::start(&folder.path)?),
    };
    let controller = common.connect.clone().or(server.as_ref().map(|s| s.controller.clone()));
    let bench = Bench { options, folder: &folder, controller: controller.unwrap_or_default() };
    let report = runtime.block_on(bench.run(raw));
    drop(server);
    let report = report?;
    let lowest = report.bars.iter().map(|bar| bar.fraction).fold(f64::MAX, f64::min);
    if common.json {
        out::line(serde_json::to_string(&report)?)?;
        return common.check(&format!("{lowest:.2} of the bar"), lowest);
    }
    report.print()?;
    let one = &report.one_in_flight;
    let figure = format!(
        "latency: one in flight p50 {:.0} µs p99 {:.0} µs, open loop p99 {:.0} µs, {lowest:.2} of the bar",
        one.p50_us, one.p99_us, report.open_loop.p99_us
    );
    common.conclude(&figure, lowest)
}

struct Bench<'a> {
    options: &'a Options,
    folder: &'a Folder,
    controller: String,
}

impl Bench<'_> {
    async fn run(&self, raw: Raw) -> anyhow::Result<Report> {
        let common = &self.options.common;
        let stream = ScopedStream::new("bench", &format!("latency-{}", std::process::id()));
        let client = client(&self.controller, WINDOW_EVENTS)?;
        write::create(&client, &stream, 1).await?;
        self.one_in_flight(&client, &stream, common.run_time() / 2).await?;
        let length = common.run_time() * common.runs;
        let one_in_flight = self.one_in_flight(&client, &stream, length).await?;
        let highest_rate = self.highest_rate(&stream).await?;
        let rate = self.options.rate.unwrap_or(highest_rate / 2.0);
        let open_loop = self.open_loop(&client, &stream, rate).await?;
        let (small, sync_us) = (raw.small(), raw.small().p50_us);
        let bars = vec![
            Bar::new(
                "one in flight p50",
                one_in_flight.p50_us,
                1.25 * (sync_us + raw.loopback_p50_us),
            ),
            Bar::new("one in flight p99", one_in_flight.p99_us, 2.0 * small.p99_us),
            Bar::new("open loop p99", open_loop.p99_us, 5_000.0),
            Bar::new("open loop p99.9", open_loop.p999_us, (3.0 * small.p999_us).max(10_000.0)),
        ];
        let event_bytes = self.options.size;
        Ok(Report { raw, event_bytes, one_in_flight, highest_rate, open_loop, bars })
    }

    fn times(&self, count: &Count, took: Duration, flushes: Option<u64>) -> Times {
        Times::new(count, took, &self.folder.path, flushes)
    }

    async fn one_in_flight(
        &self,
        client: &Client,
        stream: &ScopedStream,
        length: Duration,
    ) -> anyhow::Result<Times> {
        let writer = client.event_writer(stream);
        let mut blocks = Blocks::new(self.options.size as usize, 1);
        let meter = Meter::new();
        writer.write_block("", blocks.next_block(1), 1).await?.await?;
        let (started, flushes) = (Instant::now(), device::flushes(&self.folder.path));
        while started.elapsed() < length {
            let block = blocks.next_block(1);
            let before = Instant::now();
            writer.write_block("", block, 1).await?.await?;
            meter.acked(1, before.elapsed());
        }
        Ok(self.times(&meter.take(), started.elapsed(), flushes))
    }

    /// Of the narrow window.
    async fn highest_rate(&self, stream: &ScopedStream) -> anyhow::Result<f64> {
        let common = &self.options.common;
        let client = client(&self.controller, 4_000)?;
        let meter = Meter::new();
        let keys = keys(&client, stream).await?;
        let lanes = keys.into_iter().map(|key| Lane::new(key, meter.clone())).collect();
        let blocks = Blocks::new(self.options.size as usize, BLOCK_EVENTS_MAX);
        let warm_up = common.run_time() / 4;
        let end = Instant::now() + warm_up + common.run_time();
        let writer = client.event_writer(stream);
        let load = tokio::spawn(full_speed(writer, blocks, BLOCK_EVENTS_MAX, lanes, end));
        tokio::time::sleep(warm_up).await;
        let started = Instant::now();
        meter.take();
        tokio::time::sleep(common.run_time()).await;
        let rate = meter.take().events as f64 / started.elapsed().as_secs_f64();
        load.await??;
        Ok(rate)
    }

    async fn open_loop(
        &self,
        client: &Client,
        stream: &ScopedStream,
        rate: f64,
    ) -> anyhow::Result<Times> {
        let common = &self.options.common;
        let writer = client.event_writer(stream);
        let mut blocks = Blocks::new(self.options.size as usize, BLOCK_EVENTS_MAX);
        let meter = Meter::new();
        let lane = Lane::new(String::new(), meter.clone());
        let started = Instant::now();
        let flushes = device::flushes(&self.folder.path);
        let length = common.run_time() * common.runs;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sent = 0_u64;
        while started.elapsed() < length {
            tick.tick().await;
            let due = (started.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                let events = (due - sent).min(u64::from(BLOCK_EVENTS_MAX)) as u32;
                let first = started + Duration::from_secs_f64((sent + 1) as f64 / rate);
                let block = blocks.next_block(events);
                lane.write(&writer, block, events, Some(first)).await?;
                sent += u64::from(events);
            }
        }
        lane.finish().await?;
        Ok(self.times(&meter.take(), started.elapsed(), flushes))
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        out::line(self.raw.describe())?;
        out::line(format!(
            "one event of {} B in flight: {}",
            self.event_bytes, self.one_in_flight
        ))?;
        out::line(format!("highest rate, narrow window: {:.0} events/s", self.highest_rate))?;
        out::line(format!("open loop, stamped when due:  {}", self.open_loop))?;
        for bar in &self.bars {
            let Bar { what, us, limit_us, fraction } = bar;
            out::line(format!("{what:>18}: {us:>8.0} µs, bar {limit_us:>8.0} µs, {fraction:.2}"))?;
        }
        Ok(())
    }
}
