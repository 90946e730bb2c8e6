//! Splits and merges the segments of a stream while everybody else works, and checks that they cover the key space.

use super::stage::Stage;
use crate::world::rng::Rng;
use thalweg_wire::controller::{Request, Response, ScaleStatus, SegmentRange, StreamName};

/// Most segments that a stream grows to.
const SEGMENTS_MAX: usize = 6;

/// Scales a stream now and then until the stage closes.
pub(super) async fn scale(stage: Stage, stream: usize, mut rng: Rng) {
    let name = stage.with(|shared| shared.streams[stream].name.clone());
    let wire_name = StreamName::new(name.scope.as_ref(), name.stream.as_ref());
    while !stage.is_closing() {
        stage.pause(rng.millis(50, 800)).await;
        let controller = stage.client.controller();
        let Ok(mut current) = controller.current_segments(wire_name.clone()).await else {
            continue;
        };
        current.sort_by(|a, b| a.low.total_cmp(&b.low));
        check_cover(&stage, &current);
        let Some((sealed, ranges)) = draw(&current, &mut rng) else { continue };
        let request = Request::Scale { stream: wire_name.clone(), sealed, ranges };
        match controller.call(request).await {
            Ok(Response::Scale(answer)) if answer.status == ScaleStatus::Started => {
                stage.count("scales", 1);
            }
            other => tracing::debug!(?other, "scale"),
        }
    }
}

/// The open segments partition the key space, bit by bit.
fn check_cover(stage: &Stage, current: &[SegmentRange]) {
    let touches = current.windows(2).all(|pair| pair[0].high.to_bits() == pair[1].low.to_bits());
    let low = current.first().map_or(1.0, |first| first.low);
    let high = current.last().map_or(0.0, |last| last.high);
    if !touches || low.to_bits() != 0.0_f64.to_bits() || high.to_bits() != 1.0_f64.to_bits() {
        let ranges: Vec<_> = current.iter().map(|range| (range.low, range.high)).collect();
        stage.with(|shared| shared.out.violate("I7", format!("open segments cover {ranges:?}")));
    }
}

type Change = (Vec<thalweg_types::id::SegmentId>, Vec<(f64, f64)>);

/// One or two neighbours, and what takes their place.
fn draw(current: &[SegmentRange], rng: &mut Rng) -> Option<Change> {
    if current.is_empty() {
        return None;
    }
    let merges = current.len() > 1 && (rng.percent(50) || current.len() >= SEGMENTS_MAX);
    if merges {
        let at = rng.index(current.len() - 1);
        let (left, right) = (&current[at], &current[at + 1]);
        return Some((vec![left.segment, right.segment], vec![(left.low, right.high)]));
    }
    let one = &current[rng.index(current.len())];
    let middle = one.low + (one.high - one.low) / 2.0;
    Some((vec![one.segment], vec![(one.low, middle), (middle, one.high)]))
}
