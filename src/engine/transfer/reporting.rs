//! The reports of an upload: progress, events, throttle delays and stalls.

use std::mem;
use std::time::{Duration, Instant};

use super::Transfer;
use crate::engine::event_log::{EventSink, Pauses, Rounded};
use crate::engine::progress::Progress;
use crate::engine::request::OnProgress;
use crate::error::{Error, ErrorKind};
use crate::pacing::{Class, Delay, ThrottleReason};
use crate::session::event::UploadEvent;

impl Transfer {
    /// Logs the state of every lane when no byte has moved for a while. A pause for a limit has a known end and is no
    /// stall.
    pub(crate) fn watch(&mut self, now: Instant, pauses: &Pauses) {
        if let Some(pause) = self.pause(pauses) {
            if self.watchdog.pause(pause.until, now) {
                let (file, left) = (&self.file_name, Rounded(pause.until.saturating_duration_since(now)));
                tracing::debug!(%file, state = WAITING_FOR_THE_LIMIT, %left, by = pause.by.name(), "paused");
            }
            return;
        }
        let read = self.lanes.values().map(|(_, gauge)| gauge.read_bytes() + gauge.sent_bytes());
        let moved = read.sum::<u64>() + self.session.chunks().stored_bytes() + self.compared_bytes();
        let Some(still) = self.watchdog.look(moved, now) else { return };
        let file = &self.file_name;
        tracing::warn!("{file}: no progress for {} s ({})", still.as_secs(), self.session.state());
        for (lane, (index, gauge)) in &self.lanes {
            let (read, sent) = (gauge.read_bytes(), gauge.sent_bytes());
            // With everything sent the answer is missing; with bytes in hand, the connection does not take them.
            let waits_for = if gauge.is_complete() {
                "the answer"
            } else if read > sent {
                "the connection"
            } else {
                "the source"
            };
            tracing::warn!(lane, chunk = index + 1, read, sent, waits_for, "a lane waits");
        }
    }

    /// Returns the pause that holds all of the upload; `None` if a lane is at work, or no limit holds the upload.
    fn pause(&self, pauses: &Pauses) -> Option<Delay> {
        let awaited = self.session.awaited_class().filter(|_| self.lanes.is_empty());
        awaited.and_then(|class| pauses.of(class))
    }

    /// Returns the error of an upload whose worker thread is stuck in a system call.
    pub(crate) fn stuck_error(&self, bound: Duration) -> Error {
        let file = &self.file_name;
        let reason = format!(
            "its thread has been in a system call for {bound:?}: {file}, or another file that is sent at the \
             same time, is on a disk or a network file system that does not answer"
        );
        Error::new(ErrorKind::Stalled, format!("send chunks of {file}"))
            .because(reason)
            .with_advice(STUCK_ADVICE)
    }

    /// Returns `true` if the published progress lacks a stored chunk, the length or the video.
    pub(crate) fn has_unpublished_progress(&self) -> bool {
        let (published, chunks) = (self.publish.borrow(), self.session.chunks());
        published.acknowledged_chunks != chunks.stored()
            || published.total_bytes != chunks.total_bytes()
            || published.video_id.is_none() != self.session.video_id().is_none()
    }

    /// Publishes the progress.
    pub(crate) fn publish_progress(&mut self) {
        let chunks = self.session.chunks();
        let acknowledged = chunks.stored_bytes();
        let newer = Progress {
            total_bytes: chunks.total_bytes(),
            read_bytes: acknowledged + self.lanes.values().map(|(_, gauge)| gauge.read_bytes()).sum::<u64>(),
            sent_bytes: acknowledged + self.lanes.values().map(|(_, gauge)| gauge.sent_bytes()).sum::<u64>(),
            acknowledged_bytes: acknowledged,
            resumed_bytes: self.session.resumed_bytes(),
            resent_bytes: self.resent_bytes(),
            acknowledged_chunks: chunks.stored(),
            total_chunks: chunks.total_bytes().map(|_| chunks.known()),
            retries: self.retries(),
            video_id: self.session.video_id().map(str::to_owned),
        };
        let on_progress = &mut self.on_progress;
        // A lane's counts go back to zero with each chunk; `advance` keeps the published ones monotonic.
        self.publish.send_if_modified(|progress| {
            let changed = progress.advance(newer);
            if changed && let Some(OnProgress(callback)) = on_progress {
                callback(progress);
            }
            changed
        });
    }

    /// Passes the session's events to the followers and the log.
    pub(crate) fn report_events(&mut self) {
        // `Resumed` is wrong until the chunks are proved.
        if self.is_proving() {
            return;
        }
        for event in self.session.take_events() {
            self.event_sink.emit(event);
        }
        self.count_repetitions();
    }

    fn count_repetitions(&mut self) {
        let (retries, bytes) = (u64::from(self.session.retries()), self.session.resent_bytes());
        let (counted_retries, counted_bytes) = mem::replace(&mut self.counted, (retries, bytes));
        if (retries, bytes) != (counted_retries, counted_bytes) {
            let bytes = bytes.saturating_sub(counted_bytes);
            self.counters.repeated(retries.saturating_sub(counted_retries), bytes);
        }
    }

    /// Reports to the followers that the request that this upload needs next is throttled: one event for each pause.
    pub(crate) fn announce_pauses(&mut self, pauses: &Pauses, now: Instant) {
        let Some(class) = self.session.awaited_class() else { return };
        let Some(held) = pauses.of(class) else { return };
        // The failed call has reported every other cause already.
        let is_reported = class != Class::Uploads && held.by != ThrottleReason::Budget;
        if class == Class::Uploads && !self.wants_lane() || is_reported {
            return;
        }
        if self.announced[class as usize].is_news(held, now) {
            let delay = held.until.saturating_duration_since(now);
            self.event_sink.emit_to_followers(UploadEvent::Throttled { class, why: held.by, delay });
        }
    }

    pub(crate) fn event_sink(&self) -> &EventSink {
        &self.event_sink
    }
}

const WAITING_FOR_THE_LIMIT: &str = "waiting for the rate limit";

const STUCK_ADVICE: &str = "look at the disk or the network file system that the files are on; the reader `pread` waits for it on threads \
     of its own";
