//! The facts of a fleet that pass by themselves: workers that are present, and the shared request budgets.
//!
//! They have a bucket of their own, so that their frequent writes wake no worker that waits for jobs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Config as StreamConfig;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, bounded};
use super::failure::Failure;
use super::names::{decode, encode};
use super::record::RecordFlaw;
use crate::bulk::{MOST_PRESENT, OwnerId, Presence, PresentWorker, UnixMillis};

/// The bucket of facts that pass.
#[derive(Debug)]
pub(super) struct Live {
    bucket: Bucket,
    /// The workers that were present at the last look; 0 before the first.
    workers: AtomicU32,
}

#[derive(Deserialize)]
struct Subjects {
    state: SubjectState,
}

#[derive(Deserialize)]
struct SubjectState {
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

impl Live {
    pub(super) fn new(bucket: Bucket) -> Live {
        Live { bucket, workers: AtomicU32::new(0) }
    }

    /// Creates the bucket if it does not exist.
    pub(super) async fn create(&self) -> Result<(), Failure> {
        match self.bucket.state().await {
            Err(Failure::NoBucket) => {}
            found => return found.map(drop),
        }
        let names = &self.bucket.names;
        let config = StreamConfig {
            name: names.stream.clone(),
            description: Some("workers and request budgets of ringlift".to_owned()),
            subjects: vec![names.all()],
            max_messages_per_subject: 1,
            num_replicas: self.bucket.replicas,
            allow_rollup: true,
            // Without markers: a worker that has gone leaves nothing behind.
            allow_message_ttl: true,
            ..StreamConfig::default()
        };
        let created =
            bounded(async { Ok(self.bucket.connection.jetstream.create_stream(config).await) }).await?;
        match created {
            Ok(_) => Ok(()),
            // Another worker may have created the bucket at the same time.
            Err(error) => self.bucket.state().await.map(drop).map_err(|_| self.bucket.not_created(error)),
        }
    }

    /// Returns `true` if a request would reach a server now.
    pub(super) fn is_connected(&self) -> bool {
        self.bucket.connection.is_connected()
    }

    /// Reads the value of a key, and the revision that a write has to name.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<(Option<T>, u64), Failure> {
        match self.bucket.read(key).await {
            Ok(found) => {
                let value = serde_json::from_slice(&found.payload);
                Ok((Some(value.map_err(|_| Failure::record(RecordFlaw::Damaged))?), found.revision))
            }
            Err(Failure::NotFound) => Ok((None, 0)),
            Err(Failure::NoBucket) => self.create().await.map(|()| (None, 0)),
            Err(failure) => Err(failure),
        }
    }

    /// Returns the number of connections so far.
    pub(super) fn connection(&self) -> u64 {
        self.bucket.connection.number()
    }

    /// Writes the value of a key if its newest revision is `expected`. Returns the new revision.
    pub(super) async fn write<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        expected: u64,
    ) -> Result<u64, Failure> {
        let text = serde_json::to_string(value).unwrap_or_default();
        self.bucket.write_text(key, text, expected).await
    }

    /// Records that a worker is present, and repeats it until the task is dropped.
    pub(super) async fn announce(&self, owner: OwnerId) {
        let subject = self.bucket.names.subject(&format!("{HOST_PREFIX}{}", encode(owner.as_str())));
        loop {
            let message = PublishMessage::build().payload(owner.as_str().to_owned().into()).ttl(PRESENCE);
            // Without a condition, because the key has one writer.
            let sent = self.bucket.connection.jetstream.send_publish(subject.clone(), message);
            let announced = bounded(async { Ok(sent.await?.await?) }).await;
            if matches!(announced, Err(Failure::NoBucket)) {
                // After a failure the next announcement finds no bucket again, and repeats it.
                let _ = self.create().await;
            }
            // The number of workers counts while the servers are away.
            let _ = self.workers().await;
            // Two announcements may be lost before the presence ends.
            tokio::time::sleep(PRESENCE / 3).await;
        }
    }

    /// Returns the workers that are present.
    pub(super) async fn workers(&self) -> Result<Vec<String>, Failure> {
        let names = &self.bucket.names;
        let prefix = names.subject(HOST_PREFIX);
        let request = serde_json::json!({ "subjects_filter": format!("{prefix}>") });
        let answer =
            self.bucket.connection.jetstream.request(format!("STREAM.INFO.{}", names.stream), &request);
        let subjects = match answer.await? {
            Response::Ok(Subjects { state }) => state.subjects.unwrap_or_default(),
            Response::Err { error } => return Err(Failure::of_jetstream(error)),
        };
        let owner = |subject: &String| subject.strip_prefix(&prefix).and_then(decode);
        let mut workers: Vec<String> = subjects.keys().filter_map(owner).collect();
        workers.sort_unstable();
        self.workers.store(u32::try_from(workers.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        Ok(workers)
    }

    /// Returns the workers that are present at `now`, the server's time, with the ages of their heartbeats.
    pub(super) async fn present(&self, now: UnixMillis) -> Result<Presence, Failure> {
        let names = self.workers().await?;
        let total = names.len() as u64;
        let reads = names.into_iter().take(MOST_PRESENT).map(|name| async move {
            match self.bucket.read(&format!("{HOST_PREFIX}{}", encode(&name))).await {
                Ok(found) => {
                    // The clocks of a cluster's servers differ a little.
                    let age = now.get().saturating_sub(found.written_at.get());
                    Ok(OwnerId::parse(&name)
                        .map(|owner| PresentWorker::new(owner, Duration::from_millis(age))))
                }
                // The presence has ended since the list.
                Err(Failure::NotFound) => Ok(None),
                Err(failure) => Err(failure),
            }
        });
        let reads: Vec<BoxFuture<'_, _>> = reads.map(|read| read.boxed()).collect();
        let found: Vec<Option<PresentWorker>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        Ok(Presence::new(found.into_iter().flatten().collect(), total))
    }

    /// Returns the number of workers at the last look, at least 1.
    pub(super) fn worker_count(&self) -> u32 {
        self.workers.load(Ordering::Relaxed).max(1)
    }
}

/// The time for which a worker counts as present after its last word.
const PRESENCE: Duration = Duration::from_secs(45);

/// The workers that are read at the same time.
const AT_ONCE: usize = 16;

const HOST_PREFIX: &str = "host.";
