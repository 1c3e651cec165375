//! Reads and conditional writes of one account's bucket.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::kv;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageError, StorageType, Stream};
use bytes::Bytes;
use serde::Deserialize;

use super::connection::{NatsConnection, REQUEST_TIMEOUT};
use super::failure::Failure;
use super::names::{BucketNames, MARKER_HEADER, OPERATION_HEADER, PROJECTION_HEADER};
use super::record::StoredJob;
use crate::bulk::{StoreProblem, UnixMillis};

/// The bucket of one account. Reads are answered by the leader of the stream: a replica may lag behind.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) connection: NatsConnection,
    pub(super) names: BucketNames,
    /// The text for persons who look into the server.
    pub(super) description: String,
    pub(super) replicas: usize,
}

/// The newest message of a key.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) subject: String,
    /// The number of the message in the stream, which a conditional write names.
    pub(super) revision: u64,
    /// The server's time of the write.
    pub(super) written_at: UnixMillis,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// The state of the stream behind the bucket.
#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    /// The server's time of the answer.
    #[serde(default)]
    ts: Option<String>,
    state: Sequences,
    #[serde(default)]
    cluster: Option<StreamPlace>,
}

/// The servers that have the stream.
#[derive(Debug, Deserialize)]
struct StreamPlace {
    #[serde(default)]
    leader: Option<String>,
    /// The servers beside the leader.
    #[serde(default)]
    replicas: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Sequences {
    last_seq: u64,
}

impl StreamState {
    /// Returns the server's time.
    pub(super) fn time(&self) -> Option<UnixMillis> {
        let time: jiff::Timestamp = self.ts.as_deref()?.parse().ok()?;
        Some(UnixMillis::new(u64::try_from(time.as_millisecond()).ok()?))
    }

    /// Returns `true` if the server with this name has the stream, and no other server has a copy.
    pub(super) fn is_only_on(&self, server: &str) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|place| place.replicas.is_empty() && place.leader.as_deref() == Some(server))
    }

    /// Returns the number of the last message.
    pub(super) fn last_revision(&self) -> u64 {
        self.state.last_seq
    }
}

impl StoredMessage {
    /// Returns `true` if the message deletes its key.
    pub(super) fn is_deletion(&self) -> bool {
        is_deletion(&self.headers)
    }

    /// Returns the job in the message; `None` for a deletion.
    pub(super) fn job(&self) -> Result<Option<StoredJob>, Failure> {
        if self.is_deletion() {
            return Ok(None);
        }
        StoredJob::decode(&self.payload, self.revision).map(Some).map_err(Failure::record)
    }
}

/// Returns `true` for the headers of a message that deletes its key.
pub(super) fn is_deletion(headers: &HeaderMap) -> bool {
    // A server writes a marker of its own once a message with a lifetime has expired.
    headers.get(OPERATION_HEADER).is_some() || headers.get(MARKER_HEADER).is_some()
}

impl Bucket {
    pub(super) fn stream(&self) -> impl Future<Output = Result<Stream<()>, Failure>> {
        // Without a request for the state of the stream, which would precede each read.
        let stream = self.connection.jetstream.get_stream_no_info(self.names.stream.clone());
        async {
            stream.await.map_err(|error| Failure::Failed(StoreProblem::Io, Some(std::sync::Arc::new(error))))
        }
    }

    /// Creates the bucket if it does not exist.
    pub(super) async fn create(&self) -> Result<(), Failure> {
        // First, because a user may be permitted to use the bucket and not to create it.
        match self.state().await {
            Err(Failure::NoBucket) => {}
            found => return found.map(drop),
        }
        let config = self.config();
        let created = bounded(async { Ok(self.connection.jetstream.create_key_value(config).await) }).await?;
        match created {
            Ok(_) => Ok(()),
            // Another worker may have created the bucket at the same time.
            Err(error) => match self.state().await {
                Ok(_) => Ok(()),
                Err(_) => Err(self.not_created(error)),
            },
        }
    }

    fn config(&self) -> kv::Config {
        kv::Config {
            bucket: self.names.bucket.clone(),
            description: self.description.clone(),
            // A conditional write names the newest record, and no reader needs an older one.
            history: 1,
            storage: StorageType::File,
            num_replicas: self.replicas,
            // Deletions vanish after a time, so that forgotten jobs leave nothing behind.
            limit_markers: Some(TOMBSTONE_LIFETIME),
            ..kv::Config::default()
        }
    }

    /// Returns the failure to create the bucket, or the one beside it.
    pub(super) fn not_created(&self, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        // A single server refuses copies, and a cluster without enough peers finds no place for them.
        let reason = causes(&error);
        let is_of_copies = ["replicas > 1 not supported", "no suitable peers"];
        let problem = if is_of_copies.iter().any(|text| reason.contains(text)) {
            StoreProblem::TooFewServers { wanted: self.replicas }
        } else {
            StoreProblem::NotWritable
        };
        Failure::Failed(problem, Some(std::sync::Arc::new(error)))
    }

    /// Returns the state of the stream.
    pub(super) async fn state(&self) -> Result<StreamState, Failure> {
        let subject = format!("STREAM.INFO.{}", self.names.stream);
        // By a request of its own, because the client's type leaves out `ts`, the time of the server.
        let answer: Response<StreamState> = self.connection.jetstream.request(subject, &()).await?;
        match answer {
            Response::Ok(state) => Ok(state),
            Response::Err { error } => Err(Failure::of_jetstream(error)),
        }
    }

    /// Reads the newest message of a key.
    pub(super) async fn read(&self, key: &str) -> Result<StoredMessage, Failure> {
        let stream = self.stream().await?;
        let found = stream.get_last_raw_message_by_subject(&self.names.subject(key)).await;
        message(found)
    }

    /// Reads the message with this revision. It is gone once its key has a newer one.
    pub(super) async fn read_revision(&self, revision: u64) -> Result<StoredMessage, Failure> {
        message(self.stream().await?.get_raw_message(revision).await)
    }

    /// Writes a job if the newest message of the key has the revision `expected`, which is 0 if there is none. Returns
    /// a future of the new revision. Messages are sent in the order of the calls.
    pub(super) async fn send_job(
        &self,
        key: &str,
        job: &StoredJob,
        expected: u64,
    ) -> Result<impl Future<Output = Result<u64, Failure>> + use<>, Failure> {
        let message = PublishMessage::build()
            .payload(job.encode().into())
            .header(PROJECTION_HEADER, job.projection().encode().as_str());
        self.send(key, message, expected).await
    }

    /// Writes a job, and returns its new revision.
    pub(super) async fn write_job(&self, key: &str, job: &StoredJob, expected: u64) -> Result<u64, Failure> {
        self.send_job(key, job, expected).await?.await
    }

    /// Writes plain text, and returns its revision.
    pub(super) async fn write_text(&self, key: &str, text: String, expected: u64) -> Result<u64, Failure> {
        self.send(key, PublishMessage::build().payload(text.into()), expected).await?.await
    }

    /// Deletes a key, and returns the revision of the deletion, which vanishes after [`TOMBSTONE_LIFETIME`].
    pub(super) async fn delete(&self, key: &str, expected: u64) -> Result<u64, Failure> {
        let message = PublishMessage::build().header(OPERATION_HEADER, "DEL").ttl(TOMBSTONE_LIFETIME);
        self.send(key, message, expected).await?.await
    }

    async fn send(
        &self,
        key: &str,
        message: PublishMessage,
        expected: u64,
    ) -> Result<impl Future<Output = Result<u64, Failure>> + use<>, Failure> {
        let message = message.expected_last_subject_sequence(expected);
        let sent = self.connection.jetstream.send_publish(self.names.subject(key), message);
        let answer = bounded(async { Ok(sent.await?) }).await?;
        Ok(async move { bounded(async { Ok(answer.await?.sequence) }).await })
    }
}

/// Limits a request to the time of [`REQUEST_TIMEOUT`].
pub(super) async fn bounded<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(REQUEST_TIMEOUT, request).await.unwrap_or_else(|_| Err(Failure::timeout()))
}

/// Returns the error and its causes as text.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn message(
    found: Result<async_nats::jetstream::message::StreamMessage, RawMessageError>,
) -> Result<StoredMessage, Failure> {
    match found {
        Ok(found) => Ok(StoredMessage {
            subject: found.subject.to_string(),
            revision: found.sequence,
            written_at: UnixMillis::new(
                u64::try_from(found.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
            ),
            headers: found.headers,
            payload: found.payload,
        }),
        Err(error) => Err(match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Failure::NotFound,
            LastRawMessageErrorKind::JetStream(refusal) => Failure::of_jetstream(refusal),
            _ => Failure::Uncertain(StoreProblem::Unreachable, Some(std::sync::Arc::new(error))),
        }),
    }
}

/// The time after which a deletion vanishes. An index that is older is made anew.
pub(super) const TOMBSTONE_LIFETIME: Duration = Duration::from_secs(3600);
