//! The checks before a run, and the dry run.

use std::iter;
use std::sync::Arc;

use ringlift::Settings;
use ringlift::bulk::{InputFailure, Inputs, JobIdCheck, JobState, JobStore, PlannedJob, RunSummary};

use super::ending::{JobExits, exit_of, ingest_counts};
use super::estimate::Estimator;
use super::view::show_doubled;
use crate::cli::console::{Console, counted};
use crate::cli::escape::visible;
use crate::cli::events::{CommandEvent, Summary};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::ingest_args::InputArgs;
use crate::cli::jobs::JobEvent;
use crate::cli::queue::QueuePlace;
use crate::cli::store_error::store_error;
use crate::cli::values::Size;

/// Reads the inputs once, and refuses the run if one gives no job, if a file cannot be split, if two files have the
/// same id, or if a rule that includes files finds none.
pub(in crate::cli) fn check_all(
    mut inputs: Inputs,
    settings: &Settings,
    console: &Console,
) -> Result<(), CommandError> {
    let (mut ids, mut estimator) = (JobIdCheck::default(), Estimator::new(settings));
    let mut flaws = 0u64;
    for job in inputs.by_ref() {
        let flaw = job.and_then(|job| ids.add(&job).map(|is_new| is_new.then_some(job)));
        let flaw = match flaw {
            Ok(Some(job)) => estimator.add_job(&job).err().map(|error| unplannable(&job, &error)),
            // The same job again, which has been checked.
            Ok(None) => None,
            Err(failure) => Some(failure.failure.message),
        };
        if let Some(flaw) = flaw {
            flaws += 1;
            console.alert(flaw);
        }
    }
    // A list of exclusions serves many folders, and not each of them has such files.
    for rule in inputs.unused_rules().iter().filter(|rule| rule.starts_with('+')) {
        flaws += 1;
        console.alert(format_args!("the filter rule `{rule}` matches no file"));
    }
    if flaws == 0 {
        return Ok(());
    }
    Err(CommandError::usage(format!("{flaws} lines, files or rules are unusable, and nothing was sent")))
}

/// Returns the message about a file that cannot be split.
fn unplannable(job: &PlannedJob, error: &ringlift::Error) -> String {
    // The error itself names the step, and its cause the limit.
    let texts: Vec<String> = iter::once(error.to_string()).chain(error.causes()).collect();
    format!("{}: {}", job.spec.source.name(), texts.join(": "))
}

/// Prints the jobs and the work. Sends nothing, creates no queue and no journal, and changes no job.
pub(in crate::cli) fn dry_run(
    mut inputs: Inputs,
    args: &InputArgs,
    settings: &Settings,
    console: &Console,
) -> Result<Summary, CommandError> {
    let queue = QueuePlace::of(&args.queue.store, &settings.trust)?;
    let account = inputs.planner().account.clone();
    // Opening the queue would create it.
    let store = if queue.exists() { Some(queue.open(account)?) } else { None };
    let mut plan = DryRun {
        estimator: Estimator::new(settings),
        ids: JobIdCheck::default(),
        doubled: 0,
        store,
        args,
        console,
        totals: RunSummary::default(),
        skipped: 0,
        exits: JobExits::default(),
    };
    for job in inputs.by_ref() {
        match job {
            Ok(job) => plan.job(&job)?,
            Err(failure) => plan.input_failed(&failure),
        }
    }
    Ok(plan.end(inputs.ignored()))
}

/// A dry run.
struct DryRun<'a> {
    estimator: Estimator,
    ids: JobIdCheck,
    doubled: u64,
    store: Option<Arc<dyn JobStore>>,
    args: &'a InputArgs,
    console: &'a Console,
    totals: RunSummary,
    skipped: usize,
    exits: JobExits,
}

impl DryRun<'_> {
    fn job(&mut self, job: &PlannedJob) -> Result<(), CommandError> {
        match self.ids.add(job) {
            Ok(true) => {}
            Ok(false) => {
                self.doubled += 1;
                show_doubled(&job.spec.id, &job.spec.source, self.doubled, self.console);
                return Ok(());
            }
            Err(failure) => {
                self.input_failed(&failure);
                return Ok(());
            }
        }
        if let Some(state) = self.skips(job)? {
            self.skipped += 1;
            if let JobState::Failed(failure) = &state {
                self.exits.add(exit_of(failure));
            }
            return Ok(());
        }
        let (spec, name) = (&job.spec, job.spec.source.name());
        let bytes = job.stamp.map(|stamp| stamp.bytes);
        match self.estimator.add_job(job) {
            Ok(chunks) => {
                JobEvent::queued(&spec.id, &spec.source, bytes).emit(&spec.source, self.console);
                let (size, chunks) = (Size(bytes.unwrap_or(0)), counted(chunks.into(), "chunk"));
                self.console.result(format_args!("{}\t{size}\t{chunks}", visible(&name)));
            }
            Err(error) => {
                self.console.alert(unplannable(job, &error));
                self.fail(error.kind().into());
            }
        }
        Ok(())
    }

    /// Returns the state of a job that the run would skip.
    fn skips(&self, job: &PlannedJob) -> Result<Option<JobState>, CommandError> {
        let Some(store) = self.store.as_ref().filter(|_| !self.args.force) else { return Ok(None) };
        let known = pollster::block_on(store.get(&job.spec.id)).map_err(|error| store_error(&error))?;
        let state = known.map(|job| job.record.state).filter(|state| !state.is_open());
        let is_retried = self.args.retry.is_some() || job.is_reported;
        Ok(state.filter(|state| match state {
            JobState::Done(_) => true,
            JobState::Failed(failure) => failure.permanent && !is_retried,
            _ => !is_retried,
        }))
    }

    fn input_failed(&mut self, failure: &InputFailure) {
        self.console.alert(&failure.failure.message);
        self.fail(exit_of(&failure.failure));
    }

    fn fail(&mut self, exit: Exit) {
        self.totals.files_failed += 1;
        self.exits.add(exit);
    }

    fn end(mut self, ignored: u64) -> Summary {
        self.console.emit(&CommandEvent::Estimate(self.estimator.event()));
        let (skipped, ignored_text) = (self.skipped, counted(ignored, "other file"));
        self.console
            .result(format_args!("{}; {skipped} skipped, {ignored_text} ignored", self.estimator.text()));
        self.totals.ingest = Some(ingest_counts(skipped, ignored, 0));
        Summary { exit: self.exits.exit(), totals: self.totals, ..Summary::default() }
    }
}
