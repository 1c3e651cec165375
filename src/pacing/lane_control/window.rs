//! The rate of a number of lanes over a window of samples. Pure.

use std::time::Duration;

use super::sample::LaneSample;

/// A rate in bytes per second with the half width of its 95 % confidence interval, relative to the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LaneRate {
    pub(super) mean: f64,
    pub(super) error: f64,
    /// The share of the segments that were sent again, in the later half of the window.
    pub(super) loss: f64,
    /// The length of the window.
    pub(super) seconds: f64,
}

impl LaneRate {
    /// Returns `true` if the window shows clear differences only.
    pub(super) fn is_short(&self) -> bool {
        self.seconds < RELIABLE_SECONDS
    }
}

/// The samples since the lanes have settled.
#[derive(Clone, Debug)]
pub(super) struct LaneWindow {
    steps: Vec<WindowStep>,
    /// The number of steps in which connections were still finding their speed.
    early: usize,
    gaps: GapShare,
    added_share: f64,
}

/// The time between the chunks of a lane, as lane seconds for each byte: the answer, and the next head.
#[derive(Clone, Copy, Debug, Default)]
struct GapShare {
    seconds: f64,
    bytes: f64,
}

/// The difference of two neighbouring samples.
#[derive(Clone, Copy, Debug)]
struct WindowStep {
    seconds: f64,
    bytes: f64,
    /// Lane seconds with bytes to send or on the way, and those of all lanes in force.
    sending: f64,
    permitted: f64,
    /// Seconds in which no lane did.
    idle: f64,
    segments: f64,
    retransmitted: f64,
}

impl Default for LaneWindow {
    fn default() -> LaneWindow {
        LaneWindow { steps: Vec::new(), early: 0, gaps: GapShare::default(), added_share: 1.0 }
    }
}

impl LaneWindow {
    /// Sets the share of a lane's rate that a further lane adds: 1 if each is as fast as alone, 0 if all share a link.
    pub(super) fn set_added_share(&mut self, added_share: f64) {
        self.added_share = added_share;
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.early = 0;
    }

    /// Leaves the steps so far out of the rate. Those are only for [`LaneWindow::recent_rate`].
    pub(super) fn begin(&mut self) {
        self.early = self.steps.len();
    }

    /// Adds the time between two samples, in which `lanes` were in force.
    pub(super) fn push(&mut self, before: &LaneSample, now: &LaneSample, elapsed: Duration, lanes: usize) {
        let seconds = elapsed.as_secs_f64();
        // A minute's memory: files of another size have other chunks.
        let fading = (-seconds / GAP_MEMORY_SECONDS).exp();
        let delta = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let bytes = delta(now.acked_bytes, before.acked_bytes);
        let sending = (before.sending + now.sending) as f64 / 2.0;
        let idle = (1.0 - sending).max(0.0) * seconds;
        let (sending, permitted) = (sending.min(lanes as f64) * seconds, lanes as f64 * seconds);
        self.gaps.seconds = fading * self.gaps.seconds + permitted - sending;
        self.gaps.bytes = fading * self.gaps.bytes + bytes;
        self.steps.push(WindowStep {
            seconds,
            bytes,
            sending,
            permitted,
            idle,
            segments: delta(now.segments, before.segments),
            retransmitted: delta(now.retransmitted, before.retransmitted),
        });
    }

    /// Returns the time of the window in seconds.
    pub(super) fn seconds(&self) -> f64 {
        sum(&self.steps, |step| step.seconds)
    }

    /// Returns the rate since the window began; `None` below four batches.
    ///
    /// A window shorter than the time of a chunk may contain no end of a request, or several at once, and each costs a
    /// round trip without bytes. The rate is therefore that of the sending lanes, with the usual time between chunks.
    /// Where all lanes share a link, the others have sent the bytes of those that waited.
    pub(super) fn rate(&self) -> Option<LaneRate> {
        let steps = &self.steps[self.early..];
        let (seconds, bytes) = (sum(steps, |step| step.seconds), sum(steps, |step| step.bytes));
        let errors = BATCH_SECONDS.map(|batch| error(steps, batch));
        // Neighbouring moments depend on each other, so the longer batches may vary more than chance explains.
        let error = errors.into_iter().flatten().reduce(f64::max)?;
        let correction = self.correction(steps, seconds, bytes);
        // The slow start of new connections overshoots once, which says nothing about their number.
        let later = &steps[steps.len() / 2..];
        let loss = sum(later, |step| step.retransmitted) / sum(later, |step| step.segments).max(1.0);
        Some(LaneRate { mean: bytes / seconds * correction, error, loss, seconds })
    }

    /// Returns the factor between the rate of a window and that of one with the usual time between chunks.
    fn correction(&self, steps: &[WindowStep], seconds: f64, bytes: f64) -> f64 {
        let gaps = bytes * self.gaps.seconds / self.gaps.bytes.max(1.0);
        let (permitted, used) = (sum(steps, |step| step.permitted), sum(steps, |step| step.sending) + gaps);
        let of_lanes = bounded(permitted / used.max(1e-9));
        // A link that lanes share is idle only while all of them wait.
        let usual_idle = (gaps / used.max(1e-9)).powf(permitted / seconds);
        let of_link =
            bounded((1.0 - usual_idle) * seconds / (seconds - sum(steps, |step| step.idle)).max(1e-9));
        // While many lanes wait together, a proxy often sends what it holds, and the link is not idle.
        let idle_share = (FEW_LANES * seconds / permitted.max(1e-9)).min(1.0);
        of_lanes.powf(self.added_share) * of_link.powf((1.0 - self.added_share) * idle_share)
    }

    /// Returns the rate of the last `seconds` of the window; `None` while it is shorter.
    pub(super) fn recent_rate(&self, seconds: f64) -> Option<LaneRate> {
        let mut window = LaneWindow { steps: Vec::new(), early: 0, ..*self };
        for step in self.steps.iter().rev() {
            window.steps.push(*step);
            if window.seconds() >= seconds - ROUNDING {
                return window.rate();
            }
        }
        None
    }
}

fn sum(steps: &[WindowStep], value: fn(&WindowStep) -> f64) -> f64 {
    steps.iter().map(value).sum()
}

/// Without a bound, one lane that sends beside many that wait would count as all of them.
fn bounded(correction: f64) -> f64 {
    correction.clamp(1.0 / MOST_CORRECTION, MOST_CORRECTION)
}

/// Returns the relative error of the mean by batches of this many seconds; `None` for fewer than four.
fn error(steps: &[WindowStep], batch_seconds: f64) -> Option<f64> {
    let (mut means, mut seconds, mut bytes) = (Vec::new(), 0.0, 0.0);
    for step in steps {
        seconds += step.seconds;
        bytes += step.bytes;
        if seconds >= batch_seconds - ROUNDING {
            means.push(bytes / seconds);
            (seconds, bytes) = (0.0, 0.0);
        }
    }
    if means.len() < FEWEST_BATCHES {
        return None;
    }
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // The 97.5 % quantile of Student's t distribution, within 0.1 from three degrees of freedom on.
    let quantile = 1.96 + 3.6 / (count - 1.0);
    Some(if mean > 0.0 { quantile * (variance / count).sqrt() / mean } else { 1.0 })
}

/// From one sample of the driver on.
const BATCH_SECONDS: [f64; 4] = [0.1, 0.2, 0.4, 0.8];
/// A sum of tenths may fall short of a second.
const ROUNDING: f64 = 1e-6;
const RELIABLE_SECONDS: f64 = 0.9;
const FEWEST_BATCHES: usize = 4;
const MOST_CORRECTION: f64 = 2.0;
const FEW_LANES: f64 = 4.0;
const GAP_MEMORY_SECONDS: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_that_wait_on_a_shared_link_leave_their_share_to_the_others() {
        let mut window = LaneWindow::default();
        let push = |sending: usize, ticks: u64, window: &mut LaneWindow| {
            for _ in 0..ticks {
                let begun = LaneSample { busy: 4, sending, ..LaneSample::default() };
                let now = LaneSample { acked_bytes: 100_000, ..begun };
                window.push(&begun, &now, Duration::from_millis(100), 4);
            }
        };
        push(4, 100, &mut window);
        window.clear();
        // Two of four lanes wait for answers, and the link is as full as before.
        push(2, 10, &mut window);
        window.set_added_share(0.0);
        let shared = window.rate().unwrap().mean;
        assert!((0.99e6..1.01e6).contains(&shared), "{shared}");
        window.set_added_share(1.0);
        let alone = window.rate().unwrap().mean;
        assert!(alone > 1.5e6, "{alone}");
    }

    #[test]
    fn a_link_counts_as_idle_only_while_few_lanes_wait_together() {
        let rate = |lanes: usize| {
            let (mut window, mut before) = (LaneWindow::default(), LaneSample::default());
            for tick in 0..60 {
                // A proxy sends what it holds while all lanes wait.
                let sending = if tick % 10 < 2 { 0 } else { lanes };
                before = LaneSample { busy: lanes, sending, acked_bytes: 0, ..before };
                let now = LaneSample { acked_bytes: 100_000, ..before };
                window.push(&before, &now, Duration::from_millis(100), lanes);
            }
            window.set_added_share(0.0);
            window.rate().unwrap().mean
        };
        let (few, many) = (rate(2), rate(32));
        assert!(few > 1.15e6, "{few}");
        assert!((0.99e6..1.05e6).contains(&many), "{many}");
    }
}
