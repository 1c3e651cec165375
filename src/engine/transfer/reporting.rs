//! The reports of an upload: progress, events, throttle delays and stalls.

use std::time::{Duration, Instant};

use super::Transfer;
use crate::engine::event_log::EventSink;
use crate::engine::progress::Progress;
use crate::engine::request::OnProgress;
use crate::error::{Error, ErrorKind};
use crate::pacing::{Class, Delay};
use crate::session::event::UploadEvent;

impl Transfer {
    /// Logs the state of every lane when no byte has moved for a while.
    pub(crate) fn watch(&mut self, now: Instant) {
        let read = self.lanes.values().map(|(_, gauge)| gauge.read_bytes() + gauge.sent_bytes());
        let moved = read.sum::<u64>() + self.session.chunks().stored_bytes() + self.compared_bytes();
        let Some(still) = self.watchdog.look(moved, now) else { return };
        let file = &self.file_name;
        tracing::warn!("{file}: no progress for {} s ({})", still.as_secs(), self.session.state());
        for (lane, (index, gauge)) in &self.lanes {
            let (read, sent) = (gauge.read_bytes(), gauge.sent_bytes());
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
    }

    /// Reports to the followers that chunks are throttled.
    pub(crate) fn announce_delay(&mut self, held: Delay, now: Instant) {
        if self.wants_lane() && self.announced.is_news(held, now) {
            let delay = held.until.saturating_duration_since(now);
            self.event_sink.emit_to_followers(UploadEvent::Throttled {
                class: Class::Uploads,
                why: held.by,
                delay,
            });
        }
    }

    pub(crate) fn event_sink(&self) -> &EventSink {
        &self.event_sink
    }
}

const STUCK_ADVICE: &str = "look at the disk or the network file system that the files are on; the reader `pread` waits for it on threads \
     of its own";
