//! The inputs of an ingestion, one after the other.

use std::collections::VecDeque;

use super::input_failure::InputFailure;
use super::planned_job::{LinePlace, PlannedJob};
use super::planner::JobPlanner;
use crate::bulk::absolute_path::absolute_path;
use crate::bulk::entry::ManifestSource;
use crate::bulk::job_state::JobFailure;
use crate::bulk::manifest::{LineError, Manifest};
use crate::bulk::walk::{Walk, WalkError};
use crate::bulk::watch::{Watch, WatchHandle};

/// One input.
#[derive(Debug)]
#[non_exhaustive]
pub enum IngestInput {
    /// The files of a folder, or one file.
    Walk(Box<Walk>),
    /// The lines of a manifest, a path list or a report.
    Manifest(Box<Manifest>),
    /// The files that arrive in folders. It ends with the run only, so that it should be the last input.
    Watch(Box<Watch>),
}

/// The jobs of all inputs, as a stream in constant memory. Reading blocks.
#[derive(Debug)]
pub struct Inputs {
    planner: JobPlanner,
    inputs: VecDeque<IngestInput>,
    index: u64,
    ignored: u64,
    unused_rules: Option<Vec<String>>,
}

impl Inputs {
    /// Creates the stream of the jobs of `inputs`.
    pub fn new(planner: JobPlanner, inputs: impl IntoIterator<Item = IngestInput>) -> Inputs {
        let inputs = inputs.into_iter().collect();
        Inputs { planner, inputs, index: 0, ignored: 0, unused_rules: None }
    }

    /// Returns a guard that ends the watches among the inputs when it is dropped.
    pub(super) fn watch_guard(&self) -> WatchGuard {
        let handle = |input: &IngestInput| match input {
            IngestInput::Watch(watch) => Some(watch.handle()),
            _ => None,
        };
        WatchGuard(self.inputs.iter().filter_map(handle).collect())
    }

    /// Returns `true` if a watch is among the inputs, so that they do not end.
    pub(super) fn has_watch(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, IngestInput::Watch(_)))
    }

    /// Returns the planner.
    pub fn planner(&self) -> &JobPlanner {
        &self.planner
    }

    /// Returns the number of files that were left out so far: no videos, hidden, or by a filter.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Returns the rules of the filter that decided about no file of any folder so far.
    pub fn unused_rules(&self) -> &[String] {
        self.unused_rules.as_deref().unwrap_or_default()
    }

    /// Counts what the first input left out, and removes the input.
    fn end_input(&mut self) {
        if let Some(IngestInput::Walk(walk)) = self.inputs.pop_front() {
            let counts = walk.counts();
            let filtered = &counts.filter;
            self.ignored += counts.ignored + counts.hidden + counts.links + counts.special;
            self.ignored += filtered.excluded_by_name + filtered.excluded_by_size + filtered.excluded_by_age;
            if let Some(filter) = walk.active_filter() {
                let unused: Vec<String> = filtered.unused(filter).map(str::to_owned).collect();
                match &mut self.unused_rules {
                    Some(rules) => rules.retain(|rule| unused.contains(rule)),
                    rules => *rules = Some(unused),
                }
            }
        }
    }
}

impl Iterator for Inputs {
    type Item = Result<PlannedJob, Box<InputFailure>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (planner, index) = (&self.planner, self.index + 1);
            let job = match self.inputs.front_mut()? {
                IngestInput::Walk(walk) => match walk.next() {
                    // Another process has moved the file since the folder was read, such as a run that moves what it
                    // has uploaded. A link to nothing is still there, and fails.
                    Some(Err(WalkError::Vanished { path })) if path.symlink_metadata().is_err() => {
                        self.ignored += 1;
                        continue;
                    }
                    found => found.map(|found| match found {
                        Ok(found) => planner.file(&found, index),
                        Err(error) => Err(of_walk(&error)),
                    }),
                },
                IngestInput::Watch(watch) => watch.next().map(|found| planner.file(&found, index)),
                IngestInput::Manifest(manifest) => manifest.next().map(|line| match line {
                    Ok(line) => {
                        let place = LinePlace { manifest: manifest.name().clone(), line: line.number };
                        match planner.entry(line.entry, line.is_reported, index) {
                            Ok(job) => Ok(PlannedJob { place: Some(place), ..job }),
                            Err(failure) => {
                                let failure = place.name_in(failure);
                                Err(Box::new(InputFailure { is_reported: line.is_reported, ..*failure }))
                            }
                        }
                    }
                    Err(error) => Err(of_line(&error)),
                }),
            };
            match job {
                Some(job) => {
                    self.index += u64::from(job.is_ok());
                    return Some(job);
                }
                None => self.end_input(),
            }
        }
    }
}

impl Extend<IngestInput> for Inputs {
    fn extend<T: IntoIterator<Item = IngestInput>>(&mut self, inputs: T) {
        self.inputs.extend(inputs);
    }
}

/// Ends watches when it is dropped. The thread that reads them waits for files without an end.
#[derive(Debug)]
pub(super) struct WatchGuard(Vec<WatchHandle>);

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.iter().for_each(WatchHandle::stop);
    }
}

fn of_walk(error: &WalkError) -> Box<InputFailure> {
    let (kind, path) = match error {
        // Another kind than that of a missing file: nothing of a source that the user named was read.
        WalkError::Missing { path } => ("no_such_source", path),
        WalkError::Vanished { path } => ("no_such_file", path),
        WalkError::Special { path } | WalkError::Loop { path, .. } | WalkError::Unreadable { path, .. } => {
            ("source_unreadable", path)
        }
    };
    let path = absolute_path(path).unwrap_or_else(|_| path.clone());
    // The kernel may open the folder for the next run. The other failures stay as they are.
    let permanent = !matches!(error, WalkError::Unreadable { .. });
    let failure = JobFailure { permanent, ..JobFailure::temporary(kind, error.to_string()) };
    InputFailure::new(None, Some(ManifestSource::Path(path)), failure)
}

fn of_line(error: &LineError) -> Box<InputFailure> {
    let failure = JobFailure::permanent("bad_line", error.to_string());
    InputFailure::new(None, None, failure)
}
