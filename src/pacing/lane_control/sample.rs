//! The inputs and outputs of the control of lanes.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The numbers of all lanes at one moment. Counts since the start never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneSample {
    /// Bytes that the peers of all connections have acknowledged so far.
    pub(crate) acked_bytes: u64,
    /// Lanes with a request.
    pub(crate) busy: usize,
    /// Those of `busy` that are connecting.
    pub(crate) connecting: usize,
    /// Those of `busy` with bytes to send or on the way. The others wait for an answer.
    pub(crate) sending: usize,
    /// Lanes that the uploads could use now: `busy` and the chunks that wait for a lane.
    pub(crate) wanted: usize,
    /// TCP segments with data sent so far, and those of them that were sent again.
    pub(crate) segments: u64,
    pub(crate) retransmitted: u64,
    /// Answers so far that ask for less: 429 and 503.
    pub(crate) refused: u64,
    /// Connections that could not be opened so far.
    pub(crate) unconnected: u64,
    /// The shortest round trip of the connections.
    pub(crate) round_trip: Duration,
    /// The most lanes that other settings allow now, at least 1.
    pub(crate) most_lanes: usize,
    /// The limit that binds now, whatever the number of lanes.
    pub(crate) limit: Option<LaneHold>,
}

/// The reason why the number of lanes in use does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LaneHold {
    /// Chunks wait for the request budget of the service or of the settings.
    Budget,
    /// The bandwidth limit is reached.
    Bandwidth,
    /// The memory for chunks of streams is used up.
    Memory,
    /// There are fewer chunks to send than lanes to compare.
    Work,
    /// The service asked for less, or connections lose many packets: more lanes are tried again later.
    Brake,
}

impl LaneHold {
    /// Returns the stable name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            LaneHold::Budget => "budget",
            LaneHold::Bandwidth => "bandwidth",
            LaneHold::Memory => "memory",
            LaneHold::Work => "work",
            LaneHold::Brake => "brake",
        }
    }
}

impl fmt::Display for LaneHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LaneHold::Budget => "the request budget binds",
            LaneHold::Bandwidth => "the bandwidth limit binds",
            LaneHold::Memory => "the memory for streams is used up",
            LaneHold::Work => "there are too few chunks to compare",
            LaneHold::Brake => "the service or the network asked for less",
        })
    }
}

/// The reason of a change of the number of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneReason {
    /// Another number is measured.
    Trial,
    /// The number was chosen by a comparison.
    Chosen,
    /// A limit binds, so that a measurement ended early.
    Held,
    /// The service or the network asked for less.
    Brake,
    /// Other settings allow fewer lanes.
    Bound,
}

impl fmt::Display for LaneReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LaneReason::Trial => "trying another number",
            LaneReason::Chosen => "the smallest number that is fast enough",
            LaneReason::Held => "a limit binds, so that a measurement ended",
            LaneReason::Brake => "the service or the network asked for less",
            LaneReason::Bound => "other settings allow no more",
        })
    }
}
