//! The two standard streams, and writes to them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// One of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Stream {
    Out,
    Err,
}

/// Writes all texts. Waits for a pipe that another process has made non-blocking, as Node and ssh do.
///
/// # Errors
/// The error, and the number of bytes that were written before it.
pub(super) fn write_all(stream: Stream, texts: &[u8]) -> Result<(), (Errno, usize)> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd = match stream {
        Stream::Out => stdout.as_fd(),
        Stream::Err => stderr.as_fd(),
    };
    let mut done = 0;
    while done < texts.len() {
        match rustix::io::write(fd, &texts[done..]) {
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_until_writable(fd).map_err(|errno| (errno, done))?,
            Err(errno) => return Err((errno, done)),
        }
    }
    Ok(())
}

fn wait_until_writable(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // Without a timeout: only the writer thread waits here, and the process ends without it after a signal.
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Returns `true` if both streams lead to the same terminal, pipe or file.
pub(super) fn is_same_place() -> bool {
    let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    match (rustix::fs::fstat(io::stdout()), rustix::fs::fstat(io::stderr())) {
        (Ok(out), Ok(err)) => place(out) == place(err),
        _ => false,
    }
}
