//! One transaction on a store, shared by the requests that waited at the same time.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{CachedStatement, OptionalExtension, Params, Row, Transaction};

use super::open::{problem, sqlite_error};
use super::owners::Owners;
use super::statements;
use crate::bulk::job::{Job, JobSpec};
use crate::bulk::job_id::{Account, JobId, Pool};
use crate::bulk::job_record::JobRecord;
use crate::bulk::job_state::{JobState, JobStateName};
use crate::bulk::order::SortKey;
use crate::bulk::store::{JobStoreError, StoreProblem};
use crate::bulk::unix_time::UnixMillis;

/// A transaction.
pub(super) struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    path: &'a Path,
    pub(super) account: &'a Account,
    pub(super) account_row: i64,
    pub(super) lease: Duration,
    pub(super) owners: &'a mut Owners,
    /// The changes of the table `counts`, which are written once for all requests.
    counts: HashMap<(i64, i64), (i64, i64)>,
    has_changed: bool,
}

/// A row of the table `jobs`.
#[derive(Debug)]
pub(super) struct JobRow {
    pub(super) seq: i64,
    pub(super) queue: i64,
    state: i64,
    size: i64,
    sort_key: Vec<u8>,
    pub(super) content: Vec<u8>,
    pub(super) spec: String,
    pub(super) record: JobRecord,
    checkpoint: Option<String>,
}

/// A queue: the jobs of one pool of an account.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobQueue {
    pub(super) row: i64,
    pub(super) is_paused: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        path: &'a Path,
        (account, account_row): (&'a Account, i64),
        lease: Duration,
        owners: &'a mut Owners,
    ) -> Batch<'a> {
        let counts = HashMap::new();
        Batch { transaction, path, account, account_row, lease, owners, counts, has_changed: false }
    }

    pub(super) fn refused(&self, error: rusqlite::Error) -> JobStoreError {
        sqlite_error(self.path, error)
    }

    /// Returns the error for a row that this version could not have written.
    pub(super) fn damaged(&self) -> JobStoreError {
        problem(self.path, StoreProblem::Damaged)
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'a>, JobStoreError> {
        self.transaction.prepare_cached(sql).map_err(|error| self.refused(error))
    }

    pub(super) fn execute(&mut self, sql: &str, params: impl Params) -> Result<usize, JobStoreError> {
        self.has_changed = true;
        self.prepare(sql)?.execute(params).map_err(|error| self.refused(error))
    }

    /// Returns the first row of the result; `None` if there is none.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, JobStoreError> {
        self.prepare(sql)?.query_row(params, read).optional().map_err(|error| self.refused(error))
    }

    /// Returns the first job of the result; `None` if there is none.
    pub(super) fn job(&self, sql: &str, params: impl Params) -> Result<Option<JobRow>, JobStoreError> {
        let read = |row: &Row<'_>| {
            let record: String = row.get(7)?;
            // A record that cannot be read is damage of the store, and no error of SQLite.
            let record = serde_json::from_str(&record).ok();
            Ok(record.map(|record| (record, read_columns(row))))
        };
        match self.first(sql, params, read)? {
            None => Ok(None),
            Some(None) => Err(self.damaged()),
            Some(Some((record, columns))) => {
                columns.map(|row| Some(row(record))).map_err(|error| self.refused(error))
            }
        }
    }

    pub(super) fn job_by_id(&self, id: &JobId) -> Result<Option<JobRow>, JobStoreError> {
        self.job(statements::BY_ID, (self.account_row, id.as_str()))
    }

    /// Returns the queue of a pool; `None` if no job was ever submitted to the pool.
    pub(super) fn queue(&self, pool: &Pool) -> Result<Option<JobQueue>, JobStoreError> {
        self.first(statements::QUEUE, (self.account_row, pool.as_str()), |row| {
            Ok(JobQueue { row: row.get(0)?, is_paused: row.get(1)? })
        })
    }

    /// Returns the queue of a pool. Creates it if it is missing.
    pub(super) fn queue_or_new(&mut self, pool: &Pool) -> Result<JobQueue, JobStoreError> {
        if let Some(queue) = self.queue(pool)? {
            return Ok(queue);
        }
        self.execute(statements::ADD_QUEUE, (self.account_row, pool.as_str()))?;
        Ok(JobQueue { row: self.transaction.last_insert_rowid(), is_paused: false })
    }

    /// Writes the record of a job.
    pub(super) fn write(&mut self, row: &mut JobRow) -> Result<(), JobStoreError> {
        let (state, due) = (state_number(row.record.state.name()), due_ms(&row.record.state));
        let record = self.json(&row.record)?;
        self.execute(statements::SET_RECORD, (row.seq, state, due, record))?;
        if state != row.state {
            self.count(row.queue, row.state, -1, -row.size);
            self.count(row.queue, state, 1, row.size);
            row.state = state;
        }
        Ok(())
    }

    pub(super) fn json(&self, value: &impl serde::Serialize) -> Result<String, JobStoreError> {
        serde_json::to_string(value).map_err(|_| self.damaged())
    }

    /// Changes the sums of a queue's state.
    pub(super) fn count(&mut self, queue: i64, state: i64, jobs: i64, bytes: i64) {
        let sums = self.counts.entry((queue, state)).or_default();
        *sums = (sums.0 + jobs, sums.1.saturating_add(bytes));
    }

    /// Removes the job from the sums.
    pub(super) fn discount(&mut self, row: &JobRow) {
        self.count(row.queue, row.state, -1, -row.size);
    }

    /// Returns the number and the bytes of a queue's jobs in one state.
    pub(super) fn counted(&self, queue: i64, state: JobStateName) -> Result<(i64, i64), JobStoreError> {
        let state = state_number(state);
        let stored = self.first(statements::COUNT, (queue, state), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (jobs, bytes): (i64, i64) = stored.unwrap_or_default();
        let changed = self.counts.get(&(queue, state)).copied().unwrap_or_default();
        Ok((jobs + changed.0, bytes.saturating_add(changed.1)))
    }

    /// Writes the changed sums. Returns `true` if the transaction changed anything.
    pub(super) fn write_counts(mut self) -> Result<bool, JobStoreError> {
        for ((queue, state), (jobs, bytes)) in std::mem::take(&mut self.counts) {
            if (jobs, bytes) != (0, 0) {
                self.execute(statements::ADD_COUNT, (queue, state, jobs, bytes))?;
            }
        }
        Ok(self.has_changed)
    }
}

impl JobRow {
    /// Returns the job of the row; `None` if the row is damaged.
    pub(super) fn into_job(self) -> Option<Job> {
        let mut spec: JobSpec = serde_json::from_str(&self.spec).ok()?;
        spec.sort_key = SortKey::from_bytes(self.sort_key);
        Some(Job { spec, record: self.record, checkpoint: self.checkpoint })
    }

    /// Returns `true` if the job has a file of 1 to `longest` bytes.
    pub(super) fn is_file_of(&self, longest: u64) -> bool {
        self.size > 0 && u64::try_from(self.size).is_ok_and(|size| size <= longest)
    }

    /// Returns `true` if the row has this sort key.
    pub(super) fn has_key(&self, key: &SortKey) -> bool {
        self.sort_key == key.as_bytes()
    }
}

/// Reads all columns but the record.
fn read_columns(row: &Row<'_>) -> rusqlite::Result<impl FnOnce(JobRecord) -> JobRow + use<>> {
    let (seq, queue, state, size) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let (sort_key, content, spec, checkpoint) = (row.get(4)?, row.get(5)?, row.get(6)?, row.get(8)?);
    Ok(move |record| JobRow { seq, queue, state, size, sort_key, content, spec, record, checkpoint })
}

/// Returns the number of a state in the column `state`.
pub(super) fn state_number(state: JobStateName) -> i64 {
    JobStateName::ALL.iter().position(|name| *name == state).unwrap_or_default() as i64
}

/// Returns the value of the column `due_ms`.
fn due_ms(state: &JobState) -> Option<i64> {
    let millis = |time: UnixMillis| i64::try_from(time.get()).unwrap_or(i64::MAX);
    match state {
        // NULL, which the index `jobs_ready` selects.
        JobState::Queued { not_before } if *not_before == UnixMillis::default() => None,
        JobState::Queued { not_before } => Some(millis(*not_before)),
        JobState::Running { heartbeat, .. } => Some(millis(*heartbeat)),
        _ => None,
    }
}
