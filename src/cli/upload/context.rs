//! Options and shared state of a run of uploads.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlift::bulk::Shutdown;
use ringlift::internals::Unavailable;
use ringlift::{Client, Error, ErrorKind, Receipt, Settings};

use crate::cli::bandwidth::Timetable;
use crate::cli::console::{Console, UploadRemains};
use crate::cli::exit::Interrupt;
use crate::cli::journal::ResumeCommand;
use crate::cli::upload_args::AfterArgs;

use super::plan::{UploadJob, UploadJobSource};
use super::progress::ProgressTotals;
use super::tally::Tally;

/// Options of a whole run.
#[derive(Debug)]
pub(in crate::cli) struct RunOptions<'a> {
    pub(in crate::cli) after: &'a AfterArgs,
    pub(in crate::cli) grace: Duration,
    /// Command line that resumes an upload.
    pub(in crate::cli) resume: ResumeCommand,
    /// Bandwidth limits over time.
    pub(in crate::cli) timetable: Option<&'a Timetable>,
    pub(in crate::cli) keep_completed: KeepCompleted,
}

/// Retention of completed files in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum KeepCompleted {
    /// None: the command has a single file.
    No,
    /// Until all files are uploaded. If one fails, the repeated command skips the completed files.
    UntilSuccess,
    /// Beyond the end of this command: the files belong to interrupted commands that may be repeated.
    Always,
}

/// State that the uploads of one command share.
pub(super) struct UploadRun<'a> {
    pub(super) options: RunOptions<'a>,
    pub(super) settings: &'a Settings,
    pub(super) client: Client,
    pub(super) console: &'a Console,
    /// `true` if results are printed with the names of their files.
    pub(super) has_several_files: bool,
    pub(super) shutdown: RefCell<Shutdown>,
    /// The first signal.
    pub(super) interrupt: Cell<Option<Interrupt>>,
    pub(super) totals: RefCell<ProgressTotals>,
    pub(super) tally: RefCell<Tally>,
    /// Jobs that the library has started and that have not ended, by their index on the command line.
    pub(super) active: RefCell<BTreeMap<usize, ActiveJob>>,
    /// Receipts to confirm once the whole command has succeeded.
    pub(super) receipts: RefCell<Vec<Receipt>>,
    /// Availability of io_uring, probed for the first plan that is printed.
    pub(super) ring: OnceCell<Result<(), Unavailable>>,
}

/// A job that has not ended.
#[derive(Debug)]
pub(super) struct ActiveJob {
    pub(super) job: Rc<UploadJob>,
    pub(super) started: Instant,
}

impl UploadRun<'_> {
    /// Returns the state of a failed upload at the service.
    pub(super) fn remains<'a>(&self, job: &UploadJob, error: &'a Error) -> UploadRemains<'a> {
        let Some(video_id) = error.video_id() else { return UploadRemains::Nothing };
        // A video that the service does not know cannot be deleted.
        if error.kind() == ErrorKind::NotFound {
            return UploadRemains::Nothing;
        }
        match self.resume_hint(job) {
            UploadRemains::Resumable { resume } if error.is_resumable() => {
                UploadRemains::Resumable { resume }
            }
            _ if error.is_video_incomplete() => UploadRemains::Incomplete(video_id),
            _ => UploadRemains::Unknown(video_id),
        }
    }

    /// Returns how to resume a job according to the journal.
    pub(super) fn resume_hint(&self, job: &UploadJob) -> UploadRemains<'static> {
        match &job.source {
            UploadJobSource::File(path) if self.settings.journal.is_some() => {
                UploadRemains::Resumable { resume: self.options.resume.of(path) }
            }
            UploadJobSource::File(_) | UploadJobSource::Stdin => UploadRemains::Nothing,
        }
    }
}
