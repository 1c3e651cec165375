//! The watch of a run: its start, its notices, and the reports to the service manager.

use std::path::Path;
use std::time::Instant;

use ringlift::Snapshot;
use ringlift::bulk::{Watch, WatchError, WatchHandle, WatchNotice, WatchOptions};

use super::setup;
use super::view::IngestView;
use crate::cli::console::Console;
use crate::cli::events::CommandEvent;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::ingest_args::IngestArgs;
use crate::cli::service_manager::{ServiceHealth, ServiceManager};

/// The watch of a run.
#[derive(Debug)]
pub(super) struct Watching {
    handle: WatchHandle,
    service: ServiceManager,
    /// The number of events of the run so far.
    events: u64,
}

/// Starts the watch on the sources, with a lock beside the queue.
pub(super) fn start(
    args: &IngestArgs,
    after: &ringlift::bulk::AfterAction,
    queue: &Path,
) -> Result<Watch, CommandError> {
    let mut options = WatchOptions::default();
    options.settle = args.watch.settle;
    options.done_suffix.clone_from(&args.watch.done_suffix);
    options.rescan = args.watch.rescan;
    options.walk = setup::walk_options(args, after)?;
    options.clock = Some(setup::wall_clock());
    options.lock_beside = Some(queue.to_owned());
    Watch::start(&args.sources, options).map_err(|error| match &error {
        WatchError::Locked { .. } => CommandError::Other(Exit::Temporary, error.to_string()),
        WatchError::Folder { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            CommandError::Other(Exit::NoSuchFile, error.to_string())
        }
        WatchError::NoFolder
        | WatchError::NotAFolder { .. }
        | WatchError::Nested { .. }
        | WatchError::DoneSuffix => CommandError::usage(error.to_string()),
        _ => CommandError::Other(Exit::Failed, error.to_string()),
    })
}

impl Watching {
    /// Reports to the service manager that the run begins.
    pub(super) fn new(handle: WatchHandle) -> Watching {
        let service = ServiceManager::new(Instant::now());
        service.ready();
        Watching { handle, service, events: 0 }
    }

    /// Counts an event of the run.
    pub(super) fn count_event(&mut self) {
        self.events += 1;
    }

    /// Reports to the service manager that the run ends.
    pub(super) fn stopping(&self) {
        self.service.stopping();
    }

    /// Prints the notices, reports the state, and feeds the watchdog.
    pub(super) fn tick(&mut self, view: &IngestView, snapshot: &Snapshot, console: &Console) {
        let (now, status) = (Instant::now(), self.handle.status());
        for notice in self.handle.notices() {
            print(&notice, console);
        }
        let (running, done, failed) = view.counts();
        self.service.status(
            || {
                let gone = status.folders_gone;
                let gone = if gone == 0 { String::new() } else { format!("; {gone} directories are gone") };
                let settling = status.pending + status.queued;
                format!("{running} uploading, {settling} settling, {done} uploaded, {failed} failed{gone}")
            },
            now,
        );
        let (requests, throttled) = (&snapshot.requests, &snapshot.throttled_seconds);
        let requests = requests.uploads.total() + requests.writes.total() + requests.reads.total();
        let health = ServiceHealth {
            // Each part grows only, so that an equal sum is no progress.
            progress: self.events + requests + snapshot.bytes.sent + snapshot.bytes.read,
            has_work: running > 0,
            throttled_seconds: throttled.uploads + throttled.writes + throttled.reads,
            watch_steps: status.steps,
        };
        self.service.feed(health, now);
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
