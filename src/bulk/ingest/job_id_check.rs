//! The ids that inputs give, compared without a store: a strict run and a dry run find the jobs that are named twice.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::input_failure::InputFailure;
use super::planned_job::PlannedJob;
use crate::bulk::job_state::JobFailure;

/// The ids of the jobs that the inputs have given, each with its content, as hashes.
///
/// The first million jobs are remembered, in 36 MiB. Of further jobs, only those are found that repeat one of these.
#[derive(Debug, Default)]
pub struct JobIdCheck {
    contents: HashMap<u64, u64>,
    state: RandomState,
}

impl JobIdCheck {
    /// Adds a job. Returns `false` if an earlier job has its id and its content, so that both are one job.
    ///
    /// # Errors
    /// If an earlier job has the id and another content: a run refuses the later one.
    pub fn add(&mut self, job: &PlannedJob) -> Result<bool, Box<InputFailure>> {
        let spec = &job.spec;
        let id = self.state.hash_one(&spec.id);
        let content = self.state.hash_one((&spec.pool, &spec.source, &spec.stamp));
        match self.contents.get(&id) {
            Some(earlier) if *earlier == content => Ok(false),
            Some(_) => Err(conflict(job)),
            None => {
                if self.contents.len() < MOST_IDS {
                    self.contents.insert(id, content);
                }
                Ok(true)
            }
        }
    }
}

fn conflict(job: &PlannedJob) -> Box<InputFailure> {
    let id = &job.spec.id;
    let message = format!("job id {id}: an earlier line gives the same id to another file; use another id");
    job.failed(JobFailure::permanent("id_conflict", message))
}

/// The most ids that are remembered, as many as a run remembers of those that it has submitted.
const MOST_IDS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::job::JobSpec;
    use crate::bulk::job_id::{JobId, Pool};
    use crate::bulk::job_source::JobSource;
    use crate::upload::UploadOptions;

    fn job(id: &str, path: &str) -> PlannedJob {
        let (id, pool) = (JobId::new(id).unwrap(), Pool::new("p").unwrap());
        let source = JobSource::File { path: path.into() };
        let spec = JobSpec::new(id, pool, source, None, UploadOptions::default());
        PlannedJob { spec, stamp: None, is_reported: false, place: None }
    }

    #[test]
    fn an_id_is_new_once_and_stands_for_one_file() {
        let mut check = JobIdCheck::default();
        assert!(check.add(&job("a", "/a.mp4")).unwrap() && check.add(&job("b", "/b.mp4")).unwrap());
        assert!(!check.add(&job("a", "/a.mp4")).unwrap());
        let refused = check.add(&job("a", "/b.mp4")).unwrap_err();
        assert_eq!(refused.failure.kind, "id_conflict");
        assert!(refused.failure.message.contains("job id a"), "{}", refused.failure.message);
    }
}
