//! Delivery of an upload's events to the log and to its followers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use crate::engine::counters::Counters;
use crate::engine::size::Size;
use crate::error::ErrorKind;
use crate::pacing::{Class, Delay, ThrottleReason};
use crate::session::event::{FailureSummary, QUEUE, STRAY_VIDEO, UploadEvent};
use crate::session::retry::Fate;

/// The channel to the followers of an upload.
pub(crate) type Followers = broadcast::Sender<UploadEvent>;

/// Creates the queue between an upload and its followers.
pub(crate) fn queue() -> (Followers, broadcast::Receiver<UploadEvent>) {
    broadcast::channel(QUEUE)
}

/// Delivers the events of one file's upload to the log and to its followers.
#[derive(Clone, Debug)]
pub(crate) struct EventSink {
    file: Arc<str>,
    followers: Followers,
    counters: Arc<Counters>,
}

impl EventSink {
    pub(crate) fn new(file: Arc<str>, followers: Followers, counters: Arc<Counters>) -> EventSink {
        EventSink { file, followers, counters }
    }

    /// Logs and counts an event and sends it to the followers.
    pub(crate) fn emit(&self, event: UploadEvent) {
        match &event {
            UploadEvent::ChunkDone { bytes, .. } => self.counters.acknowledged(*bytes),
            // The session counts the retries of chunks.
            UploadEvent::Retry { index: None, .. } => self.counters.repeated(1, 0),
            _ => {}
        }
        self.log(&event);
        self.emit_to_followers(event);
    }

    /// Sends an event that is logged elsewhere to the followers. Without followers the event is dropped.
    pub(crate) fn emit_to_followers(&self, event: UploadEvent) {
        let _ = self.followers.send(event);
    }

    pub(crate) fn into_followers(self) -> Followers {
        self.followers
    }

    fn log(&self, event: &UploadEvent) {
        let file = &self.file;
        match event {
            UploadEvent::Planned { bytes, chunk_bytes, chunks } => {
                let (bytes, chunk_bytes) = (Size(*bytes), Size(*chunk_bytes));
                tracing::info!("{file}: {bytes} in {chunks} requests of at most {chunk_bytes}");
            }
            UploadEvent::Created { video_id } => tracing::debug!("{file}: video {video_id} was created"),
            UploadEvent::Resumed { video_id, chunks, bytes } => {
                tracing::info!(
                    "{file}: resuming an earlier upload: video {video_id} has {chunks} chunks, {bytes} bytes"
                );
            }
            UploadEvent::ChunkDone { index, bytes, attempt, elapsed } => {
                tracing::debug!(bytes, attempt, ?elapsed, "{file}: chunk {} is stored", index + 1);
            }
            UploadEvent::Retry { index, why, delay, fate, .. } => log_retry(file, *index, why, *delay, *fate),
            UploadEvent::Throttled { class, why, delay } => log_throttle(*class, *why, *delay),
            UploadEvent::StatusAsked { video_id, reason } => {
                tracing::info!("{file}: requesting the status of video {video_id}: {reason}");
            }
            UploadEvent::SourceTouched { change } => {
                tracing::warn!(
                    "{file}: {change} while it is being sent: the upload goes on, no byte changed"
                );
            }
            UploadEvent::Proved { chunks, .. } => tracing::warn!(
                "{file}: its times cannot tell whether it changed since an earlier run sent {chunks} chunks: they \
                 were compared with the file by their digests and are equal"
            ),
            UploadEvent::BeginsAnew { why, .. } => tracing::warn!("{file}: beginning anew: {why}"),
            UploadEvent::StrayVideo => tracing::warn!("{file}: {STRAY_VIDEO}"),
            UploadEvent::Missed { .. } => {}
        }
    }
}

/// The delays that were announced, the latest of each reason, so that each pause is announced once.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnnouncedDelay(Vec<AnnouncedPause>);

#[derive(Clone, Copy, Debug)]
struct AnnouncedPause {
    delay: Delay,
    at: Instant,
}

impl AnnouncedPause {
    /// Returns `true` if `held` is the announced pause, perhaps with a later end. Answers that arrive during a pause
    /// move its end by up to a fifth.
    fn includes(&self, held: Delay, now: Instant) -> bool {
        let is_over = self.delay.until <= now;
        let slack = self.delay.until.saturating_duration_since(self.at) / 4;
        self.delay.by == held.by && (!is_over || held.until <= self.delay.until + slack)
    }
}

impl AnnouncedDelay {
    /// Returns `true` if the delay was not announced yet. Limits set by the user and probes of a failing service are
    /// never announced.
    pub(crate) fn is_news(&mut self, held: Delay, now: Instant) -> bool {
        if matches!(held.by, ThrottleReason::Caps | ThrottleReason::Probe)
            || self.0.iter().any(|announced| announced.includes(held, now))
        {
            return false;
        }
        self.0.retain(|announced| announced.delay.by != held.by);
        self.0.push(AnnouncedPause { delay: held, at: now });
        true
    }
}

/// The pauses of requests that wait, by class.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    pub(crate) uploads: Option<Delay>,
    pub(crate) writes: Option<Delay>,
    pub(crate) reads: Option<Delay>,
}

impl Pauses {
    pub(crate) fn of(&self, class: Class) -> Option<Delay> {
        match class {
            Class::Uploads => self.uploads,
            Class::Writes => self.writes,
            Class::Reads => self.reads,
        }
    }
}

/// The log target of events that every follower of an upload receives. A program that shows these events itself can
/// turn the target off.
pub(crate) const FOLLOWED: &str = "ringlift::followed";

/// Logs a retry: expired credentials are normal, every other cause is a warning.
fn log_retry(file: &str, index: Option<u32>, why: &FailureSummary, delay: Duration, fate: Fate) {
    let what =
        index.map_or_else(|| "the creation of its video".to_owned(), |index| format!("chunk {}", index + 1));
    let open = match fate {
        Fate::Unknown => ", though the service may have it",
        Fate::NotStored => "",
    };
    let FailureSummary { kind, message, .. } = why;
    match kind {
        ErrorKind::NotAuthorized => tracing::info!("{file}: retrying {what} with new credentials: {message}"),
        _ => {
            tracing::warn!(target: FOLLOWED, "{file}: retrying {what} in {}{open}: {message}", Rounded(delay))
        }
    }
}

/// Logs a throttle delay of an upload: refusals, failures and long pauses are warnings, because nothing moves meanwhile.
pub(crate) fn log_throttle(class: Class, why: ThrottleReason, delay: Duration) {
    let is_long = delay >= LONG_PAUSE;
    let (class, delay) = (class.name(), Rounded(delay));
    if is_long || matches!(why, ThrottleReason::TooManyRequests | ThrottleReason::Failures) {
        tracing::warn!(target: FOLLOWED, "{class} wait for {delay}: {why}");
    } else {
        tracing::info!(target: FOLLOWED, "{class} wait for {delay}: {why}");
    }
}

/// The pause that a person who waits notices.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// Logs that an API call waits for the service's budget. No follower of an upload receives this.
pub(crate) fn log_call_throttle(class: Class, why: ThrottleReason, delay: Duration) {
    tracing::info!("{} wait for {}: {why}", class.name(), Rounded(delay));
}

/// A duration in seconds with one decimal, for messages.
pub(crate) struct Rounded(pub(crate) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delay_is_announced_once_and_limits_of_the_user_never() {
        let now = Instant::now();
        let held = |seconds, by| Delay { until: now + Duration::from_secs(seconds), by };
        let mut announced = AnnouncedDelay::default();
        assert!(announced.is_news(held(5, ThrottleReason::Budget), now));
        assert!(!announced.is_news(held(6, ThrottleReason::Budget), now + Duration::from_secs(1)));
        assert!(!announced.is_news(held(9, ThrottleReason::Caps), now));
        assert!(announced.is_news(held(5, ThrottleReason::TooManyRequests), now));
        assert!(announced.is_news(held(60, ThrottleReason::TooManyRequests), now + Duration::from_secs(6)));
    }

    #[test]
    fn a_pause_whose_end_moves_a_little_is_announced_once_and_the_next_minute_again() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let held = |until| Delay { until: after(until), by: ThrottleReason::Budget };
        let mut announced = AnnouncedDelay::default();
        assert!(announced.is_news(held(60), now));
        assert!(!announced.is_news(held(61), after(1)));
        assert!(!announced.is_news(held(70), after(60)));
        let other = Delay { until: after(80), by: ThrottleReason::TooManyRequests };
        assert!(announced.is_news(other, after(61)));
        assert!(!announced.is_news(held(71), after(62)));
        assert!(announced.is_news(held(120), after(71)));
    }
}
