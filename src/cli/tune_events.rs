//! JSON events of `ringlift tune`.

use ringlift::tune::{Ceiling, Rung};
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
    pub(super) endpoint_url: &'a str,
    pub(super) bottleneck: &'static str,
    pub(super) verdict: &'a str,
    pub(super) lanes: u32,
    pub(super) chunk_bytes: u64,
    pub(super) reader: String,
    /// Rate of the recommended lanes; `None` if nothing could be measured.
    pub(super) bytes_per_second: Option<f64>,
    /// Ends of the 95 % interval of the rate.
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    /// `true` if the number of lanes was compared with a neighbour in turn.
    pub(super) compared: bool,
    pub(super) requests: u32,
    pub(super) videos: u32,
    pub(super) bytes_sent: u64,
    pub(super) elapsed_ms: u64,
    pub(super) round_trip_ms: f64,
    /// Time of a request in which its lane sends nothing.
    pub(super) fixed_ms: Option<f64>,
    pub(super) uploads_per_minute: Option<u32>,
    /// Ids of videos that could not be deleted.
    pub(super) left_behind: &'a [String],
    pub(super) rungs: &'a [Rung],
    pub(super) ceilings: &'a [Ceiling],
}
