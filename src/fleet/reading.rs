//! Bringing the index up to date with the bucket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};

use super::bucket::{Bucket, TOMBSTONE_LIFETIME, bounded, is_deletion};
use super::failure::Failure;
use super::index::Index;
use super::names::{BucketNames, JOB_PREFIX, PAUSE_PREFIX, PROJECTION_HEADER};
use super::own_writes::{OwnChange, OwnWrites};
use super::projection::Projection;
use crate::bulk::StoreProblem;

/// An index, and what it was made from.
#[derive(Debug)]
pub(super) struct CachedIndex {
    pub(super) index: Index,
    /// The number of the connection by which it was made.
    connection: u64,
    begun: Instant,
}

impl CachedIndex {
    /// Creates an empty index, to be made by the connection with this number.
    pub(super) fn new(connection: u64) -> CachedIndex {
        CachedIndex { index: Index::default(), connection, begun: Instant::now() }
    }

    /// Returns `true` if the index was made so recently that it may prove the absence of jobs.
    pub(super) fn is_recent(&self) -> bool {
        self.begun.elapsed() < RECENT
    }

    /// Empties the index, so that the next reading makes it anew.
    pub(super) fn reset(&mut self, bucket: &Bucket) {
        *self = CachedIndex::new(bucket.connection.number());
    }

    /// Applies all messages up to the revision `last`, which is the last one that the server reported. Those of this
    /// process are not read back.
    pub(super) async fn catch_up(
        &mut self,
        bucket: &Bucket,
        last: u64,
        own_writes: &OwnWrites,
    ) -> Result<(), Failure> {
        // An older copy of the store counts its revisions anew. The server restarts for that, so that a new connection
        // is the sign of it even if the revisions have grown beyond the old ones since.
        let is_other = self.connection != bucket.connection.number() || last < self.index.seen;
        // Deletions that have vanished would never be applied.
        let is_old = self.begun.elapsed() > TOMBSTONE_LIFETIME / 2;
        if is_other {
            own_writes.clear();
        }
        if is_other || is_old {
            self.reset(bucket);
        }
        let mut own = own_writes.changes(self.connection, last);
        own.retain(|revision, _| *revision > self.index.seen);
        if last.saturating_sub(self.index.seen) <= FEW + own.len() as u64 {
            self.read_few(bucket, last, own).await?;
        } else {
            self.scan(bucket).await?;
        }
        // The newest messages of all may have expired.
        self.index.skip(last);
        Ok(())
    }

    /// Reads single messages, which needs no consumer on the server. `own` has the changes of this process.
    async fn read_few(
        &mut self,
        bucket: &Bucket,
        last: u64,
        mut own: BTreeMap<u64, OwnChange>,
    ) -> Result<(), Failure> {
        // All at once: one after another, a distant worker would be too late for every claim.
        let mut reads: Vec<BoxFuture<'_, _>> = Vec::new();
        for revision in (self.index.seen + 1..=last).filter(|revision| !own.contains_key(revision)) {
            reads.push(Box::pin(async move { (revision, bucket.read_revision(revision).await) }));
        }
        let mut reads = stream::iter(reads).buffered(FEW as usize);
        while let Some((revision, found)) = reads.next().await {
            let later = own.split_off(&revision);
            self.apply_own(std::mem::replace(&mut own, later));
            match found {
                Ok(found) => {
                    apply(&mut self.index, &bucket.names, &found.subject, found.revision, &found.headers);
                }
                // A newer message of the same key has taken its place.
                Err(Failure::NotFound) => self.index.skip(revision),
                Err(failure) => return Err(failure),
            }
        }
        self.apply_own(own);
        Ok(())
    }

    fn apply_own(&mut self, own: BTreeMap<u64, OwnChange>) {
        for (revision, OwnChange { key, projection }) in own {
            self.index.put(&key, revision, projection);
        }
    }

    /// Reads the headers of all messages that the index has not seen, in batches.
    async fn scan(&mut self, bucket: &Bucket) -> Result<(), Failure> {
        let stream = bucket.stream().await?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.index.seen + 1 },
            // A scan that is interrupted begins again: neither acknowledgements nor copies of the consumer would help.
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: LONGEST_IDLE,
            ..pull::Config::default()
        };
        let created = bounded(async { Ok(stream.create_consumer(config).await) }).await?;
        let consumer = created.map_err(failed)?;
        let scanned = self.read_batches(bucket, &consumer).await;
        // The server removes an idle consumer by itself, too.
        let _ = bounded(async { Ok(stream.delete_consumer(&consumer.cached_info().name).await) }).await;
        scanned
    }

    async fn read_batches(
        &mut self,
        bucket: &Bucket,
        consumer: &async_nats::jetstream::consumer::Consumer<pull::Config>,
    ) -> Result<(), Failure> {
        let mut left = consumer.cached_info().num_pending;
        loop {
            let batch =
                bounded(async { Ok(consumer.fetch().max_messages(BATCH_LEN).messages().await) }).await?;
            let mut batch = batch.map_err(failed)?;
            let mut is_empty = true;
            while let Some(message) = bounded(async { Ok(batch.next().await) }).await? {
                let message = message
                    .map_err(|error| Failure::Uncertain(StoreProblem::Unreachable, Some(error.into())))?;
                let info = message.info();
                let info =
                    info.map_err(|error| Failure::Uncertain(StoreProblem::Unreachable, Some(error.into())))?;
                (left, is_empty) = (info.pending, false);
                let empty = HeaderMap::new();
                let headers = message.headers.as_ref().unwrap_or(&empty);
                let revision = info.stream_sequence;
                apply(&mut self.index, &bucket.names, &message.subject, revision, headers);
            }
            if left == 0 {
                return Ok(());
            }
            // Cut short by the server, for example by a change of the leader. The index would pass over the jobs of the
            // rest until it is made anew. The next scan learns how many are left, should others have deleted them.
            if is_empty {
                return Err(Failure::Uncertain(StoreProblem::Unreachable, None));
            }
        }
    }
}

/// Applies a message to the index.
fn apply(index: &mut Index, names: &BucketNames, subject: &str, revision: u64, headers: &HeaderMap) {
    let Some(key) = names.key(subject) else { return index.skip(revision) };
    let is_deletion = is_deletion(headers);
    if key.starts_with(PAUSE_PREFIX) {
        index.set_paused(key, revision, !is_deletion);
    } else if !key.starts_with(JOB_PREFIX) {
        index.skip(revision);
    } else if is_deletion {
        index.remove(key, revision);
    } else {
        let header = headers.get(PROJECTION_HEADER);
        match header.and_then(|header| Projection::decode(header.as_str())) {
            Some(projection) => index.put(key, revision, projection),
            None => {
                tracing::warn!(key, "the job store has a record of another version, which is left alone");
                index.skip(revision);
            }
        }
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> Failure {
    Failure::Uncertain(StoreProblem::Unreachable, Some(std::sync::Arc::new(error)))
}

/// The most messages that are read one by one. Beyond that a consumer takes fewer requests.
const FEW: u64 = 16;
/// The messages in one batch: about 300 KB of headers.
const BATCH_LEN: usize = 1000;
/// The time after which the server removes a consumer whose reader has ended.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// The age up to which an index may prove that a pool has no job.
const RECENT: Duration = Duration::from_secs(300);
