//! The checks before a run, and the dry run.

use std::sync::Arc;

use ringlift::Settings;
use ringlift::bulk::{Inputs, JobState, JobStore, PlannedJob, RunSummary};

use super::ending::{JobExits, exit_of, ingest_counts};
use super::estimate::Estimator;
use crate::cli::console::{Console, counted};
use crate::cli::escape::visible;
use crate::cli::events::{CommandEvent, Summary};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::ingest_args::InputArgs;
use crate::cli::jobs::JobEvent;
use crate::cli::queue::QueuePlace;
use crate::cli::store_error::store_error;
use crate::cli::values::Size;

/// Reads the inputs once, and refuses the run if one gives no job, or if a rule that includes files finds none.
pub(in crate::cli) fn check_all(mut inputs: Inputs, console: &Console) -> Result<(), CommandError> {
    let mut flaws = 0u64;
    for flaw in inputs.by_ref().filter_map(Result::err) {
        flaws += 1;
        console.alert(&flaw.failure.message);
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
        estimator: Estimator::new(settings).with_chunks(args.chunks.mode, args.chunks.chunk_size),
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
            Err(failure) => {
                console.alert(&failure.failure.message);
                plan.fail(exit_of(&failure.failure));
            }
        }
    }
    Ok(plan.end(inputs.ignored()))
}

/// A dry run.
struct DryRun<'a> {
    estimator: Estimator,
    store: Option<Arc<dyn JobStore>>,
    args: &'a InputArgs,
    console: &'a Console,
    totals: RunSummary,
    skipped: usize,
    exits: JobExits,
}

impl DryRun<'_> {
    fn job(&mut self, job: &PlannedJob) -> Result<(), CommandError> {
        if let Some(state) = self.skips(job)? {
            self.skipped += 1;
            if let JobState::Failed(failure) = &state {
                self.exits.add(exit_of(failure));
            }
            return Ok(());
        }
        let (spec, name) = (&job.spec, job.spec.source.name());
        let bytes = job.stamp.map(|stamp| stamp.bytes);
        match self.estimator.add(bytes) {
            Ok(chunks) => {
                JobEvent::queued(&spec.id, &spec.source, bytes).emit(&spec.source, self.console);
                let (size, chunks) = (Size(bytes.unwrap_or(0)), counted(chunks.into(), "chunk"));
                self.console.result(format_args!("{}\t{size}\t{chunks}", visible(&name)));
            }
            Err(error) => {
                self.console.alert(format_args!("{name}: {error}"));
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
