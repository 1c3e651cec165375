//! The job store of the bulk commands: the one place that turns `--queue`, `--account` and `--pool` into a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringlift::bulk::{
    Account, JobStore, JobStoreError, OwnerId, Pool, SqliteJobStore, SqliteOptions, StoreProblem,
};
use ringlift::{Credentials, Endpoint, Secret, Settings};

use super::events::wall_clock;
use super::exit::{CommandError, Exit};
use super::ingest_args::StoreArgs;
use super::journal;

/// A place of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QueuePlace {
    /// A file of this host.
    File {
        path: PathBuf,
        /// `true` if the user chose the file.
        is_given: bool,
    },
}

impl QueuePlace {
    /// Returns the place that the flags name. Opens nothing.
    pub(super) fn of(args: &StoreArgs) -> Result<QueuePlace, CommandError> {
        let Some(path) = &args.queue else {
            let beside_journal = journal::path(None).map(|journal| journal.with_file_name("jobs.db"));
            let path = beside_journal.ok_or_else(|| {
                CommandError::usage("there is no state directory for the queue: give a file with --queue")
            })?;
            return Ok(QueuePlace::File { path, is_given: false });
        };
        match path.to_str().and_then(|text| text.split_once("://")) {
            Some(("nats" | "tls", _)) => Err(CommandError::usage(
                "--queue: this build has no fleet support: give a file, or install a build with the feature `fleet`",
            )),
            // A file name may contain a colon, but no folder is named like a scheme by intention.
            Some((scheme, _)) => Err(CommandError::usage(format!(
                "--queue: {scheme}:// is unknown: give a file or nats://HOST:4222"
            ))),
            None => Ok(QueuePlace::File { path: path.clone(), is_given: true }),
        }
    }

    /// Opens the store, and creates the file if it is missing.
    pub(super) fn open(&self, account: Account) -> Result<Arc<dyn JobStore>, CommandError> {
        let QueuePlace::File { path, .. } = self;
        match SqliteJobStore::open(SqliteOptions::new(path, account)) {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Opens the store for a command that adds no jobs. A file that the user chose must exist: a misspelled name would
    /// be an empty queue.
    pub(super) fn open_existing(&self, account: Account) -> Result<Arc<dyn JobStore>, CommandError> {
        match self {
            QueuePlace::File { path, is_given: true } if !self.exists() => {
                let why = format!("{}: there is no such queue: `ringlift submit` creates it", path.display());
                Err(CommandError::Other(Exit::NoSuchFile, why))
            }
            _ => self.open(account),
        }
    }

    /// Returns `true` unless the queue certainly does not exist yet.
    pub(super) fn exists(&self) -> bool {
        let QueuePlace::File { path, .. } = self;
        !matches!(path.try_exists(), Ok(false))
    }

    /// Returns the journal of the uploads of this queue's jobs: the two belong together.
    pub(super) fn journal(&self) -> Option<PathBuf> {
        match self {
            QueuePlace::File { path, is_given: true } => Some(path.with_extension("journal.db")),
            QueuePlace::File { is_given: false, .. } => journal::path(None),
        }
    }

    /// Returns the pool with this name, or the usual one.
    ///
    /// The usual pool of a file has no host in its name: hosts that share the file share its jobs, and the name of a
    /// container changes with each start, which would make every file another job.
    pub(super) fn pool(&self, name: Option<&str>) -> Result<Pool, CommandError> {
        let QueuePlace::File { .. } = self;
        pool_named(name.unwrap_or(LOCAL_POOL))
    }

    /// Returns the number of accounts with jobs in the queue.
    pub(super) fn accounts(&self) -> usize {
        let QueuePlace::File { path, .. } = self;
        SqliteJobStore::accounts(path).map_or(0, |accounts| accounts.len())
    }

    /// Returns the place as text.
    pub(super) fn name(&self) -> String {
        let QueuePlace::File { path, .. } = self;
        path.display().to_string()
    }
}

/// Returns the pool with this name.
pub(super) fn pool_named(name: &str) -> Result<Pool, CommandError> {
    Pool::new(name).map_err(|flaw| CommandError::usage(format!("--pool: {flaw}")))
}

/// Returns the account by its name, or by the endpoint and the credentials.
pub(super) fn account(
    name: Option<&str>,
    settings: &Settings,
    token: Option<&Secret>,
) -> Result<Account, CommandError> {
    if let Some(name) = name {
        return Account::named(name).map_err(|flaw| CommandError::usage(format!("--account: {flaw}")));
    }
    let secret = match (&settings.credentials, token) {
        (Credentials::ApiKey(key), _) => key.reveal(),
        (_, Some(token)) => token.reveal(),
        _ => {
            return Err(CommandError::usage(
                "jobs belong to an account: set APIVIDEO_API_KEY or use --api-key-file, or name the account with \
                 --account",
            ));
        }
    };
    Ok(Account::of_key(&Endpoint::canonical_of(&settings.endpoint_url), secret))
}

/// Returns the identity of this process for leases.
pub(super) fn owner() -> OwnerId {
    let host = fs::read_to_string(Path::new(HOST_NAME)).unwrap_or_default();
    let now = wall_clock().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let nanos = now.map_or(0, |time| time.as_nanos() as u64);
    OwnerId::new(host.trim(), std::process::id(), nanos)
}

pub(super) fn store_error(error: &JobStoreError) -> CommandError {
    CommandError::Other(store_exit(error), error.to_string())
}

/// Returns the exit of a store's error.
pub(super) fn store_exit(error: &JobStoreError) -> Exit {
    match error.problem() {
        Some(StoreProblem::Locked) => Exit::Temporary,
        _ => Exit::Failed,
    }
}

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The usual pool of a queue in a file.
const LOCAL_POOL: &str = "local";

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(text: &str) -> Result<QueuePlace, CommandError> {
        QueuePlace::of(&StoreArgs { queue: Some(text.into()), account: None })
    }

    #[test]
    fn urls_are_no_file_names() {
        for url in ["nats://host:4222", "tls://host", "redis://host", "nats://user:password@host"] {
            let error = queue(url).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{url}: {error}");
            assert!(!error.to_string().contains("password"), "{error}");
        }
        assert_eq!(queue("a:b.db").unwrap().journal(), Some("a:b.journal.db".into()));
    }
}
