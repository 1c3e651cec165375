//! The end of a run: its reason, the message about the reason, and the exit code.

use ringlift::Usage;
use ringlift::bulk::{IngestCounts, IngestEnd, JobFailure, ReportError};

use crate::cli::console::{Console, counted, duration};
use crate::cli::exit::{Exit, Interrupt};
use crate::cli::store_error::{report_exit, store_exit};

/// The kind of a run, on which its exit code and its last line depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum RunKind {
    /// Submits jobs and works until no job is open.
    Ingest,
    /// Submits files as they arrive, and works until it is stopped.
    Watch,
    /// Only submits jobs.
    Submit,
    /// Only works. Failed jobs are in the report, not in the exit code.
    Work,
}

/// The end of a loop.
pub(in crate::cli) struct LoopEnd {
    /// The reason; `None` if the run was abandoned.
    pub(in crate::cli) end: Option<IngestEnd>,
    pub(in crate::cli) interrupt: Option<Interrupt>,
    pub(in crate::cli) usage: Usage,
}

/// The exits of the failed jobs of a run, each once: a run may have a million jobs.
#[derive(Debug, Default)]
pub(super) struct JobExits(Vec<Exit>);

impl JobExits {
    /// Adds the exit of a job.
    pub(super) fn add(&mut self, exit: Exit) {
        if !self.0.contains(&exit) {
            self.0.push(exit);
        }
    }

    /// Returns the exit of all jobs together; [`Exit::Done`] if there are none.
    pub(super) fn exit(&self) -> Exit {
        Exit::of_all(self.0.iter().copied())
    }
}

impl LoopEnd {
    /// Prints a message about an end that needs one.
    pub(super) fn alert(&self, kind: RunKind, console: &Console) {
        match &self.end {
            Some(IngestEnd::Store(error)) => console.alert(error),
            Some(IngestEnd::Report(error @ ReportError::Incomplete { .. })) => console.alert(format_args!(
                "{error}: `ringlift jobs report` writes the rows of the jobs that have ended"
            )),
            Some(IngestEnd::Report(error)) => console.alert(error),
            Some(IngestEnd::Deferred { jobs, delay }) => console.alert(format_args!(
                "{} {} for another attempt, the first for {}: run the same command again",
                counted(*jobs, "file"),
                if *jobs == 1 { "waits" } else { "wait" },
                duration(*delay)
            )),
            Some(IngestEnd::MaxTransfer) => console.alert("stopped: the limit of bytes is reached"),
            Some(IngestEnd::MaxDuration) => console.alert("stopped: the limit of time is reached"),
            Some(IngestEnd::Drained) if kind == RunKind::Watch && self.interrupt.is_none() => {
                console.alert("the watch has ended by itself; please report this");
            }
            Some(IngestEnd::MaxErrors) => console.alert("stopped: the limit of failed files is reached"),
            _ => {}
        }
    }

    /// Returns the exit of the run. `exits` are those of its failed jobs.
    pub(super) fn exit(&self, kind: RunKind, exits: &JobExits) -> Exit {
        let is_worker = matches!(kind, RunKind::Work | RunKind::Watch);
        match (self.interrupt, &self.end) {
            // A service manager stops a worker by SIGTERM: all that it had is finished or released.
            (Some(Interrupt::Term), Some(IngestEnd::Shutdown)) if is_worker => Exit::Done,
            // It is not: the manager has to see that, and the jobs are free only when their leases end.
            (Some(Interrupt::Term), Some(end @ (IngestEnd::Store(_) | IngestEnd::Report(_))))
                if is_worker =>
            {
                exit_of_end(end)
            }
            // A watch has no end of its own.
            (None, Some(IngestEnd::Drained)) if kind == RunKind::Watch => Exit::Failed,
            (_, Some(IngestEnd::Drained | IngestEnd::Submitted)) if is_worker => Exit::Done,
            (_, Some(IngestEnd::Drained | IngestEnd::Submitted)) => exits.exit(),
            (Some(interrupt), _) => Exit::Interrupted(interrupt),
            (None, Some(end)) => exit_of_end(end),
            (None, None) => exits.exit(),
        }
    }
}

/// Returns the exit of a failure: only another attempt without a change can end otherwise.
pub(super) fn exit_of(failure: &JobFailure) -> Exit {
    match failure.kind.as_str() {
        // A source of the command line. A file that a manifest names and that is missing is a failed job.
        "no_such_source" => Exit::NoSuchFile,
        _ if failure.permanent => Exit::Failed,
        _ => Exit::Temporary,
    }
}

/// Returns the exit of the reason that ended a run early.
fn exit_of_end(end: &IngestEnd) -> Exit {
    match end {
        IngestEnd::MaxTransfer => Exit::MaxTransfer,
        IngestEnd::MaxDuration => Exit::MaxDuration,
        IngestEnd::Deferred { .. } => Exit::Temporary,
        IngestEnd::Store(error) => store_exit(error),
        IngestEnd::Report(error) => report_exit(error),
        IngestEnd::Fatal(error) => error.kind().into(),
        _ => Exit::Failed,
    }
}

/// Returns the counts of a summary, from their parts.
pub(super) fn ingest_counts(files_skipped: usize, files_ignored: u64, videos_created: u64) -> IngestCounts {
    let mut counts = IngestCounts::default();
    counts.files_skipped = files_skipped;
    counts.files_ignored = files_ignored;
    counts.videos_created = videos_created;
    counts
}
