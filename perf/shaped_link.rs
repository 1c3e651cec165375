//! A link that all connections of a proxy share: its rate, its queue, its losses, its rivals, and its changes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::proxy::Line;

/// The properties of a link. Rates are in MiB per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkShape {
    pub(crate) round_trip_ms: u64,
    /// The rate of each connection.
    pub(crate) each_mib: f64,
    /// The rate of all connections together.
    pub(crate) all_mib: f64,
    /// The queue in front of the link, in milliseconds of its rate. Connections run ahead by this much.
    pub(crate) queue_ms: u64,
    /// The mean of the bytes between two stalls of a connection, in MiB; 0 for no stalls.
    pub(crate) stall_mib: f64,
    /// The connections of others, which take fair shares.
    pub(crate) rivals: u32,
    /// The time after which both rates are multiplied by `step_factor`; 0 for never.
    pub(crate) step_after_ms: u64,
    pub(crate) step_factor: f64,
    /// Determines the times of the stalls, so that they differ from one run to the next.
    #[serde(default)]
    pub(crate) seed: u64,
}

impl LinkShape {
    /// A link without queue, stalls, rivals and changes.
    pub(crate) const fn plain(round_trip_ms: u64, each_mib: f64, all_mib: f64) -> LinkShape {
        LinkShape {
            round_trip_ms,
            each_mib,
            all_mib,
            queue_ms: 20,
            stall_mib: 0.0,
            rivals: 0,
            step_after_ms: 0,
            step_factor: 1.0,
            seed: 0,
        }
    }

    /// Returns the properties of each connection.
    pub(crate) fn line(&self) -> Line {
        Line { round_trip: Duration::from_millis(self.round_trip_ms), bytes_per_second: self.each_mib * MIB }
    }

    /// Returns the link as it is after its change.
    pub(crate) fn settled(self) -> LinkShape {
        let (each_mib, all_mib) = (self.each_mib * self.step_factor, self.all_mib * self.step_factor);
        LinkShape { each_mib, all_mib, step_after_ms: 0, step_factor: 1.0, ..self }
    }
}

/// The link of one proxy.
pub(crate) struct SharedLink {
    shape: LinkShape,
    state: Mutex<LinkState>,
}

struct LinkState {
    /// The time at which the link has sent everything that it has taken.
    free: Instant,
    /// The first large amount of bytes, from which the change is timed.
    began: Option<Instant>,
    connections: u64,
    /// The connections that have sent lately.
    active: HashMap<u64, Instant>,
}

/// One connection on the link.
pub(crate) struct SharedLane<'a> {
    link: &'a SharedLink,
    number: u64,
    random: fastrand::Rng,
    bytes_to_stall: f64,
    sent: u64,
}

/// The passage of a block.
pub(crate) struct Passage {
    /// The time at which the block leaves the link.
    pub(crate) through: Instant,
    /// The time from which the connection may send its next block.
    pub(crate) next: Instant,
}

impl SharedLink {
    pub(crate) fn new(shape: LinkShape) -> SharedLink {
        let state = LinkState { free: Instant::now(), began: None, connections: 0, active: HashMap::new() };
        SharedLink { shape, state: Mutex::new(state) }
    }

    /// Returns the bytes that a connection reads at once: a hundredth of a second, so that slow links flow evenly.
    pub(crate) fn block_bytes(&self) -> usize {
        self.bytes_in(BLOCK_TIME).clamp(LEAST_BLOCK_BYTES, MOST_BLOCK_BYTES)
    }

    /// Returns the receive buffer of a connection. The peer's TCP counts its bytes as acknowledged before they have
    /// passed the link, so the buffer only bridges the time until the proxy's thread reads again. The queue of the link
    /// itself is `LinkShape::queue_ms`, which all connections share.
    pub(crate) fn window_bytes(&self) -> usize {
        self.bytes_in(BUFFER_TIME).max(2 * self.block_bytes())
    }

    fn bytes_in(&self, time: Duration) -> usize {
        let rate = self.shape.each_mib.min(self.shape.all_mib) * MIB;
        (rate * time.as_secs_f64()) as usize
    }

    /// Adds a connection.
    pub(crate) fn join(&self) -> SharedLane<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connections += 1;
        let number = state.connections;
        let mut lane = SharedLane {
            link: self,
            number,
            random: fastrand::Rng::with_seed(self.shape.seed << 32 | number),
            bytes_to_stall: 0.0,
            sent: 0,
        };
        lane.draw_stall();
        lane
    }
}

impl SharedLane<'_> {
    /// Returns the factor of the rates at this moment.
    pub(crate) fn factor(&self, now: Instant) -> f64 {
        let shape = &self.link.shape;
        let state = self.link.state.lock().unwrap_or_else(PoisonError::into_inner);
        let age = state.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let has_changed = shape.step_after_ms > 0 && age >= Duration::from_millis(shape.step_after_ms);
        if has_changed { shape.step_factor } else { 1.0 }
    }

    /// Sends a block over the link.
    pub(crate) fn pass(&mut self, len: usize, now: Instant) -> Passage {
        let factor = self.factor(now);
        let shape = &self.link.shape;
        self.sent += len as u64;
        let mut state = self.link.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Requests without a chunk do not begin a measurement.
        if self.sent > 1 << 20 {
            state.began.get_or_insert(now);
        }
        state.active.insert(self.number, now);
        state.active.retain(|_, last| now.saturating_duration_since(*last) < RECENT);
        let own = state.active.len() as f64;
        let share = own / (own + f64::from(shape.rivals));
        let taken = Duration::from_secs_f64(len as f64 / (shape.all_mib * MIB * factor * share));
        state.free = state.free.max(now - LATENESS) + taken;
        let through = state.free;
        drop(state);
        let mut next = through.checked_sub(Duration::from_millis(shape.queue_ms)).unwrap_or(through);
        self.bytes_to_stall -= len as f64;
        if shape.stall_mib > 0.0 && self.bytes_to_stall <= 0.0 {
            next = next.max(now) + STALL;
            self.draw_stall();
        }
        Passage { through, next }
    }

    /// Draws the bytes until the next stall, exponentially distributed.
    fn draw_stall(&mut self) {
        self.bytes_to_stall = -self.link.shape.stall_mib * MIB * (1.0 - self.random.f64()).ln();
    }
}

const MIB: f64 = (1 << 20) as f64;
const LATENESS: Duration = Duration::from_millis(20);
const BLOCK_TIME: Duration = Duration::from_millis(10);
const LEAST_BLOCK_BYTES: usize = 4 << 10;
const MOST_BLOCK_BYTES: usize = 64 << 10;
/// A busy machine wakes a thread this late.
const BUFFER_TIME: Duration = Duration::from_millis(20);
/// A connection without a block for this long takes no share.
const RECENT: Duration = Duration::from_millis(300);
/// A retransmission timeout on a link of ordinary delay.
const STALL: Duration = Duration::from_millis(250);
