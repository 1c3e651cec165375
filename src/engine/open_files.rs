//! The number of small files that are open ahead of their requests.

use rustix::process::{Resource, getrlimit};

/// The limits of the files that are open beside [`Settings::transfers`](crate::Settings::transfers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// The most small files that are open and do not count as uploads.
    pub(crate) small: usize,
    /// The most files that are opened at once. Each takes two descriptors while its reader is chosen: with 64 descriptors
    /// and 2000 files, opening many at once left none for connections.
    pub(crate) opening: usize,
}

impl Ahead {
    /// Returns the limits for the descriptors that this process may have.
    pub(crate) fn of_process(transfers: usize) -> Ahead {
        // Without a limit there is room for the most.
        Ahead::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), transfers)
    }

    fn of(descriptors: u64, transfers: usize) -> Ahead {
        // A share only: the program that uses the library has files and connections of its own.
        let room = descriptors.saturating_sub(RESERVED) / SHARE;
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        // One upload at a time means one file at a time.
        let small = room.min(transfers.saturating_sub(1).saturating_mul(FOR_EACH_TRANSFER)).min(MOST);
        let opening = if small > 0 { OPENING } else { OPENING_AT_LEAST };
        Ahead { small, opening }
    }
}

/// The descriptors that small files never use.
const RESERVED: u64 = 256;

/// A small file has a descriptor, the lock of its journal entry, and two more while it is opened.
const SHARE: u64 = 16;

/// A request of 4 KiB to a near service takes a quarter of the time that its file is open for.
const FOR_EACH_TRANSFER: usize = 4;

const MOST: usize = 64;

const OPENING: usize = 8;
const OPENING_AT_LEAST: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_or_one_transfer_leave_no_file_ahead() {
        assert_eq!(Ahead::of(64, 8), Ahead { small: 0, opening: OPENING_AT_LEAST });
        assert_eq!(Ahead::of(1024, 1), Ahead { small: 0, opening: OPENING_AT_LEAST });
        assert_eq!(Ahead::of(512, 8), Ahead { small: 16, opening: OPENING });
        assert_eq!(Ahead::of(1024, 8), Ahead { small: 28, opening: OPENING });
        assert_eq!(Ahead::of(u64::MAX, usize::MAX), Ahead { small: MOST, opening: OPENING });
    }
}
