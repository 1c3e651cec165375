//! The output about inputs: jobs that were found, skipped or refused before they begin.

use std::path::Path;
use std::time::Instant;

use ringlift::bulk::event::odd_name;
use ringlift::bulk::totals::FileEnd;
use ringlift::bulk::{FileSkipped, JobFailure, JobId, JobSource, JsonEvent, SkippedJob};

use super::{IngestView, MOST_DOUBLED};
use crate::cli::console::Console;
use crate::cli::escape::visible;
use crate::cli::events::CommandEvent;
use crate::cli::exit::Exit;
use crate::cli::ingest::ending::{RunKind, exit_of};
use crate::cli::jobs::JobEvent;

impl IngestView {
    pub(super) fn submitted(
        &mut self,
        id: &JobId,
        source: &JobSource,
        bytes: Option<u64>,
        console: &Console,
    ) {
        self.numbers.lock().totals.find(bytes);
        // A file that cannot be split fails with its upload.
        let _ = self.estimator.add(bytes);
        if self.kind == RunKind::Submit {
            JobEvent::queued(id, source, bytes).show(source, console);
        }
    }

    pub(super) fn input_failed(&mut self, path: Option<&Path>, failure: &JobFailure, console: &Console) {
        let file = path.map(Path::to_string_lossy).unwrap_or_default();
        self.count_failure(&file, failure, None);
        self.emit_failure(&file, path, failure, 0, false, console);
        console.alert(&failure.message);
    }

    pub(super) fn inputs_read(&mut self, ignored: u64, unused_rules: &[String], console: &Console) {
        self.counts.files_ignored = ignored;
        self.numbers.lock().totals.found_all();
        if self.kind == RunKind::Ingest {
            self.print_estimate(console);
        }
        if !unused_rules.is_empty() {
            console.note(format_args!("filter rules without effect: {}", unused_rules.join(", ")));
        }
    }

    pub(super) fn doubled(&mut self, id: &JobId, source: &JobSource, console: &Console) {
        self.doubled += 1;
        // A directory that was gone and is there again is no mistake of its user.
        let number = if self.kind == RunKind::Watch { u64::MAX } else { self.doubled };
        show_doubled(id, source, number, console);
    }

    pub(super) fn skipped(&mut self, skipped: &SkippedJob, console: &Console) {
        self.counts.files_skipped += 1;
        {
            let totals = &mut self.numbers.lock().totals;
            totals.find(Some(skipped.bytes));
            // Bytes of a job that is not done are not at the service.
            let bytes = if skipped.video_id.is_some() { skipped.bytes } else { 0 };
            totals.end(NOT_BEGUN, Some(skipped.bytes), FileEnd::Skipped { bytes }, Instant::now());
        }
        let (file, reason) = (skipped.name.as_str(), skipped.reason.as_str());
        let (id, video_id) = (skipped.id.as_str(), skipped.video_id.as_deref());
        let event = JsonEvent::FileSkipped(FileSkipped { file, id, video_id, reason });
        let _ = console.emit_for_file(skipped.path.as_deref().and_then(odd_name), &event);
        if let Some(failure) = &skipped.failure {
            self.exits.add(exit_of(failure));
            console.alert(format_args!("{}: skipped: {reason}", visible(file)));
        }
        if let Some(failure) = &skipped.after_failure {
            self.exits.add(Exit::Failed);
            console.alert(failure);
        }
    }

    /// Counts a failure of a file that has not been counted.
    pub(super) fn count_failure(&mut self, name: &str, failure: &JobFailure, advice: Option<&str>) {
        {
            let totals = &mut self.numbers.lock().totals;
            totals.find(None);
            totals.end(NOT_BEGUN, None, FileEnd::Failed, Instant::now());
        }
        self.count_end_of_failure(name, failure, advice);
    }
}

/// Reports a file that is named twice. `number` counts these files from 1, and the first ones are warned about.
pub(in crate::cli::ingest) fn show_doubled(id: &JobId, source: &JobSource, number: u64, console: &Console) {
    let file = source.name();
    console.emit(&CommandEvent::Doubled { id: id.as_str(), file: &file });
    if number <= MOST_DOUBLED {
        console.note(format_args!("{}: is named twice, and is one job", visible(&file)));
    }
}

/// The key of files that never begin. Claims are counted from 1.
const NOT_BEGUN: u64 = 0;
