//! Standard input as a reader that can be cancelled.

use std::io::{self, Read};

use ringlift::bulk::{ShutdownSignal, ShutdownStage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Standard input. A read fails once the uploads are cancelled, even if the writer is silent.
pub(super) struct Stdin {
    shutdown: ShutdownSignal,
}

impl Stdin {
    pub(super) fn new(shutdown: ShutdownSignal) -> Stdin {
        Stdin { shutdown }
    }

    /// Returns `true` if there is something to read, or the end of the source.
    fn is_ready() -> io::Result<bool> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&POLL_INTERVAL))? > 0)
    }
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // A blocking read could not be interrupted.
        while !Stdin::is_ready()? {
            if self.shutdown.stage() >= ShutdownStage::Cancelled {
                return Err(io::Error::other("the upload was cancelled"));
            }
        }
        // Not through the buffer of `io::stdin`, whose bytes poll(2) does not see.
        rustix::io::read(io::stdin(), buf).map_err(io::Error::from)
    }
}

/// Interval between checks for a cancellation.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
