//! The submission of inputs to the store, by two threads: one reads, one submits what has been read.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::event::{IngestEnd, IngestEvent, SkippedJob};
use super::finish;
use super::input_failure::InputFailure;
use super::inputs::Inputs;
use super::planned_job::PlannedJob;
use super::planner::JobPlanner;
use super::seen_ids::SeenIds;
use super::shared::SharedState;
use super::state::with_failure;
use crate::bulk::after_action::AfterAction;
use crate::bulk::entry::ManifestSource;
use crate::bulk::job::{Job, JobSpec};
use crate::bulk::job_id::JobId;
use crate::bulk::job_source::JobSource;
use crate::bulk::job_state::{JobFailure, JobState};
use crate::bulk::report::{ReportRow, RowState};
use crate::bulk::store::{JobStore, JobStoreError, Resubmit, StoreFuture, StoreProblem, Submission};
use crate::bulk::unix_time::UnixMillis;

/// One step of the reading thread.
#[derive(Debug)]
enum ReadItem {
    Job(Box<PlannedJob>),
    Failed(Box<InputFailure>),
    /// The last one.
    End(ReadCounts),
}

/// The numbers of [`IngestEvent::InputsRead`].
#[derive(Debug, Default)]
struct ReadCounts {
    ignored: u64,
    unused_rules: Vec<String>,
}

/// Starts the submission. The run learns of its end by [`SharedState::are_inputs_read`], which follows the last event of the
/// submission, [`IngestEvent::InputsRead`].
///
/// The reading thread is left behind when the run ends: the kernel may hold it in a directory of a dead mount or in a pipe
/// without a writer. It shares nothing with the run but the queue, and ends with its next item.
pub(super) fn start(inputs: Inputs, state: Arc<SharedState>) {
    // One batch is read while the one before it is written.
    let (items, read) = sync_channel::<ReadItem>(BATCH);
    let (planner, seen) = (inputs.planner().clone(), SeenIds::default());
    let mut submitter = Submitter { state: state.clone(), planner, seen };
    let reader =
        thread::Builder::new().name("ringlift-inputs".to_owned()).spawn(move || read_all(inputs, &items));
    let submit = move || {
        let counts = submitter.submit_all(&read).unwrap_or_else(|error| {
            // The next run finds these files again.
            submitter.state.end_with_store(error);
            ReadCounts::default()
        });
        // Also after an error: the run waits for the end of the submission before it publishes its own.
        submitter.end(counts);
    };
    let submitter = thread::Builder::new().name("ringlift-submit".to_owned()).spawn(submit);
    if reader.is_err() || submitter.is_err() {
        state.end_with(IngestEnd::Store(no_thread()));
    }
    if submitter.is_err() {
        // The thread sends this event otherwise. The queue is empty.
        let _ = state.events.try_send(IngestEvent::InputsRead { ignored: 0, unused_rules: Vec::new() });
        state.set_inputs_read();
    }
}

fn read_all(mut inputs: Inputs, items: &SyncSender<ReadItem>) {
    for item in inputs.by_ref() {
        let item = match item {
            Ok(job) => ReadItem::Job(Box::new(job)),
            Err(failure) => ReadItem::Failed(failure),
        };
        // The run has ended.
        if items.send(item).is_err() {
            return;
        }
    }
    let counts = ReadCounts { ignored: inputs.ignored(), unused_rules: inputs.unused_rules().to_vec() };
    // Fails only if the run has ended, which needs no counts.
    let _ = items.send(ReadItem::End(counts));
}

/// Returns the error of a thread that could not start or has panicked.
fn no_thread() -> JobStoreError {
    let (place, problem) = ("(no thread for it)".to_owned(), StoreProblem::Closed);
    JobStoreError::Store { place, problem, source: None }
}

struct Submitter {
    state: Arc<SharedState>,
    planner: JobPlanner,
    seen: SeenIds,
}

impl Submitter {
    /// Submits all items, or those before the end of the run.
    fn submit_all(&mut self, read: &Receiver<ReadItem>) -> Result<ReadCounts, JobStoreError> {
        let (mut batch, mut counts) = (Vec::new(), None);
        loop {
            // Never longer, so that a reader that hangs does not keep this thread.
            match read.recv_timeout(LONGEST_PAUSE) {
                Ok(ReadItem::End(last)) => counts = Some(last),
                Ok(item) => batch.push(item),
                Err(RecvTimeoutError::Timeout) if batch.is_empty() => {}
                Err(RecvTimeoutError::Timeout) => self.submit(std::mem::take(&mut batch))?,
                // Only a panic ends the reader without its last item.
                Err(RecvTimeoutError::Disconnected) => return Err(no_thread()),
            }
            if self.state.is_ending() || self.state.events.is_closed() {
                return Ok(counts.unwrap_or_default());
            }
            if batch.len() >= BATCH || (counts.is_some() && !batch.is_empty()) {
                self.submit(std::mem::take(&mut batch))?;
            }
            if let Some(counts) = counts.take() {
                return Ok(counts);
            }
        }
    }

    /// Publishes the end of the submission. The event comes first: a run that finds no open job afterwards ends.
    fn end(&self, counts: ReadCounts) {
        let ReadCounts { ignored, unused_rules } = counts;
        // Without a receiver the run was dropped, and needs no event.
        let _ = self.state.events.blocking_send(IngestEvent::InputsRead { ignored, unused_rules });
        self.state.set_inputs_read();
    }

    fn submit(&mut self, batch: Vec<ReadItem>) -> Result<(), JobStoreError> {
        let mut rows = Vec::new();
        let (mut planned, mut reported) = (Vec::new(), Vec::new());
        for item in batch {
            match item {
                ReadItem::Job(job) if job.is_reported => match self.known(*job)? {
                    Ok(job) => reported.push(job),
                    Err(failure) => rows.extend(self.row_failed(*failure)),
                },
                ReadItem::Job(job) => planned.push(*job),
                ReadItem::Failed(failure) if failure.is_reported => rows.extend(self.row_failed(*failure)),
                ReadItem::Failed(failure) => rows.push(self.input_failed(*failure)),
                ReadItem::End(_) => {}
            }
        }
        rows.extend(self.submit_jobs(planned, self.state.options.resubmit)?);
        rows.extend(self.submit_jobs(reported, self.resubmit_reported())?);
        // Before the rows: a worker need not wait for the disk of the report.
        self.state.news.notify_waiters();
        self.write(rows);
        Ok(())
    }

    /// Submits jobs by one write of the store. Returns the rows of those that this run does not upload.
    fn submit_jobs(
        &mut self,
        jobs: Vec<PlannedJob>,
        resubmit: Resubmit,
    ) -> Result<Vec<ReportRow>, JobStoreError> {
        let mut rows = Vec::new();
        if jobs.is_empty() {
            return Ok(rows);
        }
        let specs: Vec<JobSpec> = jobs.iter().map(|job| job.spec.clone()).collect();
        let submitted = match self.ask(|store, now| store.submit(specs.clone(), resubmit, now)) {
            Ok(submitted) => submitted,
            Err(error) => {
                self.report_taken(jobs, &error);
                return Err(error);
            }
        };
        pollster::block_on(self.state.store_answered());
        for (job, submission) in jobs.into_iter().zip(submitted) {
            rows.extend(self.submitted(job, submission)?);
        }
        Ok(rows)
    }

    /// Reports the jobs that a store without transactions took before it was full: they are in the queue.
    fn report_taken(&mut self, jobs: Vec<PlannedJob>, error: &JobStoreError) {
        // A store that does not answer would delay the end of the run with each question.
        if error.problem() != Some(StoreProblem::StorageLimit) {
            return;
        }
        for job in jobs {
            let Ok(found) = pollster::block_on(self.state.store.get(&job.spec.id)) else { return };
            let is_same =
                |known: &Job| (&known.spec.source, known.spec.stamp) == (&job.spec.source, job.spec.stamp);
            let Some(known) = found.filter(|known| is_same(known) && known.record.state.is_open()) else {
                continue;
            };
            // An open job has no row.
            let _ = self.submitted(job, Submission::Same(known.record.state));
        }
    }

    /// Sends a request to the store, again and again while the run waits for the store.
    fn ask<'s, T>(
        &'s self,
        request: impl Fn(&'s dyn JobStore, UnixMillis) -> StoreFuture<'s, T>,
    ) -> Result<T, JobStoreError> {
        loop {
            let error = match pollster::block_on(request(&*self.state.store, self.state.now())) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(pause) = pollster::block_on(self.state.pause_after(&error)) else { return Err(error) };
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.state.is_ending() {
                thread::sleep(LONGEST_PAUSE);
            }
        }
    }

    fn resubmit_reported(&self) -> Resubmit {
        match self.state.options.resubmit {
            Resubmit::Anew => Resubmit::Anew,
            _ => Resubmit::RetryFailed,
        }
    }

    /// Returns the job of a report's row as the store knows it, and refuses a row that it does not know: a row has no
    /// metadata, and a film that is to be private would be made public.
    fn known(&self, job: PlannedJob) -> Result<Result<PlannedJob, Box<InputFailure>>, JobStoreError> {
        let Some(known) = self.ask(|store, _| store.get(&job.spec.id))? else {
            return Ok(Err(job.unknown_row()));
        };
        let mut spec = known.spec;
        let JobPlanner { account, pool, .. } = &self.planner;
        // Only a derived id follows the content of the file. An id of a manifest is the user's name for the job.
        let is_derived = JobId::derive(account, pool, &spec.source, spec.stamp) == spec.id;
        if spec.stamp != job.spec.stamp && is_derived {
            // The file changed: another job, with the same metadata.
            spec.id = JobId::derive(account, pool, &job.spec.source, job.spec.stamp);
            spec.stamp = job.spec.stamp;
        }
        Ok(Ok(PlannedJob { spec, ..job }))
    }

    /// Reports what became of a submitted job. Returns its row if it is not open.
    fn submitted(
        &mut self,
        job: PlannedJob,
        submission: Submission,
    ) -> Result<Option<ReportRow>, JobStoreError> {
        // A conflict is a flaw of its line, and is reported for each one.
        let is_doubled = !matches!(submission, Submission::Conflict(_)) && !self.seen.insert(&job.spec.id);
        let state = match submission {
            // One job has one row, and is counted once.
            _ if is_doubled => return Ok(self.doubled(&job)),
            Submission::New | Submission::Requeued(_) => return Ok(self.open(&job)),
            Submission::Same(state) if state.is_open() => return Ok(self.open(&job)),
            // Not for good: the same command goes on with it.
            Submission::Same(JobState::Failed(failure)) if !failure.permanent => {
                self.ask(|store, now| store.retry(&job.spec.id, now))?;
                return Ok(self.open(&job));
            }
            Submission::Same(state) => state,
            Submission::Conflict(_) => return Ok(Some(self.conflict(&job))),
        };
        Ok(Some(self.skipped(&job, state)?))
    }

    /// Reports a job whose id another file has.
    fn conflict(&self, job: &PlannedJob) -> ReportRow {
        let id = job.spec.id.as_str();
        let message = format!(
            "job id {id}: is taken by another file or another version of this one; use another id, or begin anew"
        );
        self.input_failed(*job.failed(JobFailure::permanent("id_conflict", message)))
    }

    /// Reports a row of an earlier report that gives no job, once: several runs may have written a row for its file, and
    /// with a row for each of them the report would grow twofold with each run.
    fn row_failed(&mut self, failure: InputFailure) -> Option<ReportRow> {
        let source = match &failure.source {
            Some(ManifestSource::Path(path)) => path.as_os_str(),
            Some(ManifestSource::Url(url)) => url.as_ref(),
            None => "".as_ref(),
        };
        self.seen.insert((&failure.id, source)).then(|| self.input_failed(failure))
    }

    fn open(&self, job: &PlannedJob) -> Option<ReportRow> {
        let (id, source) = (job.spec.id.clone(), job.spec.source.clone());
        let bytes = job.spec.stamp.map(|stamp| stamp.size);
        // A reader that is gone is found by `submit_all`, which ends.
        let _ = self.state.events.blocking_send(IngestEvent::Submitted { id, source, bytes });
        None
    }

    fn doubled(&self, job: &PlannedJob) -> Option<ReportRow> {
        let event = IngestEvent::Doubled { id: job.spec.id.clone(), source: job.spec.source.clone() };
        let _ = self.state.events.blocking_send(event);
        None
    }

    fn skipped(&self, job: &PlannedJob, state: JobState) -> Result<ReportRow, JobStoreError> {
        let spec = &job.spec;
        let name = spec.source.name().into_owned();
        let path = match &spec.source {
            JobSource::File { path } => Some(path.clone()),
            JobSource::Url { .. } => None,
        };
        let bytes = spec.stamp.map_or(0, |stamp| stamp.size);
        let mut row = self.state.row(&spec.id, &spec.source, RowState::Skipped);
        row.size = spec.stamp.map(|stamp| stamp.size);
        let (mut video_id, mut failure, mut after_failure) = (None, None, None);
        let reason = match state {
            JobState::Done(result) => {
                row.video_id = Some(result.video_id.clone());
                video_id = Some(result.video_id);
                after_failure = self.make_action_good(job)?;
                "already uploaded".to_owned()
            }
            JobState::Failed(earlier) => {
                row = with_failure(row, &earlier);
                let reason = format!("failed in an earlier run: {}", earlier.message);
                failure = Some(earlier);
                reason
            }
            JobState::Skipped { reason } => reason,
            _ => "cancelled".to_owned(),
        };
        row.message = Some(reason.clone());
        let id = spec.id.clone();
        let skipped = SkippedJob { id, name, path, bytes, video_id, reason, failure, after_failure };
        let _ = self.state.events.blocking_send(IngestEvent::Skipped(Box::new(skipped)));
        Ok(row)
    }

    /// Repeats the action on the file of a job that is done: a process may have died before it. Returns its failure.
    fn make_action_good(&self, job: &PlannedJob) -> Result<Option<String>, JobStoreError> {
        let (JobSource::File { path }, Some(stamp)) = (&job.spec.source, &job.stamp) else { return Ok(None) };
        let after = &self.state.options.after;
        if *after == AfterAction::Keep {
            return Ok(None);
        }
        let done = self.ask(|store, _| store.get(&job.spec.id))?;
        let finished_at = done.and_then(|done| done.record.finished_at);
        Ok(after.make_good(path, stamp, finished_at).err().map(|error| error.to_string()))
    }

    fn input_failed(&self, failure: InputFailure) -> ReportRow {
        let id = failure.id.clone().unwrap_or_default();
        let mut row = ReportRow::new(id, failure.source.clone(), RowState::Failed);
        row.finished_at = Some(self.state.time());
        row.host = self.state.options.owner.host().to_owned();
        let row = with_failure(row, &failure.failure);
        finish::count_failure(&self.state);
        let _ = self.state.events.blocking_send(IngestEvent::InputFailed(Box::new(failure)));
        row
    }

    fn write(&self, rows: Vec<ReportRow>) {
        // All rows are sent before the first answer is awaited, so that they share a flush of the disk.
        let written: Vec<_> =
            rows.into_iter().filter_map(|row| self.state.report.send_blocking(row)).collect();
        for row in written {
            if let Ok(Err(error)) = row.blocking_recv() {
                self.state.end_with(IngestEnd::Report(error));
            }
        }
    }
}

/// The jobs of one submission: one flush of the disk for all of them.
const BATCH: usize = 256;

/// The time after which jobs are submitted although more may come, and the longest delay of an end.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
