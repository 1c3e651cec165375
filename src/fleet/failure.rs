//! Failures of requests to NATS.

use std::error::Error as StdError;
use std::sync::Arc;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestError, RequestErrorKind};

use super::record::RecordFlaw;
use crate::bulk::{JobStoreError, StoreProblem};

/// The failure of a request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The record is another one than the write expects.
    Refused,
    /// There is no such message.
    NotFound,
    /// The bucket does not exist, or no longer.
    NoBucket,
    /// The request may have been carried out.
    Uncertain(StoreProblem, Option<Arc<dyn StdError + Send + Sync>>),
    /// The server refused the request.
    Failed(StoreProblem, Option<Arc<dyn StdError + Send + Sync>>),
}

/// The failure of an operation on jobs.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server did not do as requested.
    Engine(Failure),
    /// The server works, and the rules of the store refuse the operation.
    Store(JobStoreError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Engine(failure)
    }
}

impl From<JobStoreError> for Trouble {
    fn from(error: JobStoreError) -> Trouble {
        Trouble::Store(error)
    }
}

impl Trouble {
    /// Converts to the error of the store at `place`.
    pub(super) fn into_error(self, place: &str) -> JobStoreError {
        match self {
            Trouble::Engine(failure) => failure.into_error(place),
            Trouble::Store(error) => error,
        }
    }
}

impl Failure {
    /// Returns the failure of a request that was not answered in time.
    pub(super) fn timeout() -> Failure {
        Failure::Uncertain(StoreProblem::Timeout, None)
    }

    pub(super) fn record(flaw: RecordFlaw) -> Failure {
        let problem = match flaw {
            RecordFlaw::Format(found) => StoreProblem::OtherVersion { found, known: super::record::FORMAT },
            RecordFlaw::Damaged => StoreProblem::Damaged,
        };
        Failure::Failed(problem, None)
    }

    /// Returns the failure for an error of JetStream.
    pub(super) fn of_jetstream(error: async_nats::jetstream::Error) -> Failure {
        match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Failure::NoBucket,
            ErrorCode::NO_MESSAGE_FOUND => Failure::NotFound,
            code if is_wrong_sequence(code) => Failure::Refused,
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Failure::Failed(StoreProblem::NoJetStream, Some(Arc::new(error)))
            }
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => {
                Failure::Failed(StoreProblem::StorageLimit, Some(Arc::new(error)))
            }
            _ => Failure::Failed(StoreProblem::Io, Some(Arc::new(error))),
        }
    }

    /// Converts to the error of the store at `place`.
    pub(super) fn into_error(self, place: &str) -> JobStoreError {
        let (problem, source) = match self {
            Failure::Refused => (StoreProblem::Contended, None),
            Failure::NotFound | Failure::NoBucket => (StoreProblem::Replaced, None),
            Failure::Uncertain(problem, source) | Failure::Failed(problem, source) => (problem, source),
        };
        JobStoreError::Store { place: place.to_owned(), problem, source }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Failure {
        match error.kind() {
            RequestErrorKind::TimedOut => Failure::Uncertain(StoreProblem::Timeout, Some(Arc::new(error))),
            // No JetStream answers: the server is starting, or a cluster has no leader.
            RequestErrorKind::NoResponders => {
                Failure::Uncertain(StoreProblem::Unreachable, Some(Arc::new(error)))
            }
            _ => Failure::Uncertain(StoreProblem::Unreachable, Some(Arc::new(error))),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Failure {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Failure::Refused,
            PublishErrorKind::StreamNotFound => Failure::NoBucket,
            PublishErrorKind::TimedOut => Failure::Uncertain(StoreProblem::Timeout, Some(Arc::new(error))),
            PublishErrorKind::BrokenPipe => {
                Failure::Uncertain(StoreProblem::Unreachable, Some(Arc::new(error)))
            }
            PublishErrorKind::MaxPayloadExceeded => Failure::Failed(StoreProblem::Io, Some(Arc::new(error))),
            _ => Failure::of_other_publish(error),
        }
    }
}

impl Failure {
    fn of_other_publish(error: PublishError) -> Failure {
        let jetstream =
            error.source().and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
        match jetstream {
            Some(refusal) => Failure::of_jetstream(refusal.clone()),
            None => Failure::Uncertain(StoreProblem::Unreachable, Some(Arc::new(error))),
        }
    }
}

/// Returns `true` for the two codes with which servers refuse a conditional write.
fn is_wrong_sequence(code: ErrorCode) -> bool {
    code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE || code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
}
