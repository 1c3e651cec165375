//! JSON events of `ringlift tune`.

use ringlift::bulk::event::millis;
use ringlift::tune::{Ceiling, PathReport, Rung, TuneAdvice, UnmeasuredLanes};
use serde::Serialize;

/// The announcement of a measurement, before its first byte.
#[derive(Debug, Serialize)]
pub(super) struct TuningEvent<'a> {
    pub(super) endpoint_url: &'a str,
    /// Largest number of videos that are created and deleted.
    pub(super) videos: u32,
    /// Largest number of requests that carry bytes.
    pub(super) requests: u32,
    /// Largest number of bytes to send.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

/// The result of a measurement.
#[derive(Debug, Serialize)]
pub(super) struct TunedEvent<'a> {
    endpoint_url: &'a str,
    bottleneck: &'static str,
    verdict: &'a str,
    lanes: u32,
    chunk_bytes: u64,
    reader: String,
    /// Rate of the recommended lanes; `None` if nothing could be measured.
    bytes_per_second: Option<f64>,
    /// Ends of the 95 % interval of the rate.
    low: Option<f64>,
    high: Option<f64>,
    /// `true` if the number of lanes was compared with a neighbour in turn.
    compared: bool,
    /// Reason why the effect of more lanes is unknown; `None` if the rates show it.
    more_lanes_unmeasured: Option<UnmeasuredLanes>,
    requests: u32,
    videos: u32,
    bytes_sent: u64,
    elapsed_ms: u64,
    round_trip_ms: f64,
    /// Time of a request in which its lane sends nothing.
    fixed_ms: Option<f64>,
    uploads_per_minute: Option<u32>,
    /// Ids of videos that could not be deleted.
    left_behind: &'a [String],
    rungs: &'a [Rung],
    ceilings: &'a [Ceiling],
}

impl<'a> TunedEvent<'a> {
    /// Creates the event of a measurement of the path to `endpoint_url`.
    pub(super) fn new(
        endpoint_url: &'a str,
        path: &'a PathReport,
        ceilings: &'a [Ceiling],
        advice: &TuneAdvice,
        verdict: &'a str,
    ) -> TunedEvent<'a> {
        TunedEvent {
            endpoint_url,
            bottleneck: advice.bottleneck.name(),
            verdict,
            lanes: advice.lanes,
            chunk_bytes: advice.chunk_bytes,
            reader: advice.reader.to_string(),
            bytes_per_second: path.rate.map(|rate| rate.mean),
            low: path.rate.map(|rate| rate.low),
            high: path.rate.map(|rate| rate.high),
            compared: path.is_compared,
            more_lanes_unmeasured: path.more_lanes_unmeasured,
            requests: path.requests,
            videos: path.videos,
            bytes_sent: path.bytes_sent,
            elapsed_ms: millis(path.elapsed),
            round_trip_ms: path.round_trip.as_secs_f64() * 1000.0,
            fixed_ms: path.chunk.map(|chunk| chunk.fixed_seconds * 1000.0),
            uploads_per_minute: path.uploads_per_minute,
            left_behind: &path.swept.left,
            rungs: &path.rungs,
            ceilings,
        }
    }
}
