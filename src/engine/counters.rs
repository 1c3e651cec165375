//! The counters of an engine, which the driver and the workers write and any thread reads.
//!
//! The driver locks the counters a few times for each request. The lanes count bytes in their gauges, without this
//! lock.

use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::progress::{Gauge, LanePhase};
use crate::engine::settings::Settings;
use crate::engine::snapshot::{
    Budget, ByClass, ByteCounts, LaneCounts, RequestCounts, Snapshot, UploadCounts,
};
use crate::error::{Error, ErrorKind};
use crate::journal::JournalError;
use crate::pacing::{BudgetReading, Class, LaneHold};
use crate::source::MemoryBudget;
use crate::transport::{Bandwidth, SocketCounts};

/// The counters of one engine.
#[derive(Debug)]
pub(crate) struct Counters {
    state: Mutex<CounterState>,
    memory: MemoryBudget,
    bandwidth: Bandwidth,
    lanes: u64,
}

#[derive(Debug, Default)]
struct CounterState {
    acknowledged_bytes: u64,
    resent_bytes: u64,
    retries: u64,
    journal_errors: u64,
    uploads: UploadCounts,
    classes: [ClassCounters; 3],
    /// The gauges of all lanes, with those of replaced workers, whose bytes stay counted.
    gauges: Vec<Gauge>,
    /// The number of gauges of replaced workers, at the front.
    replaced: usize,
    /// The lanes in use, and the reason why their number is kept.
    permitted: u64,
    hold: Option<LaneHold>,
}

/// The sums of the lanes at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneNumbers {
    /// The counts of all connections. The round trip is the shortest one.
    pub(crate) counts: SocketCounts,
    pub(crate) connecting: usize,
    /// Lanes with bytes to send or on the way, and lanes that wait for the bandwidth limit.
    pub(crate) sending: usize,
    pub(crate) limited: usize,
}

#[derive(Debug, Default)]
struct ClassCounters {
    requests: RequestCounts,
    budget: Option<BudgetReading>,
    throttle: ThrottleClock,
}

/// Measures the time in which at least one request waits.
#[derive(Debug, Default)]
struct ThrottleClock {
    waiting: u32,
    since: Option<Instant>,
    total: Duration,
}

impl ThrottleClock {
    fn set_waiting(&mut self, waiting: u32, now: Instant) {
        self.waiting = waiting;
        match (waiting, self.since) {
            (0, Some(since)) => {
                self.total += now.saturating_duration_since(since);
                self.since = None;
            }
            (1.., None) => self.since = Some(now),
            _ => {}
        }
    }

    fn seconds(&self, now: Instant) -> f64 {
        let current = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (self.total + current).as_secs_f64()
    }
}

/// The end of an upload, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedEnd {
    Done,
    Cancelled,
    Failed {
        /// `true` if the journal did not take a record of the upload.
        by_journal: bool,
    },
}

impl CountedEnd {
    pub(crate) fn of<T>(result: &Result<T, Error>) -> CountedEnd {
        result.as_ref().map_or_else(CountedEnd::of_error, |_| CountedEnd::Done)
    }

    pub(crate) fn of_error(error: &Error) -> CountedEnd {
        match error.kind() {
            ErrorKind::Cancelled => CountedEnd::Cancelled,
            // An upload that another process has claimed is busy, too, and no failure of the journal.
            ErrorKind::Busy => CountedEnd::Failed { by_journal: is_of_locked_journal(error) },
            kind => CountedEnd::Failed { by_journal: kind == ErrorKind::Journal },
        }
    }
}

fn is_of_locked_journal(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<JournalError>());
    matches!(cause, Some(JournalError::Locked { .. }))
}

impl Counters {
    pub(crate) fn new(settings: &Settings) -> Arc<Counters> {
        let state = CounterState { permitted: settings.first_lanes() as u64, ..CounterState::default() };
        Arc::new(Counters {
            state: Mutex::new(state),
            memory: MemoryBudget::new(settings.buffer_bytes),
            bandwidth: settings.bandwidth.clone(),
            lanes: settings.lanes as u64,
        })
    }

    /// Returns the memory for chunks of streams.
    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Counts the end of a request by the status of its answer; `None` without an answer.
    pub(crate) fn request_ended(&self, class: Class, status: Option<u16>) {
        self.state().classes[class as usize].requests.count(status);
    }

    pub(crate) fn set_budget(&self, class: Class, budget: Option<BudgetReading>) {
        self.state().classes[class as usize].budget = budget;
    }

    /// Counts a chunk that the service acknowledged.
    pub(crate) fn acknowledged(&self, bytes: u64) {
        self.state().acknowledged_bytes += bytes;
    }

    pub(crate) fn repeated(&self, retries: u64, bytes: u64) {
        let mut state = self.state();
        state.retries += retries;
        state.resent_bytes += bytes;
    }

    pub(crate) fn journal_failed(&self) {
        self.state().journal_errors += 1;
    }

    /// Records that chunks wait for the pacer, or no longer do.
    pub(crate) fn set_chunks_throttled(&self, is_throttled: bool) {
        let mut state = self.state();
        let throttle = &mut state.classes[Class::Uploads as usize].throttle;
        // The clock is read under the lock here and in `snapshot`, so that no reading is ahead of a later one.
        throttle.set_waiting(u32::from(is_throttled), Instant::now());
    }

    /// Counts a call that waits for the pacer until the guard is dropped.
    pub(crate) fn throttle_call(self: &Arc<Counters>, class: Class) -> ThrottledCall {
        let mut state = self.state();
        let throttle = &mut state.classes[class as usize].throttle;
        throttle.set_waiting(throttle.waiting + 1, Instant::now());
        ThrottledCall { counters: self.clone(), class }
    }

    /// Returns `true` if a call of the class waits for the pacer.
    pub(crate) fn is_call_throttled(&self, class: Class) -> bool {
        self.state().classes[class as usize].throttle.waiting > 0
    }

    /// Counts an upload that enters the queue.
    pub(crate) fn queued(&self) {
        self.state().uploads.queued += 1;
    }

    /// Counts an upload that leaves the queue and begins.
    pub(crate) fn begun(&self) {
        let uploads = &mut self.state().uploads;
        uploads.queued = uploads.queued.saturating_sub(1);
        uploads.running += 1;
    }

    /// Counts an upload that returns to the queue to begin anew.
    pub(crate) fn requeued(&self) {
        let uploads = &mut self.state().uploads;
        uploads.running = uploads.running.saturating_sub(1);
        uploads.queued += 1;
    }

    /// Counts the end of an upload. Called before the reply to the caller, who may read a snapshot at once.
    pub(crate) fn ended(&self, end: CountedEnd) {
        let mut state = self.state();
        state.uploads.running = state.uploads.running.saturating_sub(1);
        match end {
            CountedEnd::Done => state.uploads.done += 1,
            CountedEnd::Cancelled => state.uploads.cancelled += 1,
            CountedEnd::Failed { by_journal } => {
                state.uploads.failed += 1;
                // Counted here: `journal_failed` counts the failures that an upload survives.
                state.journal_errors += u64::from(by_journal);
            }
        }
    }

    /// Replaces the gauges of the lanes by those of new workers.
    pub(crate) fn replace_lanes(&self, gauges: impl IntoIterator<Item = Gauge>) {
        let mut state = self.state();
        state.replaced = state.gauges.len();
        state.gauges.extend(gauges);
    }

    /// Sets the number of lanes in use, and the reason why it is kept.
    pub(crate) fn set_lane_limit(&self, lanes: usize, hold: Option<LaneHold>) {
        let mut state = self.state();
        (state.permitted, state.hold) = (lanes as u64, hold);
    }

    /// Returns the sums of the connections. Costs a system call for each: ten times a second are few, one for each request
    /// would be many.
    pub(crate) fn count_sockets(&self) -> LaneNumbers {
        let state = self.state();
        let mut numbers = LaneNumbers::default();
        for (index, gauge) in state.gauges.iter().enumerate() {
            let counts = gauge.socket_counts();
            // With the lanes of replaced workers, so that the sums never decrease.
            numbers.counts.acked_bytes += counts.acked_bytes;
            numbers.counts.segments += counts.segments;
            numbers.counts.retransmitted += counts.retransmitted;
            if index < state.replaced {
                continue;
            }
            let shortest = &mut numbers.counts.round_trip;
            // A connection without a measurement yet has a round trip of zero.
            if !counts.round_trip.is_zero() && (shortest.is_zero() || counts.round_trip < *shortest) {
                *shortest = counts.round_trip;
            }
            match gauge.phase() {
                LanePhase::Connecting => numbers.connecting += 1,
                LanePhase::Sending => {
                    numbers.sending += usize::from(counts.is_in_flight || gauge.has_unsent());
                    numbers.limited += usize::from(gauge.is_limited());
                }
                LanePhase::Idle => {}
            }
        }
        numbers
    }

    /// Returns one consistent reading of all counters.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let now = Instant::now();
        let mut bytes = ByteCounts {
            acknowledged: state.acknowledged_bytes,
            resent: state.resent_bytes,
            ..ByteCounts::default()
        };
        let mut send_queue_bytes = 0;
        // Under the lock: a chunk that is counted as acknowledged is in a gauge already.
        for gauge in &state.gauges {
            let (read, sent) = gauge.lifetime_bytes();
            bytes.read += read;
            bytes.sent += sent;
            // After the sent bytes: a queue that has just taken more is never missing from their difference.
            send_queue_bytes += gauge.queued_bytes();
        }
        Snapshot {
            bytes,
            requests: state.by_class(|class| class.requests),
            retries: state.retries,
            throttled_seconds: state.by_class(|class| class.throttle.seconds(now)),
            lanes: self.count_lanes(&state),
            send_queue_bytes,
            lane_hold: state.hold,
            budgets: state.by_class(|class| class.budget.map(|reading| budget_at(reading, now))),
            buffer_bytes: self.memory.used_bytes(),
            buffer_limit_bytes: self.memory.bytes(),
            uploads: state.uploads,
            journal_errors: state.journal_errors,
            bandwidth_limit_bytes: self.bandwidth.limit().map(|limit| limit.get()),
        }
    }

    fn count_lanes(&self, state: &CounterState) -> LaneCounts {
        let mut counts = LaneCounts { permitted: state.permitted, ..LaneCounts::default() };
        for gauge in &state.gauges[state.replaced..] {
            match gauge.phase() {
                LanePhase::Connecting => counts.connecting += 1,
                LanePhase::Sending => {
                    counts.busy += 1;
                    counts.answering += u64::from(gauge.is_answering());
                }
                LanePhase::Idle => {}
            }
        }
        // Lanes without a worker yet are idle too.
        counts.idle = self.lanes.saturating_sub(counts.busy + counts.connecting);
        counts
    }

    fn state(&self) -> MutexGuard<'_, CounterState> {
        // The numbers are single sums: a panic under the lock leaves none of them incomplete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CounterState {
    fn by_class<T>(&self, value: impl Fn(&ClassCounters) -> T) -> ByClass<T> {
        let [uploads, writes, reads] = &self.classes;
        ByClass { uploads: value(uploads), writes: value(writes), reads: value(reads) }
    }
}

/// A call that waits for the pacer.
#[derive(Debug)]
pub(crate) struct ThrottledCall {
    counters: Arc<Counters>,
    class: Class,
}

impl Drop for ThrottledCall {
    fn drop(&mut self) {
        let mut state = self.counters.state();
        let throttle = &mut state.classes[self.class as usize].throttle;
        throttle.set_waiting(throttle.waiting.saturating_sub(1), Instant::now());
    }
}

/// Returns a budget as of `now`. The driver sleeps while there is no upload, so its reading may be of an earlier
/// window.
fn budget_at(reading: BudgetReading, now: Instant) -> Budget {
    let left = if reading.resets <= now { reading.per_minute } else { reading.left };
    let resets_in = reading.resets.saturating_duration_since(now);
    Budget { limit: reading.per_minute, left, resets_in_seconds: resets_in.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_several_calls_wait_counts_once() {
        let (start, mut clock) = (Instant::now(), ThrottleClock::default());
        clock.set_waiting(1, start);
        clock.set_waiting(2, start + SECOND);
        assert_eq!(clock.seconds(start + 2 * SECOND), 2.0);
        clock.set_waiting(1, start + 2 * SECOND);
        clock.set_waiting(0, start + 3 * SECOND);
        clock.set_waiting(0, start + 4 * SECOND);
        assert_eq!(clock.seconds(start + 9 * SECOND), 3.0);
    }

    #[test]
    fn a_budget_is_whole_again_once_its_window_is_over() {
        let now = Instant::now();
        let reading = BudgetReading { per_minute: 40, left: 3, resets: now + SECOND };
        assert_eq!(budget_at(reading, now).left, 3);
        assert_eq!(budget_at(reading, now + SECOND).left, 40);
    }

    #[test]
    fn requests_are_counted_by_status() {
        let counters = Counters::new(&Settings::default());
        for status in [Some(201), Some(429), Some(404), Some(503), None] {
            counters.request_ended(Class::Writes, status);
        }
        let counted = counters.snapshot().requests;
        let one_each = RequestCounts { ok: 1, throttled: 1, client_error: 1, server_error: 1, transport: 1 };
        assert_eq!((counted.writes, counted.uploads.total()), (one_each, 0));
    }

    #[test]
    fn an_upload_that_a_locked_journal_ends_is_a_failure_of_the_journal() {
        let counters = Counters::new(&Settings::default());
        let locked = JournalError::Locked { path: "j".into() };
        let claimed = JournalError::Claimed { path: "j".into(), pid: None };
        for error in [locked, claimed] {
            counters.ended(CountedEnd::of_error(&error.into()));
        }
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.journal_errors, snapshot.uploads.failed), (1, 2));
    }
}
