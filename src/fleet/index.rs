//! The index of an account's jobs, made of the headers of their records.
//!
//! Pure: the caller applies messages in the order of their revisions. An index may lag behind the records, so that a
//! claim reads the record and writes it conditionally. About 150 bytes a job: 100,000 jobs take about 15 MB.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use twox_hash::XxHash3_128;

use super::projection::Projection;
use crate::bulk::lease::LONGEST_DELAY;
use crate::bulk::{JobCount, JobStateName, Pool, UnixMillis};

/// The index of the jobs of an account.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The last revision that was applied.
    pub(super) seen: u64,
    /// The jobs by their place in the order of submission.
    jobs: BTreeMap<u64, IndexedJob>,
    /// The place of each key. A digest takes the place of the key, which is three times as long.
    numbers: HashMap<u128, u64>,
    pools: Vec<PoolIndex>,
    pool_numbers: HashMap<Pool, u16>,
    paused: HashSet<String>,
}

/// The number of a job and its newest revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobRevision {
    pub(super) number: u64,
    pub(super) revision: u64,
}

/// The part of a job's record that decides its order, its wait and its counts.
#[derive(Debug)]
struct IndexedJob {
    revision: u64,
    size: u64,
    due: UnixMillis,
    priority: i32,
    pool: u16,
    state: JobStateName,
    sort_key: Box<[u8]>,
}

#[derive(Debug)]
struct PoolIndex {
    pool: Pool,
    ready: BTreeSet<Order>,
    /// Queued jobs by the end of their wait.
    waiting: BTreeSet<(UnixMillis, u64)>,
    /// Running jobs by their last heartbeat.
    running: BTreeSet<(UnixMillis, u64)>,
    counts: [(u64, u64); JobStateName::ALL.len()],
}

/// The place of a ready job: the highest priority first, then the lowest sort key, then the oldest.
type Order = (std::cmp::Reverse<i32>, Box<[u8]>, u64);

impl Index {
    /// Applies a record.
    pub(super) fn put(&mut self, key: &str, revision: u64, projection: Projection) {
        self.remove(key, revision);
        let number = if projection.number == 0 { revision } else { projection.number };
        let Some(pool) = self.pool_number(&projection.pool) else { return };
        let entry = IndexedJob {
            revision,
            size: projection.size,
            due: projection.due,
            priority: projection.priority,
            pool,
            state: projection.state,
            sort_key: projection.sort_key.into(),
        };
        // Two keys with one number come from a store that was wiped and filled again: the newer one is right.
        self.take(number);
        self.numbers.insert(digest(key), number);
        self.pools[usize::from(pool)].insert(number, &entry);
        self.jobs.insert(number, entry);
    }

    /// Applies the deletion of a record.
    pub(super) fn remove(&mut self, key: &str, revision: u64) {
        self.seen = self.seen.max(revision);
        if let Some(number) = self.numbers.remove(&digest(key)) {
            self.take(number);
        }
    }

    /// Applies the pause or the resumption of a pool, by the key of the pool.
    pub(super) fn set_paused(&mut self, key: &str, revision: u64, is_paused: bool) {
        self.seen = self.seen.max(revision);
        if is_paused {
            self.paused.insert(key.to_owned());
        } else {
            self.paused.remove(key);
        }
    }

    /// Applies a message that concerns no job.
    pub(super) fn skip(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
    }

    /// Returns `true` if the pool with this key is paused.
    pub(super) fn is_paused(&self, key: &str) -> bool {
        self.paused.contains(key)
    }

    /// Returns the next job to claim at `now`: one whose lease has run out, else the first of the queue. Passes over
    /// `skip` jobs of the queue that have the same priority.
    pub(super) fn next_due(
        &mut self,
        pool: &Pool,
        now: UnixMillis,
        lease: Duration,
        skip: usize,
    ) -> Option<JobRevision> {
        let pool = &mut self.pools[usize::from(*self.pool_numbers.get(pool)?)];
        let mut ends = pool.running.first().into_iter().chain(pool.running.last());
        // A heartbeat from the future was written by a clock that went back since.
        if let Some(&(_, number)) = ends.find(|(heartbeat, _)| heartbeat.distance(now) >= lease) {
            return Some(JobRevision { number, revision: self.jobs.get(&number)?.revision });
        }
        while let Some(&end) = pool.waiting.iter().next().filter(|(end, _)| *end <= now).or_else(|| {
            // No rule delays a job for longer.
            pool.waiting.last().filter(|(end, _)| *end > now.plus(LONGEST_DELAY))
        }) {
            pool.waiting.remove(&end);
            if let Some(entry) = self.jobs.get(&end.1) {
                pool.ready.insert(entry.order(end.1));
            }
        }
        let priority = pool.ready.first()?.0;
        let alike = pool.ready.iter().take_while(|order| order.0 == priority);
        // Where fewer jobs are alike, the last of them has to do.
        let number = alike.take(skip + 1).last()?.2;
        Some(JobRevision { number, revision: self.jobs.get(&number)?.revision })
    }

    /// Returns the jobs to claim together: `first`, and the ready jobs after it in the order of the queue while their files
    /// have 1 to `longest` bytes, up to `most` jobs. A job whose lease has run out is claimed alone.
    pub(super) fn with_small(&self, first: JobRevision, most: usize, longest: u64) -> Vec<JobRevision> {
        let mut found = vec![first];
        let Some(entry) = self.jobs.get(&first.number) else { return found };
        let ready = &self.pools[usize::from(entry.pool)].ready;
        let order = entry.order(first.number);
        // One whose lease has run out is not among them.
        if !ready.contains(&order) {
            return found;
        }
        let after = (Bound::Excluded(order), Bound::Unbounded);
        for &(_, _, number) in ready.range(after).take(most.saturating_sub(1)) {
            let next = self.jobs.get(&number).filter(|job| (1..=longest).contains(&job.size));
            let Some(job) = next else { break };
            found.push(JobRevision { number, revision: job.revision });
        }
        found
    }

    /// Puts a job that was found not to be due back among those that wait.
    pub(super) fn defer(&mut self, number: u64, due: UnixMillis) {
        let Some(entry) = self.jobs.get_mut(&number) else { return };
        let pool = &mut self.pools[usize::from(entry.pool)];
        pool.remove(number, entry);
        entry.due = due;
        pool.insert(number, entry);
    }

    /// Leaves a job out whose record cannot be used. It counts, and is never due.
    pub(super) fn exclude(&mut self, number: u64) {
        if let Some(entry) = self.jobs.get(&number) {
            let pool = &mut self.pools[usize::from(entry.pool)];
            pool.remove(number, entry);
            // The removal has taken the job out of the sums as well.
            pool.count(entry, 1);
        }
    }

    /// Returns the earliest time at which an open job of the pool may become due; `None` if the pool has none.
    pub(super) fn next_at(&self, pool: &Pool, now: UnixMillis, lease: Duration) -> Option<UnixMillis> {
        let pool = &self.pools[usize::from(*self.pool_numbers.get(pool)?)];
        let waiting = pool.waiting.first().map(|(end, _)| *end);
        let leased = pool.running.first().map(|(heartbeat, _)| heartbeat.plus(lease));
        let ready = pool.ready.first().map(|_| now);
        [waiting, leased, ready].into_iter().flatten().min().map(|at| at.max(now))
    }

    /// Returns the sums of every pool and state that has jobs.
    pub(super) fn counts(&self) -> Vec<JobCount> {
        let of_pool = |pool: &PoolIndex| {
            let counts = JobStateName::ALL.into_iter().zip(pool.counts);
            let found = counts.filter(|(_, (jobs, _))| *jobs > 0);
            let pool = &pool.pool;
            found
                .map(|(state, (jobs, bytes))| JobCount { pool: pool.clone(), state, jobs, bytes })
                .collect::<Vec<_>>()
        };
        self.pools.iter().flat_map(of_pool).collect()
    }

    /// Returns jobs in the order of submission, after the place `after`.
    pub(super) fn jobs(
        &self,
        after: u64,
        state: Option<JobStateName>,
        pool: Option<&Pool>,
    ) -> impl Iterator<Item = JobRevision> {
        let wanted = pool.map(|pool| self.pool_numbers.get(pool).copied());
        let is_wanted = move |entry: &IndexedJob| {
            state.is_none_or(|state| entry.state == state)
                && wanted.is_none_or(|pool| pool == Some(entry.pool))
        };
        let after = (Bound::Excluded(after), Bound::Unbounded);
        let found = self.jobs.range(after).filter(move |(_, entry)| is_wanted(entry));
        found.map(|(&number, entry)| JobRevision { number, revision: entry.revision })
    }

    /// Returns the newest revision of the job with this number.
    pub(super) fn revision(&self, number: u64) -> Option<u64> {
        self.jobs.get(&number).map(|entry| entry.revision)
    }

    fn take(&mut self, number: u64) {
        if let Some(entry) = self.jobs.remove(&number) {
            self.pools[usize::from(entry.pool)].remove(number, &entry);
        }
    }

    /// Returns the number of a pool; `None` if there are more pools than any fleet has.
    fn pool_number(&mut self, pool: &Pool) -> Option<u16> {
        if let Some(&number) = self.pool_numbers.get(pool) {
            return Some(number);
        }
        let number = u16::try_from(self.pools.len()).ok()?;
        self.pools.push(PoolIndex {
            pool: pool.clone(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            counts: Default::default(),
        });
        self.pool_numbers.insert(pool.clone(), number);
        Some(number)
    }
}

impl IndexedJob {
    fn order(&self, number: u64) -> Order {
        (std::cmp::Reverse(self.priority), self.sort_key.clone(), number)
    }
}

impl PoolIndex {
    fn insert(&mut self, number: u64, entry: &IndexedJob) {
        match entry.state {
            JobStateName::Queued if entry.due == UnixMillis::default() => {
                self.ready.insert(entry.order(number));
            }
            JobStateName::Queued => {
                self.waiting.insert((entry.due, number));
            }
            JobStateName::Running => {
                self.running.insert((entry.due, number));
            }
            _ => {}
        }
        self.count(entry, 1);
    }

    fn remove(&mut self, number: u64, entry: &IndexedJob) {
        match entry.state {
            JobStateName::Queued => {
                self.waiting.remove(&(entry.due, number));
                // A job that waited has become ready, perhaps.
                self.ready.remove(&entry.order(number));
            }
            JobStateName::Running => {
                self.running.remove(&(entry.due, number));
            }
            _ => {}
        }
        self.count(entry, -1);
    }

    fn count(&mut self, entry: &IndexedJob, sign: i64) {
        let (jobs, bytes) = &mut self.counts[entry.state as usize];
        // A sum of sizes may exceed u64 only if sizes are nonsense; it must not end the process then.
        let size = entry.size;
        (*jobs, *bytes) = if sign > 0 {
            (*jobs + 1, bytes.wrapping_add(size))
        } else {
            (jobs.saturating_sub(1), bytes.wrapping_sub(size))
        };
    }
}

fn digest(key: &str) -> u128 {
    XxHash3_128::oneshot(key.as_bytes())
}

#[cfg(test)]
mod tests;
