//! The number of lanes in use, and the inputs of its choice.

use std::time::Instant;

use crate::engine::settings::{LaneControl, Settings};
use crate::engine::worker::ChunkResult;
use crate::error::ErrorKind;
use crate::pacing::LaneController;
use crate::session::Outcome;

/// The number of lanes in use, and the inputs of its choice.
#[derive(Debug)]
pub(super) struct LaneLimit {
    /// The number of lanes that may have a request.
    pub(super) lanes: usize,
    /// `None` if the number is fixed.
    pub(super) controller: Option<LaneController>,
    /// The time of the next sample.
    pub(super) sample_at: Instant,
    /// The time until which the request budget counts as binding.
    pub(super) budget_until: Option<Instant>,
    /// Answers so far that ask for less.
    pub(super) refused: u64,
    /// Connections so far that could not be opened.
    pub(super) unconnected: u64,
}

impl LaneLimit {
    pub(super) fn new(settings: &Settings, now: Instant) -> LaneLimit {
        let lanes = settings.first_lanes();
        let controller = match settings.lane_control {
            LaneControl::Fixed => None,
            LaneControl::Automatic => Some(LaneController::new(lanes, settings.lanes)),
        };
        LaneLimit { lanes, controller, sample_at: now, budget_until: None, refused: 0, unconnected: 0 }
    }

    /// Counts the result of a request.
    pub(super) fn count(&mut self, done: &ChunkResult) {
        match &done.outcome {
            // Both ask for fewer requests (RFC 6585, section 4; RFC 9110, section 15.6.4).
            _ if matches!(done.status, Some(429 | 503)) => self.refused += 1,
            Outcome::Failed { error, .. } if error.kind() == ErrorKind::Connect => self.unconnected += 1,
            _ => {}
        }
    }
}
