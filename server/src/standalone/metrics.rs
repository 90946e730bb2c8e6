//! What `/metrics` shows. Everything is read when it is asked for: counting costs the paths of events nothing.

use super::view::{State, View};
use crate::os::process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

impl Collector for View {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        process_metrics(&mut page)?;
        let is_held = matches!(self.state(), State::Held(_));
        page.gauge("thalweg_appends_held", "1 while appends wait for disk space", is_held.into())?;
        for (name, help, value) in [
            ("thalweg_segments", "Segments that are stored", self.segments()),
            (
                "thalweg_segment_connections",
                "Open connections of the segment store",
                self.segment_connections(),
            ),
            (
                "thalweg_controller_connections",
                "Open connections of the controller",
                self.controller_connections(),
            ),
            ("thalweg_cache_bytes", "Log payload in memory for readers", self.cache_bytes()),
        ] {
            page.gauge(name, help, u64::try_from(value).unwrap_or(u64::MAX))?;
        }
        let (acknowledged, folder) = (self.acknowledged(), self.folder());
        for (name, help, value) in [
            ("thalweg_append_blocks", "Append blocks acknowledged", acknowledged.blocks),
            ("thalweg_append_events", "Events acknowledged", acknowledged.events),
            ("thalweg_append_bytes", "Bytes of acknowledged appends", acknowledged.bytes),
            ("thalweg_disk_syncs", "Syncs of files in the data folder", folder.syncs()),
            (
                "thalweg_disk_written_bytes",
                "Bytes written to the data folder, but for the zeros of new files",
                folder.written_bytes(),
            ),
        ] {
            page.metric(name, help, &ConstCounter::new(value))?;
        }
        Ok(())
    }
}

fn process_metrics(page: &mut Page<'_>) -> fmt::Result {
    page.gauge("process_resident_memory_bytes", "Resident memory", process::memory())?;
    page.gauge("process_open_fds", "Open files and sockets", process::open_files())?;
    let cpu = ConstCounter::new(process::cpu().as_secs_f64());
    page.metric("process_cpu_seconds", "CPU time of all threads", &cpu)
}

/// One answer to `/metrics`.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.metric(name, help, &ConstGauge::new(value))
    }

    fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }
}
