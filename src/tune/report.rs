//! The measurements of a path as values.

use std::time::Duration;

use serde::Serialize;

use super::bottleneck::PathEvidence;
use super::budget::SpentLimit;
use super::chunk_model::ChunkTiming;
use super::interval::RateInterval;
use super::mark::SweptVideos;
use super::search::RungPurpose;
use crate::error::Error;

/// The rate of a number of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rung {
    /// The number of lanes, all of which were sending.
    pub lanes: u32,
    /// The reason for the measurement.
    pub purpose: RungPurpose,
    /// The rate of all lanes together.
    #[serde(flatten)]
    pub rate: RateInterval,
    /// The length of the measurement.
    #[serde(skip)]
    pub window: Duration,
    /// The share of all processors that this process used, from 0 to 1.
    pub cpu_share: f64,
}

/// An event of a measurement.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PathEvent<'a> {
    /// At most 1000 of these come in a second, so that the caller can stop the measurement.
    Tick,
    /// A number of lanes was measured.
    Measured(&'a Rung),
}

/// The end of a measurement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PathEnd {
    /// The search is complete.
    Complete,
    /// A limit left out steps of the search.
    Spent(SpentLimit),
    /// The service answered 429.
    Throttled,
    /// A request failed.
    Failed(Error),
    /// The caller stopped the measurement.
    Stopped,
}

/// The reason why the effect of more lanes is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnmeasuredLanes {
    /// [`PathLimits::most_lanes`](super::PathLimits::most_lanes) permits no more.
    MostLanes,
    /// [`SpentLimit::Time`].
    Time,
    /// [`SpentLimit::Requests`].
    Requests,
    /// [`SpentLimit::Bytes`].
    Bytes,
    /// The bytes of more lanes were sent too fast to be counted.
    TooFast,
    /// The caller, a 429 or a failure ended the measurement before.
    Ended,
}

impl From<SpentLimit> for UnmeasuredLanes {
    fn from(limit: SpentLimit) -> UnmeasuredLanes {
        match limit {
            SpentLimit::Time => UnmeasuredLanes::Time,
            SpentLimit::Requests => UnmeasuredLanes::Requests,
            SpentLimit::Bytes => UnmeasuredLanes::Bytes,
        }
    }
}

/// The result of a measurement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathReport {
    /// The shortest time of a small request on an open connection.
    pub round_trip: Duration,
    /// The measurements, oldest first.
    pub rungs: Vec<Rung>,
    /// The best number of lanes; 1 if nothing could be measured.
    pub lanes: u32,
    /// The rate of that number; `None` if nothing could be measured.
    pub rate: Option<RateInterval>,
    /// `true` if the number was compared with a neighbour in turn.
    pub is_compared: bool,
    /// The time of a request on one lane; `None` if nothing could be measured.
    pub chunk: Option<ChunkTiming>,
    /// The best chunk size.
    pub chunk_bytes: u64,
    /// The service's limit on upload requests, if it stated one.
    pub uploads_per_minute: Option<u32>,
    /// `true` if the largest number of lanes was faster than the one below by at least half of the proportion.
    pub still_gains: bool,
    /// The reason why the effect of more lanes is unknown; `None` if the rates show it.
    pub more_lanes_unmeasured: Option<UnmeasuredLanes>,
    /// The requests that carried bytes, finished or not.
    pub requests: u32,
    /// The videos that were created.
    pub videos: u32,
    /// The bytes that were sent.
    pub bytes_sent: u64,
    /// The duration, without the deletion of the videos.
    pub elapsed: Duration,
    /// The end of the measurement.
    pub end: PathEnd,
    /// The deletion of the videos.
    pub swept: SweptVideos,
}

impl PathReport {
    /// Returns the path's part of the evidence for the bottleneck.
    pub(super) fn evidence(&self) -> PathEvidence {
        let chosen = self.rungs.iter().rev().find(|rung| rung.lanes == self.lanes);
        PathEvidence {
            rate: self.rate.map(|rate| rate.mean),
            is_throttled: matches!(self.end, PathEnd::Throttled),
            has_failed: matches!(self.end, PathEnd::Failed(_)),
            uploads_per_minute: self.uploads_per_minute,
            cpu_share: chosen.map_or(0.0, |rung| rung.cpu_share),
            answering_share: self.answering_share(),
            still_gains: self.still_gains,
            is_undecided: self.more_lanes_unmeasured.is_some(),
            ..PathEvidence::default()
        }
    }

    /// Returns the share of a request's time that two round trips and the sending do not explain.
    fn answering_share(&self) -> f64 {
        self.chunk.map_or(0.0, |chunk| {
            let answering = (chunk.fixed_seconds - 2.0 * self.round_trip.as_secs_f64()).max(0.0);
            let whole = chunk.fixed_seconds + self.chunk_bytes as f64 / chunk.bytes_per_second.max(1.0);
            answering / whole.max(f64::MIN_POSITIVE)
        })
    }
}
