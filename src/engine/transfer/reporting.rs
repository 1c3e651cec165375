//! What is told of an upload: how far it is, what happens to it, what it waits for.

use std::time::{Duration, Instant};

use super::Transfer;
use crate::engine::event_log::EventSink;
use crate::engine::progress::Progress;
use crate::engine::request::OnProgress;
use crate::error::{Error, ErrorKind};
use crate::pacing::{Class, Delay};
use crate::session::event::UploadEvent;

impl Transfer {
    /// Says what everybody waits for when nothing has moved for a while.
    pub(crate) fn watch(&mut self, now: Instant) {
        let read = self.lanes.values().map(|(_, gauge)| gauge.read_bytes() + gauge.sent_bytes());
        let moved = read.sum::<u64>() + self.session.chunks().stored_bytes() + self.compared_bytes();
        let Some(still) = self.watchdog.look(moved, now) else { return };
        let file = &self.file_name;
        tracing::warn!(%file, seconds = still.as_secs(), state = self.session.state(), "nothing moves");
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

    /// Why it ends when a thread that sends it does not return from the kernel.
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

    /// Whether more is settled than whoever watches was published.
    pub(crate) fn has_unpublished_progress(&self) -> bool {
        let (published, chunks) = (self.publish.borrow(), self.session.chunks());
        published.acknowledged_chunks != chunks.stored()
            || published.total_bytes != chunks.total_bytes()
            || published.video_id.is_none() != self.session.video_id().is_none()
    }

    /// Tells whoever watches how far it is.
    pub(crate) fn publish_progress(&mut self) {
        let chunks = self.session.chunks();
        let acknowledged = chunks.stored_bytes();
        let newer = Progress {
            total_bytes: chunks.total_bytes(),
            read_bytes: acknowledged + self.lanes.values().map(|(_, gauge)| gauge.read_bytes()).sum::<u64>(),
            sent_bytes: acknowledged + self.lanes.values().map(|(_, gauge)| gauge.sent_bytes()).sum::<u64>(),
            acknowledged_bytes: acknowledged,
            resent_bytes: self.resent_bytes(),
            acknowledged_chunks: chunks.stored(),
            retries: self.retries(),
            video_id: self.session.video_id().map(str::to_owned),
        };
        let on_progress = &mut self.on_progress;
        self.publish.send_if_modified(|progress| {
            let changed = progress.advance(newer);
            if changed && let Some(OnProgress(callback)) = on_progress {
                callback(progress);
            }
            changed
        });
    }

    /// Tells whoever follows it, and the log, what has happened to it.
    pub(crate) fn report_events(&mut self) {
        // It is not taken up before its chunks are proved.
        if self.is_proving() {
            return;
        }
        for event in self.session.take_events() {
            self.event_sink.emit(event);
        }
    }

    /// Tells whoever follows it that its chunks wait.
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

    /// Who tells of it.
    pub(crate) fn event_sink(&self) -> &EventSink {
        &self.event_sink
    }
}

const STUCK_ADVICE: &str = "look at the disk or the network file system that the files are on; the reader `pread` waits for it on threads \
     of its own";
