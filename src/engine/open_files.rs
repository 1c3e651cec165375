//! The number of files that are open at the same time.

use std::num::NonZero;
use std::thread;

use rustix::process::{Resource, getrlimit};

use crate::engine::settings::Settings;

/// The limits of open files, by the descriptors that this process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFileLimits {
    /// The most uploads at once: those of [`Settings::transfers`], or fewer.
    pub(crate) transfers: usize,
    /// The most small files that are open ahead of their requests and do not count as uploads.
    pub(crate) small: usize,
    /// The most files that are opened at once. Each takes two descriptors while its reader is chosen: with 64 descriptors
    /// and 2000 files, opening many at once left none for connections.
    pub(crate) opening: usize,
}

impl OpenFileLimits {
    /// Returns the limits for the descriptors that this process may have.
    pub(crate) fn of_process(settings: &Settings) -> OpenFileLimits {
        // Without a limit there is room for the most.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(settings.lanes);
        // The rest is for files.
        let taken = FIXED.saturating_add(settings.lanes).saturating_add(workers * PER_WORKER);
        OpenFileLimits::of(descriptors, taken, settings.transfers)
    }

    fn of(descriptors: usize, taken: usize, transfers: usize) -> OpenFileLimits {
        // A share only: the program that uses the library has files and connections of its own.
        let room = descriptors.saturating_sub(RESERVED) / SHARE;
        // One upload at a time means one file at a time.
        let small = room.min(transfers.saturating_sub(1).saturating_mul(SMALL_PER_TRANSFER)).min(MOST_SMALL);
        let opening = if small > 0 { OPENING } else { OPENING_AT_LEAST };
        let left = descriptors.saturating_sub(taken).saturating_sub(opening * PER_OPENING);
        let transfers = transfers.min((left / PER_TRANSFER).max(1));
        OpenFileLimits { transfers, small, opening }
    }

    /// Returns the most calls of the API at once: one for each open file.
    pub(crate) fn calls(&self) -> usize {
        self.transfers.saturating_add(self.small)
    }
}

/// The descriptors that small files never use.
const RESERVED: usize = 256;

/// A small file has a descriptor, the lock of its journal entry, and two more while it is opened.
const SHARE: usize = 16;

/// A request of 4 KiB to a near service takes a quarter of the time that its file is open for.
const SMALL_PER_TRANSFER: usize = 4;

const MOST_SMALL: usize = 64;

const OPENING: usize = 8;
const OPENING_AT_LEAST: usize = 2;

/// The descriptors of the journal, the driver, the command's own runtime and the standard streams, which are about 16.
const FIXED: usize = 24;

/// The descriptors of a worker: its runtime and its ring.
const PER_WORKER: usize = 4;

/// The descriptors of a file that is opened.
const PER_OPENING: usize = 2;

/// The descriptors of an upload: its file, a connection for its own requests, the lock of its journal entry, and that of an
/// upload that has ended and is still in the journal. One more is left for closing to be late.
const PER_TRANSFER: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: usize = 36;

    #[test]
    fn few_descriptors_or_one_transfer_leave_no_file_ahead() {
        let small = |descriptors, transfers| {
            let limits = OpenFileLimits::of(descriptors, TAKEN, transfers);
            (limits.small, limits.opening)
        };
        assert_eq!(small(64, 8), (0, OPENING_AT_LEAST));
        assert_eq!(small(1024, 1), (0, OPENING_AT_LEAST));
        assert_eq!(small(512, 8), (16, OPENING));
        assert_eq!(small(1024, 8), (28, OPENING));
        assert_eq!(small(usize::MAX, usize::MAX), (MOST_SMALL, OPENING));
    }

    #[test]
    fn few_descriptors_leave_fewer_uploads_and_at_least_one() {
        let transfers = |descriptors, transfers| OpenFileLimits::of(descriptors, TAKEN, transfers).transfers;
        assert_eq!(transfers(20, 8), 1);
        assert_eq!(transfers(64, 8), 4);
        assert_eq!(transfers(128, 8), 8);
        assert_eq!(transfers(1024, 500), 194);
        assert_eq!(transfers(usize::MAX, 500), 500);
    }
}
