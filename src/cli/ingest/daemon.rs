//! A run that goes on until it is stopped: its reports to the service manager, and the notices of its watch.

use std::time::Instant;

use ringlift::Snapshot;
use ringlift::bulk::{IngestEvent, WatchHandle, WatchNotice};

use super::view::IngestView;
use crate::cli::console::Console;
use crate::cli::events::CommandEvent;
use crate::cli::service_manager::{ProcessActivity, ServiceManager};

/// A run that goes on until it is stopped.
#[derive(Debug)]
pub(in crate::cli) struct Daemon {
    /// The watch on directories, if there is one.
    watch: Option<WatchHandle>,
    service: ServiceManager,
    /// The number of events of the run so far.
    events: u64,
    /// `true` while the run waits for its queue.
    is_queue_away: bool,
}

impl Daemon {
    /// Finds the service manager. Reports nothing yet.
    pub(in crate::cli) fn new(watch: Option<WatchHandle>) -> Daemon {
        Daemon { watch, service: ServiceManager::new(Instant::now()), events: 0, is_queue_away: false }
    }

    /// Reports to the service manager that the run begins.
    pub(super) fn ready(&self) {
        self.service.ready();
    }

    /// Takes over an event of the run.
    pub(super) fn record(&mut self, event: &IngestEvent) {
        self.events += 1;
        match event {
            IngestEvent::StoreAway { .. } => self.is_queue_away = true,
            IngestEvent::StoreBack { .. } => self.is_queue_away = false,
            _ => {}
        }
    }

    /// Reports to the service manager that the run ends.
    pub(super) fn stopping(&self) {
        self.service.stopping();
    }

    /// Prints the notices, reports the state, and feeds the watchdog.
    pub(super) fn tick(&mut self, view: &IngestView, snapshot: &Snapshot, console: &Console) {
        let now = Instant::now();
        for notice in self.watch.iter().flat_map(WatchHandle::notices) {
            print(&notice, console);
        }
        let status = self.watch.as_ref().map(WatchHandle::status);
        let (running, done, failed) = view.file_counts();
        self.service.status(
            || {
                let gone = status.map_or(0, |status| status.folders_gone);
                let gone = if gone == 0 { String::new() } else { format!("; {gone} directories are gone") };
                let settling = status.map(|status| format!(", {} settling", status.pending + status.queued));
                let settling = settling.unwrap_or_default();
                format!("{running} uploading{settling}, {done} uploaded, {failed} failed{gone}")
            },
            now,
        );
        let (requests, throttled) = (&snapshot.requests, &snapshot.throttled_seconds);
        let requests = requests.uploads.total() + requests.writes.total() + requests.reads.total();
        let activity = ProcessActivity {
            // Each part grows only, so that an equal sum is no progress.
            progress: self.events + requests + snapshot.bytes.sent + snapshot.bytes.read,
            // A restart does not bring the queue back, and loses the ends of jobs that wait for it.
            has_work: running > 0 && !self.is_queue_away,
            throttled_seconds: throttled.uploads + throttled.writes + throttled.reads,
            watch_steps: status.map(|status| status.steps),
        };
        self.service.feed(activity, now);
    }
}

fn print(notice: &WatchNotice, console: &Console) {
    let message = notice.to_string();
    console.emit(&CommandEvent::Watch { kind: notice.name(), message: &message });
    match notice {
        WatchNotice::FolderBack { .. } | WatchNotice::Watching { .. } => console.note(message),
        _ => console.alert(message),
    }
}
