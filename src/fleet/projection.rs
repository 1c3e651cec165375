//! The header of a record, from which the index is made without reading records.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::names::{decode, encode};
use crate::bulk::{JobStateName, Pool, UnixMillis};

/// The fields of a job that the index needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Projection {
    /// The place in the order of submission; 0 stands for the revision of the message.
    pub(super) number: u64,
    pub(super) state: JobStateName,
    pub(super) pool: Pool,
    pub(super) size: u64,
    /// The end of the wait of a queued job, or the last heartbeat of a running one.
    pub(super) due: UnixMillis,
    pub(super) priority: i32,
    pub(super) sort_key: Vec<u8>,
}

impl Projection {
    /// Returns the value of the header.
    pub(super) fn encode(&self) -> String {
        let Projection { number, size, priority, .. } = self;
        let (state, pool, due) = (self.state.as_str(), encode(self.pool.as_str()), self.due.get());
        let sort_key = BASE64_URL_SAFE_NO_PAD.encode(&self.sort_key);
        format!("{VERSION} {number} {state} {pool} {size} {due} {priority} {sort_key}")
    }

    /// Reads the value of the header; `None` if another version wrote it.
    pub(super) fn decode(header: &str) -> Option<Projection> {
        let mut fields = header.split(' ');
        if fields.next()? != VERSION {
            return None;
        }
        let number = fields.next()?.parse().ok()?;
        let state = fields.next()?;
        let state = JobStateName::ALL.into_iter().find(|name| name.as_str() == state)?;
        let pool = Pool::new(&decode(fields.next()?)?).ok()?;
        let size = fields.next()?.parse().ok()?;
        let due = UnixMillis::new(fields.next()?.parse().ok()?);
        let priority = fields.next()?.parse().ok()?;
        // An empty key leaves no field behind where a header's end is trimmed.
        let sort_key = BASE64_URL_SAFE_NO_PAD.decode(fields.next().unwrap_or_default()).ok()?;
        Some(Projection { number, state, pool, size, due, priority, sort_key })
    }
}

/// The format of the header. Readers ignore records with another one.
const VERSION: &str = "1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_projection_comes_back_from_its_header(
            (number, size, due) in any::<(u64, u64, u64)>(),
            priority: i32,
            state in proptest::sample::select(&JobStateName::ALL[..]),
            pool in "[^\\p{Cc}]{1,40}",
            sort_key in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let (pool, due) = (Pool::new(&pool).unwrap(), UnixMillis::new(due));
            let projection = Projection { number, state, pool, size, due, priority, sort_key };
            let header = projection.encode();
            prop_assert!(header.is_ascii());
            prop_assert_eq!(Projection::decode(header.trim()), Some(projection));
        }
    }

    #[test]
    fn a_header_of_another_version_is_no_projection() {
        assert_eq!(Projection::decode("2 0 queued cA 1 0 0 "), None);
        assert_eq!(Projection::decode("1 0 lost cA 1 0 0 "), None);
        assert_eq!(Projection::decode(""), None);
    }
}
