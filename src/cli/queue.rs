//! The job store of the bulk commands: the one place that turns `--queue`, `--account` and `--pool` into a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringlift::bulk::{Account, IngestOptions, JobStore, OwnerId, Pool, SqliteJobStore, SqliteOptions};
use ringlift::{Credentials, Endpoint, Secret, Settings, SharedBudget, Trust};

use super::escape::quoted;
use super::events::wall_clock;
use super::exit::{CommandError, Exit};
use super::fleet_queue::NatsQueue;
use super::ingest_args::StoreArgs;
use super::journal;
use super::store_error::store_error;

/// A place of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QueuePlace {
    /// A file of this host.
    File {
        path: PathBuf,
        /// `true` if the user chose the file.
        is_given: bool,
    },
    /// NATS servers, for several hosts.
    Nats(Box<NatsQueue>),
}

/// An open queue.
pub(super) struct OpenQueue {
    pub(super) store: Arc<dyn JobStore>,
    /// The request budget that the workers of the queue share.
    pub(super) budget: SharedBudget,
}

impl QueuePlace {
    /// Returns the place that the flags name. Opens nothing. Servers are trusted by the certificates of the service, too.
    pub(super) fn of(args: &StoreArgs, trust: &Trust) -> Result<QueuePlace, CommandError> {
        let Some(path) = &args.queue else {
            let beside_journal = journal::path(None).map(|journal| journal.with_file_name("jobs.db"));
            let path = beside_journal.ok_or_else(|| {
                CommandError::usage("there is no state directory for the queue: give a file with --queue")
            })?;
            return Ok(QueuePlace::File { path, is_given: false });
        };
        match path.to_str().and_then(|text| text.split_once("://")) {
            Some(("nats" | "tls", _)) => {
                let url = path.to_str().unwrap_or_default();
                Ok(QueuePlace::Nats(Box::new(NatsQueue::new(url, args, trust)?)))
            }
            // A file name may contain a colon, but no folder is named like a scheme by intention.
            Some((scheme, _)) => Err(CommandError::usage(format!(
                "--queue: {scheme}:// is unknown: give a file or nats://HOST:4222"
            ))),
            None => Ok(QueuePlace::File { path: path.clone(), is_given: true }),
        }
    }

    /// Opens the store, and creates it if it is missing.
    pub(super) fn open(&self, account: Account) -> Result<Arc<dyn JobStore>, CommandError> {
        match self {
            QueuePlace::File { path, .. } => match SqliteJobStore::open(SqliteOptions::new(path, account)) {
                Ok(store) => Ok(Arc::new(store)),
                Err(error) => Err(store_error(&error)),
            },
            QueuePlace::Nats(nats) => nats.open(account),
        }
    }

    /// Opens the store for a worker, and announces the worker to the others.
    pub(super) fn open_for_work(
        &self,
        account: Account,
        options: &mut IngestOptions,
    ) -> Result<OpenQueue, CommandError> {
        options.shared_account = self.is_shared().then(|| account.clone());
        match self {
            QueuePlace::File { .. } => {
                Ok(OpenQueue { store: self.open(account)?, budget: SharedBudget::default() })
            }
            QueuePlace::Nats(nats) => {
                let (store, budget) = nats.open_for_work(account, &options.owner)?;
                Ok(OpenQueue { store, budget })
            }
        }
    }

    /// Returns `true` if other hosts work on the queue, too.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self, QueuePlace::File { .. })
    }

    /// Refuses an upload token, which other hosts would need, and which a server should not have.
    pub(super) fn check_token(&self, token: Option<&Secret>) -> Result<(), CommandError> {
        if self.is_shared() && token.is_some() {
            return Err(CommandError::usage(
                "a queue that several hosts share keeps no upload token: use the API key of the account",
            ));
        }
        Ok(())
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
        match self {
            // On an error, such as a directory that may not be searched, the opening names what is wrong.
            QueuePlace::File { path, .. } => !matches!(path.try_exists(), Ok(false)),
            QueuePlace::Nats(_) => true,
        }
    }

    /// Returns the journal of the uploads of this queue's jobs: the two belong together.
    pub(super) fn journal(&self) -> Option<PathBuf> {
        match self {
            QueuePlace::File { path, is_given: true } => Some(path.with_extension("journal.db")),
            QueuePlace::File { is_given: false, .. } => journal::path(None),
            // The journal is this host's part: it resumes its own uploads by it.
            QueuePlace::Nats(_) => journal::path(None),
        }
    }

    /// Returns the file beside which a watch of folders keeps its lock. The lock is for this host.
    pub(super) fn lock_place(&self) -> Option<PathBuf> {
        match self {
            QueuePlace::File { path, .. } => Some(path.clone()),
            QueuePlace::Nats(_) => self.journal(),
        }
    }

    /// Returns the pool with this name, or the usual one.
    ///
    /// The usual pool of a file has no host in its name: hosts that share the file share its jobs, and the name of a
    /// container changes with each start, which would make every file another job.
    pub(super) fn pool(&self, name: Option<&str>) -> Result<Pool, CommandError> {
        match self {
            QueuePlace::File { .. } => pool_named(name.unwrap_or(LOCAL_POOL)),
            // Without a name the files are those of this host: others may have other files at the same paths.
            QueuePlace::Nats(_) => match name {
                Some(name) => pool_named(name),
                None => pool_named(&format!("host:{}", host_name())),
            },
        }
    }

    /// Returns the flag that names a pool, after a blank; empty for the usual pool.
    pub(super) fn pool_flag(&self, pool: &Pool) -> String {
        if self.pool(None).is_ok_and(|usual| usual == *pool) {
            return String::new();
        }
        format!(" --pool {}", quoted(Path::new(pool.as_str())))
    }

    /// Returns the number of accounts with jobs in the queue.
    pub(super) fn accounts(&self) -> usize {
        match self {
            QueuePlace::File { path, .. } => {
                // Only a hint depends on the number, and the list itself has been read.
                SqliteJobStore::accounts(path).map_or(0, |accounts| accounts.len())
            }
            QueuePlace::Nats(_) => 0,
        }
    }

    /// Returns the place as text.
    pub(super) fn name(&self) -> String {
        match self {
            QueuePlace::File { path, .. } => path.display().to_string(),
            QueuePlace::Nats(nats) => nats.name(),
        }
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
    let host = host_name();
    let now = wall_clock().duration_since(std::time::SystemTime::UNIX_EPOCH);
    // With a clock before 1970 only the process id distinguishes the owners of this host.
    let nanos = now.map_or(0, |time| time.as_nanos() as u64);
    OwnerId::new(&host, std::process::id(), nanos)
}

fn host_name() -> String {
    let name = fs::read_to_string(Path::new(HOST_NAME)).unwrap_or_default();
    name.trim().to_owned()
}

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The usual pool of a queue in a file.
const LOCAL_POOL: &str = "local";

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(text: &str) -> Result<QueuePlace, CommandError> {
        QueuePlace::of(&StoreArgs { queue: Some(text.into()), ..StoreArgs::default() }, &Trust::default())
    }

    #[test]
    fn only_a_pool_that_is_not_the_usual_one_needs_a_flag() {
        let of_host = format!("host:{}", host_name());
        let file = queue("a.db").unwrap();
        for (pool, flag) in [(LOCAL_POOL, ""), ("share:a", " --pool share:a"), ("a b", " --pool 'a b'")] {
            assert_eq!(file.pool_flag(&pool_named(pool).unwrap()), flag);
        }
        if cfg!(feature = "fleet") {
            let nats = queue("nats://host").unwrap();
            assert_eq!(nats.pool_flag(&pool_named(&of_host).unwrap()), "");
            assert_eq!(nats.pool_flag(&pool_named(LOCAL_POOL).unwrap()), " --pool local");
        }
    }

    #[test]
    fn urls_are_no_file_names() {
        let nats = ["nats://host:4222", "tls://host", "nats://user:password@host"];
        let refused = if cfg!(feature = "fleet") { &["redis://host"][..] } else { &nats };
        for url in refused {
            let error = queue(url).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{url}: {error}");
            assert!(!error.to_string().contains("password"), "{error}");
        }
        assert_eq!(queue("a:b.db").unwrap().journal(), Some("a:b.journal.db".into()));
    }
}
