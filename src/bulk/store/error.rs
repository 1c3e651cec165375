//! Errors of job stores.

use std::error::Error as StdError;
use std::sync::Arc;

use crate::bulk::job_id::JobId;
use crate::bulk::lease::LostLease;
use crate::journal::BUSY_TIMEOUT;

/// An error of a job store. The store is unchanged.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobStoreError {
    /// The worker no longer holds the job. It must let go of the job.
    #[error("job {id}: the lease is lost: {reason}")]
    LeaseLost {
        /// The job.
        id: JobId,
        /// The reason.
        reason: LostLease,
    },
    /// The store has no such job.
    #[error("there is no job {id}")]
    NoSuchJob {
        /// The job.
        id: JobId,
    },
    /// A worker holds the job.
    #[error("a worker holds job {id}: cancel the job, or wait for the end of the lease")]
    Held {
        /// The job.
        id: JobId,
    },
    /// A value is too large to be stored.
    #[error("{what} {len}; the limit is {limit}")]
    TooLarge {
        /// The value and the unit of its size, such as `the bytes of the checkpoint are`.
        what: String,
        /// The size.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The cursor is not from this store.
    #[error("the list cannot go on from this cursor: begin at the first page")]
    BadCursor,
    /// The store cannot be used.
    #[error("the job store {place} {problem}")]
    Store {
        /// The path or the URL of the store. Contains no secret.
        place: String,
        /// The problem.
        problem: StoreProblem,
        /// The cause.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },
}

/// The reason why a store cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreProblem {
    /// The place has no job store.
    #[error("is not a ringlift job store: choose another path")]
    Foreign,
    /// The place is a directory.
    #[error("is a directory: name a file in it")]
    Directory,
    /// Another version made the store.
    #[error(
        "was made by another version of ringlift (format {found}, this one reads {known}): use that version, or another path"
    )]
    OtherVersion {
        /// The format of the store.
        found: i64,
        /// The format of this version.
        known: i64,
    },
    /// The content is inconsistent.
    #[error("is damaged: move it away and submit the jobs again")]
    Damaged,
    /// The file, or its directory, cannot be written.
    #[error("cannot be written")]
    NotWritable,
    /// The file system has no room.
    #[error("has no space left on its file system")]
    Full,
    /// JetStream has no room.
    #[error(
        "has no room left in JetStream: raise `max_file_store` of the NATS server or the limit of its account, \
         free its disk, or delete jobs that have ended"
    )]
    StorageLimit,
    /// The file system cannot lock files.
    #[error("is on a file system that cannot lock files: choose a path on a local one")]
    NoLocks,
    /// Other processes locked the store for too long. Temporary.
    #[error(
        "was locked by another process for {} seconds: continue or end the process that holds it (`fuser` on the file lists it), and try again",
        BUSY_TIMEOUT.as_secs()
    )]
    Locked,
    /// The file was removed or replaced while it was open.
    #[error("was removed or replaced while it was in use, so that its latest changes are lost")]
    Replaced,
    /// More calls wait for changes than the store allows.
    #[error("has too many waiting watchers")]
    TooManyWatchers,
    /// The store is closed, or its thread has ended.
    #[error("is closed")]
    Closed,
    /// The address of the store is not one of NATS servers.
    #[error("is no address of NATS servers: write nats://HOST:4222, and more hosts after commas")]
    BadAddress,
    /// The file with the credentials cannot be used.
    #[error("cannot be used, as the file with the credentials is missing or invalid")]
    BadCredentials,
    /// A file with CA certificates cannot be used.
    #[error("cannot be used, as a file with CA certificates is missing or invalid")]
    BadCertificates,
    /// The certificate of the server is not trusted, or the encryption failed otherwise.
    #[error(
        "was not connected: add the CA certificate of the NATS servers, and use a name that is in their certificate"
    )]
    Untrusted,
    /// The cluster has fewer servers than copies are requested.
    #[error(
        "has fewer NATS servers than the {wanted} copies of each job that are requested: request fewer copies"
    )]
    TooFewServers {
        /// The number of copies.
        wanted: usize,
    },
    /// No server answered.
    #[error("could not be reached: check the address, the network and the NATS server")]
    Unreachable,
    /// The server did not answer a request in time.
    #[error("did not answer in time: check the NATS server and the permissions of its user")]
    Timeout,
    /// The server refused the user.
    #[error("refused the user: check the credentials")]
    Denied,
    /// The server is too old.
    #[error("is on an older NATS server than 2.11, which the job store needs: update the server")]
    OldServer,
    /// The server has no JetStream.
    #[error("is on a NATS server without JetStream: enable it with `jetstream {{}}` in its configuration")]
    NoJetStream,
    /// The server allows only short messages.
    #[error(
        "is on a NATS server that allows messages of {found} bytes: raise `max_payload` to {needed} or more"
    )]
    SmallMessages {
        /// The limit of the server.
        found: usize,
        /// The length that the store needs.
        needed: usize,
    },
    /// Other workers changed the same job at the same time, again and again.
    #[error("has too many writers of the same job at the same time")]
    Contended,
    /// Reading or writing failed.
    #[error("could not be read or written")]
    Io,
}

impl JobStoreError {
    /// Returns the problem of the store; `None` if the store works and refused the request.
    pub fn problem(&self) -> Option<StoreProblem> {
        match self {
            JobStoreError::Store { problem, .. } => Some(*problem),
            _ => None,
        }
    }
}
