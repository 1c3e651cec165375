//! Detection of a size limit by the sizes at which connections are cut off.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The body bytes of the last requests whose connection was cut off in the body.
///
/// A firewall or proxy with a size limit often resets the connection instead of answering 413. Then every attempt ends
/// at about the same size; other causes end attempts anywhere.
#[derive(Debug, Default)]
pub(super) struct CutSizes(Mutex<VecDeque<u64>>);

impl CutSizes {
    /// Records a connection that was cut off after `body_bytes` of the body.
    pub(super) fn note_cut(&self, body_bytes: u64) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() == COMPARED {
            sizes.pop_front();
        }
        sizes.push_back(body_bytes);
    }

    /// Records a request of `body_bytes` that was answered. Forgets the cuts if it exceeds the smallest of them: there
    /// is no such limit.
    pub(super) fn note_passed(&self, body_bytes: u64) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.iter().min().is_some_and(|smallest| body_bytes > *smallest) {
            sizes.clear();
        }
    }

    /// Returns `true` if the last cuts happened at about the same size.
    pub(super) fn are_alike(&self) -> bool {
        let sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(&least), Some(&most)) = (sizes.iter().min(), sizes.iter().max()) else { return false };
        // The socket accepts more than the peer reads, by what the buffers of both kernels happen to hold: some MiB.
        sizes.len() == COMPARED && least >= SMALLEST_LIMIT_BYTES && most - least <= least / 2
    }
}

/// The number of cuts that are compared. Four cuts anywhere in a chunk are alike once in 27 times, fewer more often.
const COMPARED: usize = 4;

/// Smaller cuts are failures of the connection. No known limit of a proxy is below this one, the default of nginx.
const SMALLEST_LIMIT_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn are_alike(cuts: &[u64]) -> bool {
        let sizes = CutSizes::default();
        cuts.iter().for_each(|&bytes| sizes.note_cut(bytes));
        sizes.are_alike()
    }

    #[test]
    fn cuts_at_about_one_size_are_a_limit() {
        assert!(are_alike(&[8 << 20, 9 << 20, 8 << 20, 10 << 20]));
        assert!(are_alike(&[1, 64 << 20, 64 << 20, 64 << 20, 64 << 20]), "only the last ones count");
        assert!(!are_alike(&[8 << 20, 8 << 20, 8 << 20]), "too few");
        assert!(!are_alike(&[8 << 20, 20 << 20, 8 << 20, 8 << 20]));
        assert!(!are_alike(&[10, 10, 10, 10]));
        assert!(!are_alike(&[]));
    }

    #[test]
    fn a_larger_request_that_passed_disproves_the_limit() {
        let sizes = CutSizes::default();
        (0..4).for_each(|_| sizes.note_cut(8 << 20));
        sizes.note_passed(5 << 20);
        assert!(sizes.are_alike());
        sizes.note_passed(9 << 20);
        assert!(!sizes.are_alike());
    }
}
