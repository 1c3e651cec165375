//! Names of buckets, keys and headers in NATS.
//!
//! Names of jobs, pools and accounts contain characters that a key or a subject must not have (`:`, `.`, `*`, `>`).
//! They are encoded; the plain names are in the records.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::bulk::{Account, JobId, Pool};
use crate::source::sha256::hex;

/// The names of an account's bucket.
#[derive(Clone, Debug)]
pub(super) struct BucketNames {
    /// The name of the key-value bucket.
    pub(super) bucket: String,
    /// The name of the stream behind it.
    pub(super) stream: String,
    /// The start of each key's subject.
    prefix: String,
}

impl BucketNames {
    /// Creates the names of the bucket that keeps the jobs of `account`.
    pub(super) fn jobs(account: &Account) -> BucketNames {
        BucketNames::new("jobs", account)
    }

    /// Creates the names of the bucket for the workers and budgets of `account`.
    pub(super) fn live(account: &Account) -> BucketNames {
        BucketNames::new("live", account)
    }

    fn new(kind: &str, account: &Account) -> BucketNames {
        // An account may have any name, and a bucket may not. 16 bytes are enough to keep accounts apart.
        let sum = digest(&SHA256, account.as_str().as_bytes());
        let bucket = format!("ringlift-{kind}-{}", hex(&sum.as_ref()[..16]));
        let (stream, prefix) = (format!("KV_{bucket}"), format!("$KV.{bucket}."));
        BucketNames { bucket, stream, prefix }
    }

    /// Returns the subject of a key.
    pub(super) fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Returns the key of a subject; `None` if the subject is another bucket's.
    pub(super) fn key<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)
    }

    /// Returns the subject that stands for all keys.
    pub(super) fn all(&self) -> String {
        format!("{}>", self.prefix)
    }
}

/// Returns the key of a job's record.
pub(super) fn job_key(id: &JobId) -> String {
    format!("{JOB_PREFIX}{}", encode(id.as_str()))
}

/// Returns the key that exists while the pool is paused.
pub(super) fn pause_key(pool: &Pool) -> String {
    format!("{PAUSE_PREFIX}{}", encode(pool.as_str()))
}

/// Returns the text in the letters, digits, `-` and `_`, which every name may have.
pub(super) fn encode(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Returns the text that was encoded.
pub(super) fn decode(encoded: &str) -> Option<String> {
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

pub(super) const JOB_PREFIX: &str = "job.";
pub(super) const PAUSE_PREFIX: &str = "pause.";
/// The key of the settings that all workers share.
pub(super) const SETTINGS_KEY: &str = "settings";

/// The header with the fields of a job that the index needs.
pub(super) const PROJECTION_HEADER: &str = "Ringlift-Job";
/// The header of a message that deletes its key. KV clients set it.
pub(super) const OPERATION_HEADER: &str = "KV-Operation";
/// The header of a message by which the server itself deletes a key.
pub(super) const MARKER_HEADER: &str = "Nats-Marker-Reason";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_becomes_a_key_and_comes_back(name in "[^\\p{Cc}]{1,60}") {
            let id = JobId::new(&name).unwrap();
            let key = job_key(&id);
            prop_assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
            prop_assert_eq!(key.matches('.').count(), 1);
            prop_assert_eq!(decode(key.strip_prefix(JOB_PREFIX).unwrap()), Some(name));
        }
    }

    #[test]
    fn accounts_have_buckets_of_their_own() {
        let [a, b] = ["a.*>", "b"].map(|name| BucketNames::jobs(&Account::named(name).unwrap()));
        assert_ne!(a.bucket, b.bucket);
        assert_eq!(a.key(&a.subject("job.x")), Some("job.x"));
        assert_eq!(b.key(&a.subject("job.x")), None);
    }
}
