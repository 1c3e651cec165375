//! The order in which jobs of one priority are claimed.

use std::os::unix::ffi::OsStrExt;

use twox_hash::XxHash3_128;

use super::job_id::JobId;
use super::job_source::{ContentStamp, JobSource};

/// The order of jobs of the same priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OrderBy {
    /// The order of submission.
    #[default]
    Submission,
    /// The bytes of the path or URL.
    Name {
        /// `true` for the last one first.
        descending: bool,
    },
    /// The size of the file. URLs count as empty.
    Size {
        /// `true` for the largest first.
        descending: bool,
    },
    /// The mtime of the file. URLs count as oldest.
    Mtime {
        /// `true` for the newest first.
        descending: bool,
    },
    /// Large and small files in turn: an order that looks random, and is the same in every run.
    Mixed,
}

/// The position of a job among jobs of the same priority. Keys are compared byte by byte; the lowest comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortKey(Vec<u8>);

impl OrderBy {
    /// Returns the key of a job in this order.
    pub fn key(self, id: &JobId, source: &JobSource, stamp: Option<ContentStamp>) -> SortKey {
        let (bytes, descending) = match self {
            OrderBy::Submission => return SortKey::default(),
            OrderBy::Mixed => (XxHash3_128::oneshot(id.as_str().as_bytes()).to_be_bytes().to_vec(), false),
            OrderBy::Name { descending } => (name(source), descending),
            OrderBy::Size { descending } => {
                (stamp.map_or(0, |stamp| stamp.size).to_be_bytes().to_vec(), descending)
            }
            OrderBy::Mtime { descending } => {
                // The offset keeps the order of times before 1970, whose sign bit would place them last.
                let mtime = stamp.map_or(i128::MIN, |stamp| stamp.mtime_ns);
                ((mtime as u128 ^ (1 << 127)).to_be_bytes().to_vec(), descending)
            }
        };
        SortKey(if descending { inverted(bytes) } else { bytes })
    }
}

impl SortKey {
    /// Creates the key from the bytes of [`SortKey::as_bytes`].
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> SortKey {
        SortKey(bytes)
    }

    /// Returns the bytes that are compared.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn name(source: &JobSource) -> Vec<u8> {
    match source {
        JobSource::File { path } => path.as_os_str().as_bytes().to_vec(),
        JobSource::Url { url } => url.as_bytes().to_vec(),
    }
}

/// Returns bytes that compare the other way round.
fn inverted(mut bytes: Vec<u8>) -> Vec<u8> {
    // Without an end mark the shorter of "a" and "ab" would stay first. No path contains the byte 0.
    bytes.push(0);
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    bytes
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn key(order: OrderBy, path: Vec<u8>, size: u64, mtime_ns: i128) -> SortKey {
        let source = JobSource::File { path: OsString::from_vec(path).into() };
        order.key(&JobId::new("1").unwrap(), &source, Some(ContentStamp { size, mtime_ns }))
    }

    proptest! {
        #[test]
        fn keys_compare_like_the_values_and_descending_keys_the_other_way_round(
            a in (proptest::collection::vec(1_u8.., 0..6), any::<u64>(), any::<i128>()),
            b in (proptest::collection::vec(1_u8.., 0..6), any::<u64>(), any::<i128>()),
        ) {
            let both = |order: OrderBy| key(order, a.0.clone(), a.1, a.2).cmp(&key(order, b.0.clone(), b.1, b.2));
            prop_assert_eq!(both(OrderBy::Name { descending: false }), a.0.cmp(&b.0));
            prop_assert_eq!(both(OrderBy::Name { descending: true }), b.0.cmp(&a.0));
            prop_assert_eq!(both(OrderBy::Size { descending: false }), a.1.cmp(&b.1));
            prop_assert_eq!(both(OrderBy::Size { descending: true }), b.1.cmp(&a.1));
            prop_assert_eq!(both(OrderBy::Mtime { descending: false }), a.2.cmp(&b.2));
            prop_assert_eq!(both(OrderBy::Mtime { descending: true }), b.2.cmp(&a.2));
        }
    }

    #[test]
    fn the_mixed_order_is_the_same_in_every_run() {
        let key = |id: &str| {
            let source = JobSource::Url { url: "u".into() };
            OrderBy::Mixed.key(&JobId::new(id).unwrap(), &source, None)
        };
        assert_eq!(key("1"), key("1"));
        let mut ids: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        let submitted = ids.clone();
        ids.sort_by_key(|id| key(id));
        assert_ne!(ids, submitted);
    }
}
