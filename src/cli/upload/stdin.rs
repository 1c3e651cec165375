//! Standard input as a reader that can be cancelled.

use std::io::{self, Read};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;

use super::halt::Stage;

/// Standard input. A read fails once the uploads are cancelled, even if the writer is silent.
pub(super) struct Stdin {
    stage: watch::Receiver<Stage>,
}

impl Stdin {
    pub(super) fn new(stage: watch::Receiver<Stage>) -> Stdin {
        Stdin { stage }
    }

    /// Returns `true` if there is something to read, or the end of the input.
    fn is_ready() -> io::Result<bool> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&LOOK))? > 0)
    }
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !Stdin::is_ready()? {
            if *self.stage.borrow() == Stage::Cancelled {
                return Err(io::Error::other("the upload was cancelled"));
            }
        }
        rustix::io::read(io::stdin(), buf).map_err(io::Error::from)
    }
}

/// Interval between checks for a cancellation.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
