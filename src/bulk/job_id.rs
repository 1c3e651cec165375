//! Names of jobs, accounts, pools and workers.

use std::fmt;
use std::os::unix::ffi::OsStrExt;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::job_source::{ContentStamp, JobSource};
use crate::source::sha256::hex;

/// The identity of a job, unique in its account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(String);

/// The account that jobs belong to. No worker takes a job of another account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Account(String);

/// The pool of a job: a set of workers that can open the job's file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pool(String);

/// The identity of one process that works on jobs: host, process id and a random number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnerId(String);

/// The reason why a text cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFlaw {
    /// The text is empty.
    #[error("the {what} is empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// The text is longer than 200 bytes.
    #[error("the {what} has {len} bytes; the limit is {LONGEST_NAME}")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// The length in bytes.
        len: usize,
    },
    /// The text contains a line break or another control character.
    #[error("the {what} contains control characters")]
    Control {
        /// The kind of name.
        what: &'static str,
    },
}

impl JobId {
    /// Creates the id that a manifest gives.
    ///
    /// # Errors
    /// The text is empty, too long, or contains control characters.
    pub fn new(id: &str) -> Result<JobId, NameFlaw> {
        checked("job id", id).map(JobId)
    }

    /// Returns the id of a job without an id of its own: a SHA-256 in hex over account, pool, source, size and mtime.
    ///
    /// The path must be absolute. Its bytes count, not its text.
    pub fn derive(account: &Account, pool: &Pool, source: &JobSource, stamp: Option<ContentStamp>) -> JobId {
        JobId(hex(&content_digest(account, pool, source, stamp)))
    }

    /// Returns the text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Account {
    /// Creates the account with the given name.
    ///
    /// # Errors
    /// The text is empty, too long, or contains control characters.
    pub fn named(name: &str) -> Result<Account, NameFlaw> {
        checked("account name", name).map(Account)
    }

    /// Returns the account of an API key at an endpoint: a SHA-256 in hex, which reveals neither.
    ///
    /// `endpoint` is the canonical form of the base URL.
    pub fn of_key(endpoint: &str, key: &str) -> Account {
        Account(hex(&sha256(&[b"account", endpoint.as_bytes(), key.as_bytes()])))
    }

    /// Returns the text of the account.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pool {
    /// Creates the pool with the given name.
    ///
    /// # Errors
    /// The text is empty, too long, or contains control characters.
    pub fn new(name: &str) -> Result<Pool, NameFlaw> {
        checked("pool name", name).map(Pool)
    }

    /// Returns `true` if the files of the pool are those of one host: the pool is named `host:NAME`.
    pub(crate) fn is_of_one_host(&self) -> bool {
        self.0.starts_with("host:")
    }

    /// Returns the name of the pool.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl OwnerId {
    /// Creates the identity of a process. `random` distinguishes it from processes that had the same id before.
    ///
    /// Characters of `host` that cannot be part of a file name become `_`.
    pub fn new(host: &str, pid: u32, random: u64) -> OwnerId {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let host: String =
            host.chars().take(LONGEST_HOST).map(|c| if is_plain(c) { c } else { '_' }).collect();
        OwnerId(format!("{host}+{pid}+{random:016x}"))
    }

    /// Returns the identity in a text of [`OwnerId::as_str`]; `None` if it is none.
    #[allow(dead_code)] // Only the fleet uses it, which a build may leave out.
    pub(crate) fn parse(text: &str) -> Option<OwnerId> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
        let is_owner = text.matches('+').count() == 2 && text.len() <= LONGEST_NAME;
        (is_owner && text.chars().all(is_plain)).then(|| OwnerId(text.to_owned()))
    }

    /// Returns the host of the process.
    pub fn host(&self) -> &str {
        self.0.split('+').next().unwrap_or_default()
    }

    /// Returns the text of the identity. It is a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the digest of the content that a job stands for. Two jobs with equal digests have the same content.
pub(crate) fn content_digest(
    account: &Account,
    pool: &Pool,
    source: &JobSource,
    stamp: Option<ContentStamp>,
) -> [u8; 32] {
    let (kind, place): (&[u8], &[u8]) = match source {
        JobSource::File { path } => (b"file", path.as_os_str().as_bytes()),
        JobSource::Url { url } => (b"url", url.as_bytes()),
    };
    let stamp = stamp.map_or_else(Vec::new, |stamp| {
        [&stamp.size.to_le_bytes()[..], &stamp.mtime_ns.to_le_bytes()].concat()
    });
    sha256(&[account.0.as_bytes(), pool.0.as_bytes(), kind, place, &stamp])
}

/// Returns the mark of a job's video, which every host derives. A job that begins anew has another mark.
pub(super) fn video_mark(account: &Account, id: &JobId, restarts: u32) -> String {
    let sum = sha256(&[b"video", account.0.as_bytes(), id.0.as_bytes(), &restarts.to_le_bytes()]);
    // 128 bits, like the random marks of uploads without a shared queue.
    hex(&sum[..16])
}

/// Returns the SHA-256 of an upload token in hex. It identifies the token and does not reveal it.
pub(super) fn token_digest(token: &str) -> String {
    hex(&sha256(&[b"upload token", token.as_bytes()]))
}

/// Returns the digest over `pieces`, each preceded by its length: a byte that moves from one piece to the next
/// changes the digest.
fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for piece in pieces {
        context.update(&(piece.len() as u64).to_le_bytes());
        context.update(piece);
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(context.finish().as_ref());
    sum
}

fn checked(what: &'static str, text: &str) -> Result<String, NameFlaw> {
    if text.is_empty() {
        Err(NameFlaw::Empty { what })
    } else if text.len() > LONGEST_NAME {
        Err(NameFlaw::TooLong { what, len: text.len() })
    } else if text.chars().any(char::is_control) {
        // Reports and lists have one line for each job.
        Err(NameFlaw::Control { what })
    } else {
        Ok(text.to_owned())
    }
}

/// The longest job id, account name and pool name, in bytes. Encoded, the three fit into a key of a NATS store.
pub(super) const LONGEST_NAME: usize = 200;

/// The longest host name, HOST_NAME_MAX of gethostname(2).
const LONGEST_HOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> JobSource {
        JobSource::File { path: path.into() }
    }

    fn derived(account: &str, pool: &str, path: &str, size: u64, mtime_ns: i128) -> JobId {
        let (account, pool) = (Account::named(account).unwrap(), Pool::new(pool).unwrap());
        JobId::derive(&account, &pool, &file(path), Some(ContentStamp { size, mtime_ns }))
    }

    #[test]
    fn the_same_file_gives_the_same_id_and_any_difference_another() {
        let id = derived("a", "p", "/films/x.mp4", 5, 7);
        assert_eq!(id, derived("a", "p", "/films/x.mp4", 5, 7));
        assert_eq!(id.as_str().len(), 64);
        for other in [
            derived("b", "p", "/films/x.mp4", 5, 7),
            derived("a", "q", "/films/x.mp4", 5, 7),
            derived("a", "p", "/films/y.mp4", 5, 7),
            derived("a", "p", "/films/x.mp4", 6, 7),
            derived("a", "p", "/films/x.mp4", 5, 8),
            derived("ap", "/", "films/x.mp4", 5, 7),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn a_file_and_a_url_of_the_same_text_are_two_jobs() {
        let (account, pool) = (Account::named("a").unwrap(), Pool::new("p").unwrap());
        let url = JobSource::Url { url: "x".into() };
        assert_ne!(
            JobId::derive(&account, &pool, &file("x"), None),
            JobId::derive(&account, &pool, &url, None)
        );
    }

    #[test]
    fn names_are_not_empty_and_fit_on_one_line() {
        assert_eq!(JobId::new("").unwrap_err().to_string(), "the job id is empty");
        assert!(matches!(Pool::new("a\nb"), Err(NameFlaw::Control { .. })));
        let long = "x".repeat(LONGEST_NAME + 1);
        let flaw = Account::named(&long).unwrap_err();
        assert_eq!(flaw.to_string(), "the account name has 201 bytes; the limit is 200");
        assert!(JobId::new(&long[1..]).is_ok());
    }

    #[test]
    fn an_owner_is_a_file_name_and_keeps_its_host() {
        let owner = OwnerId::new("../host/1", 7, 9);
        assert_eq!(owner.host(), ".._host_1");
        assert!(!owner.as_str().contains('/'));
    }
}
