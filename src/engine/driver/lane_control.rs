//! The control of the number of lanes in use: samples for the controller, and its decisions.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::Driver;
use crate::engine::counters::LaneNumbers;
use crate::pacing::{LaneController, LaneHold, LaneReason, LaneSample};

impl Driver {
    /// Takes a sample of the lanes if one is due, and adapts the number in use.
    pub(super) fn control_lanes(&mut self, now: Instant) {
        if self.lane_limit.controller.is_none() || self.transfers.is_empty() {
            return;
        }
        if self.throttled_until.is_some() {
            self.lane_limit.budget_until = Some(now + BUDGET_TIME);
        }
        if now < self.lane_limit.sample_at {
            return;
        }
        self.lane_limit.sample_at = now + SAMPLE_INTERVAL;
        let sample = self.lane_sample(now);
        let Some(controller) = &mut self.lane_limit.controller else { return };
        let before = self.lane_limit.lanes;
        self.lane_limit.lanes = controller.observe(sample, now);
        self.counters.set_lane_limit(self.lane_limit.lanes, controller.hold());
        if self.lane_limit.lanes != before {
            log_change(before, controller);
        }
    }

    fn lane_sample(&self, now: Instant) -> LaneSample {
        let lanes = self.counters.count_sockets();
        let waiting = self.transfers.values().filter(|transfer| transfer.wants_lane());
        let waiting: usize = waiting.map(|transfer| transfer.session.chunks().waiting()).sum();
        let wanted = self.permits.len() + waiting;
        LaneSample {
            acked_bytes: lanes.counts.acked_bytes,
            // The driver's own count: a lane is busy from the moment when it gets a chunk.
            busy: self.permits.len(),
            connecting: lanes.connecting,
            sending: lanes.sending,
            wanted,
            segments: lanes.counts.segments,
            retransmitted: lanes.counts.retransmitted,
            refused: self.lane_limit.refused,
            unconnected: self.lane_limit.unconnected,
            round_trip: lanes.counts.round_trip,
            most_lanes: self.most_lanes(),
            limit: self.binding_limit(&lanes, wanted, now),
        }
    }

    /// Returns the limit that binds whatever the number of lanes.
    fn binding_limit(&self, lanes: &LaneNumbers, wanted: usize, now: Instant) -> Option<LaneHold> {
        if self.lane_limit.budget_until.is_some_and(|until| now < until) {
            return Some(LaneHold::Budget);
        }
        // Where the limit binds, most connections wait for it most of the time. The rate does not show that: other clients
        // of the program may share the limit.
        if lanes.limited > 0 && 2 * lanes.limited >= lanes.sending {
            return Some(LaneHold::Bandwidth);
        }
        let memory = self.counters.memory();
        // Nearly: the next chunk has to fit into what is left.
        let is_full = memory.used_bytes() > 0 && memory.used_bytes() >= memory.bytes() / 4 * 3;
        (is_full && wanted < self.lane_limit.lanes).then_some(LaneHold::Memory)
    }

    /// Returns the most lanes that other settings allow: more would share the bandwidth limit so finely that each is
    /// slower than the minimum speed.
    fn most_lanes(&self) -> usize {
        let limit = self.settings.bandwidth.limit().map(NonZeroU64::get);
        // A minimum of 0 limits nothing, and must not be a divisor.
        let minimum = self.settings.patience.min_speed.map(|speed| speed.bytes_per_s.max(1));
        let most = limit.zip(minimum).map(|(limit, minimum)| limit / minimum);
        most.map_or(self.settings.lanes, |most| self.settings.lanes.min(most.max(1) as usize))
    }
}

/// Logs a change of the number in use. Trials come in pairs with their ends and are details.
fn log_change(before: usize, controller: &LaneController) {
    let (lanes, reason) = (controller.lanes(), controller.reason());
    match reason {
        LaneReason::Trial => tracing::debug!("{lanes} connections after {before}: {reason}"),
        _ => tracing::info!("{lanes} connections after {before}: {reason}"),
    }
}

const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// A budget that binds delays some requests, and others not.
const BUDGET_TIME: Duration = Duration::from_secs(2);
