//! The names that the inputs of a run have given: ids of jobs, and rows of reports that give no job.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

/// The ids and rows that the inputs of a run have named, as hashes: two of a million share one with a chance of one in
/// thirty million.
#[derive(Debug, Default)]
pub(super) struct SeenIds {
    hashes: HashSet<u64>,
    state: RandomState,
}

impl SeenIds {
    /// Adds an id. Returns `false` if it is among the first [`MOST_IDS`] that were added before.
    pub(super) fn insert(&mut self, id: impl Hash) -> bool {
        let hash = self.state.hash_one(id);
        if self.hashes.len() < MOST_IDS { self.hashes.insert(hash) } else { !self.hashes.contains(&hash) }
    }
}

/// The most ids that are remembered: 20 MiB. Jobs that are named twice after so many are found by the store, as those of
/// an earlier run are.
const MOST_IDS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::job_id::JobId;

    #[test]
    fn an_id_is_new_once() {
        let mut seen = SeenIds::default();
        let id = |text| JobId::new(text).unwrap();
        assert!(seen.insert(id("a")) && seen.insert(id("b")));
        assert!(!seen.insert(id("a")) && !seen.insert(id("b")));
    }
}
