//! One system call for the start of a list of slices: `sendmsg(2)` for memory, `sendfile(2)` for a mapped file.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendFlags};

use super::region::{FileFailure, FileRegion};

pub(super) enum SendFileError {
    LaneSocket(io::Error),
    File(FileFailure),
}

/// The slices at the start of a list that one system call can send.
pub(super) enum Segment<'a, 'b> {
    Memory { slices: &'a [IoSlice<'b>], has_file_next: bool },
    File { region: &'a FileRegion, slices: &'a [IoSlice<'b>], len: usize },
}

impl<'a, 'b> Segment<'a, 'b> {
    /// Returns the first segment of `bufs`, whose first slice is not empty.
    pub(super) fn first(bufs: &'a [IoSlice<'b>], region: Option<&'a FileRegion>) -> Segment<'a, 'b> {
        let Some(region) = region else {
            return Segment::Memory { slices: bufs, has_file_next: false };
        };
        match bufs.iter().position(|buf| region.holds(buf)) {
            None => Segment::Memory { slices: bufs, has_file_next: false },
            Some(0) => Segment::contiguous(bufs, region),
            Some(file) => Segment::Memory { slices: &bufs[..file], has_file_next: true },
        }
    }

    fn contiguous(bufs: &'a [IoSlice<'b>], region: &'a FileRegion) -> Segment<'a, 'b> {
        let start = bufs[0].as_ptr().addr();
        let mut end = start;
        // One `sendfile` reads one range of the file, so that only slices which continue each other are joined.
        let joined = bufs.iter().take_while(|buf| {
            let joins = buf.as_ptr().addr() == end && region.holds(buf);
            end += if joins { buf.len() } else { 0 };
            joins
        });
        let slices = &bufs[..joined.count()];
        Segment::File { region, slices, len: (end - start).min(SENDFILE_LIMIT_BYTES) }
    }
}

pub(super) fn send_file(
    socket: BorrowedFd<'_>,
    region: &FileRegion,
    slices: &[IoSlice<'_>],
    len: usize,
) -> Result<usize, SendFileError> {
    let start = region.offset_of(&slices[0]);
    let mut offset = start;
    match retry_on_intr(|| rustix::fs::sendfile(socket, &*region.file, Some(&mut offset), len)) {
        // sendfile(2) returns 0 only at the end of the file, which lies before the end of its map.
        Ok(0) => Err(SendFileError::File(FileFailure::Truncated { offset: start })),
        Ok(sent) => Ok(sent),
        // The file system does not support splice. The kernel then copies from the map, and returns EFAULT
        // where user space would get SIGBUS.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            send_memory(socket, slices, false).map_err(|reason| match Errno::from_io_error(&reason) {
                Some(Errno::FAULT) => SendFileError::File(FileFailure::Truncated { offset: start }),
                _ => SendFileError::LaneSocket(reason),
            })
        }
        // These errors concern the file; all others concern the socket.
        Err(reason @ (Errno::IO | Errno::BADF | Errno::STALE | Errno::OVERFLOW)) => {
            Err(SendFileError::File(FileFailure::Unreadable { offset: start, reason: reason.into() }))
        }
        Err(reason) => Err(SendFileError::LaneSocket(reason.into())),
    }
}

/// Sends memory. `MSG_MORE` keeps a short head from being sent as a packet of its own before the file's bytes
/// (`send(2)`).
pub(super) fn send_memory(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    has_file_next: bool,
) -> io::Result<usize> {
    // NOSIGNAL: a peer's reset is an error, not SIGPIPE. DONTWAIT: the runtime waits, not the thread.
    let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    flags.set(SendFlags::MORE, has_file_next);
    let sent =
        retry_on_intr(|| rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags))?;
    Ok(sent)
}

/// The most bytes of one `sendfile(2)`: with a fast peer, one call for a whole chunk would block the thread's
/// other lanes. As much as a socket's buffer holds by default (`tcp_wmem`, tcp(7)), since each call ends with a short
/// packet.
const SENDFILE_LIMIT_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn contiguous_slices_are_one_run_up_to_the_limit() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let region = FileRegion { addr: 4096, len: 8 << 20, file, file_offset: 4096 };
        // Nothing is read through these slices.
        let run_of = |cuts: &[(usize, usize)]| {
            let slices: Vec<_> = cuts.iter().map(|&(start, len)| slice_at(4096 + start, len)).collect();
            match Segment::first(&slices, Some(&region)) {
                Segment::File { slices, len, .. } => (slices.len(), len),
                Segment::Memory { slices, .. } => (slices.len(), 0),
            }
        };
        assert_eq!(run_of(&[(0, 10), (10, 20), (30, 5)]), (3, 35));
        assert_eq!(run_of(&[(0, 10), (11, 20)]), (1, 10));
        assert_eq!(run_of(&[(0, 3_000_000), (3_000_000, 3_000_000)]), (2, SENDFILE_LIMIT_BYTES));
        assert_eq!(run_of(&[((8 << 20) - 5, 10)]), (1, 0));
    }

    fn slice_at(addr: usize, len: usize) -> IoSlice<'static> {
        static BACKING: [u8; 0] = [];
        let start = BACKING.as_ptr().with_addr(addr);
        // SAFETY: the slice is only asked for its address and its length, never dereferenced.
        IoSlice::new(unsafe { std::slice::from_raw_parts(start, len) })
    }
}
