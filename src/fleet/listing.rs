//! Lists of jobs.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::failure::{Failure, Trouble};
use super::operations::{AT_ONCE, Engine};
use super::tries::Tries;
use crate::bulk::{Cursor, Job, JobPage, JobQuery, JobStoreError, LONGEST_PAGE, LONGEST_SKIP};

impl Engine {
    /// Returns a page of jobs, oldest first. The page ends early once it has [`LARGEST_PAGE_BYTES`].
    pub(super) async fn list(&self, query: &JobQuery) -> Result<JobPage, Trouble> {
        let mut after = match &query.after {
            None => 0,
            Some(cursor) => cursor.as_str().parse().map_err(|_| JobStoreError::BadCursor)?,
        };
        let limit = if query.limit == 0 { LONGEST_PAGE } else { query.limit.min(LONGEST_PAGE) };
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        let mut skip = query.skip.min(LONGEST_SKIP);
        loop {
            let numbers = self.numbers(query, after, std::mem::take(&mut skip)).await?;
            let mut reads: Vec<BoxFuture<'_, _>> = Vec::with_capacity(numbers.len());
            for number in &numbers {
                reads.push(Box::pin(self.read_numbered(*number)));
            }
            let found: Vec<_> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
            for (number, found) in numbers.iter().zip(found) {
                if jobs.len() == limit || bytes > LARGEST_PAGE_BYTES {
                    return Ok(JobPage { jobs, next: Some(Cursor::new(after.to_string())) });
                }
                after = *number;
                let Some((job, len)) = found else { continue };
                // The state may have changed since the index was read.
                if query.state.is_none_or(|state| job.record.state.name() == state) {
                    jobs.push(job);
                    bytes += len;
                }
            }
            if numbers.len() < AT_ONCE {
                return Ok(JobPage { jobs, next: None });
            }
        }
    }

    /// Returns the numbers of the next jobs of a list, after the next `skip` ones.
    async fn numbers(&self, query: &JobQuery, after: u64, skip: usize) -> Result<Vec<u64>, Trouble> {
        let mut cached = self.index.lock().await;
        self.catch_up(&mut cached).await?;
        let found = cached.index.jobs(after, query.state, query.pool.as_ref());
        Ok(found.skip(skip).take(AT_ONCE).map(|place| place.number).collect())
    }

    /// Reads the job with this number, and the length of its record; `None` if it was forgotten or cannot be read.
    async fn read_numbered(&self, number: u64) -> Result<Option<(Job, usize)>, Trouble> {
        let mut tries = Tries::new();
        loop {
            let revision = self.index.lock().await.index.revision(number);
            let Some(revision) = revision else { return Ok(None) };
            match self.bucket.read_revision(revision).await {
                Ok(found) => {
                    let len = found.payload.len();
                    return Ok(found.job()?.map(|stored| (stored.into_job(), len)));
                }
                // The job has changed since.
                Err(Failure::NotFound) => {
                    tries.pause(Failure::Refused).await?;
                    self.catch_up(&mut *self.index.lock().await).await?;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }
}

/// The size of a page from which it ends early: the largest records would fill 300 MB.
const LARGEST_PAGE_BYTES: usize = 8 << 20;
