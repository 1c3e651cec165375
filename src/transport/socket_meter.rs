//! The kernel's counts of one connection (`TCP_INFO`, tcp(7)), readable from any thread.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libc::tcp_info;

/// The counts of one connection since it was opened, with handshakes and encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketCounts {
    /// Bytes that the peer has acknowledged: the server, or the proxy that the connection leads to. Where the kernel does
    /// not count them, the bytes that the socket has taken.
    pub(crate) acked_bytes: u64,
    /// Segments with data, and those of them that were sent again, by their bytes.
    pub(crate) segments: u64,
    pub(crate) retransmitted: u64,
    /// `true` if the socket holds bytes that are not acknowledged.
    pub(crate) is_in_flight: bool,
    /// The smoothed round trip; zero before the first measurement.
    pub(crate) round_trip: Duration,
}

/// The counts of one connection. They stay readable after the connection was closed.
#[derive(Debug, Default)]
pub(super) struct SocketMeter {
    state: Mutex<MeterState>,
    /// Bytes that the socket has taken.
    written: AtomicU64,
    /// `true` while the socket waits for the bandwidth limit.
    is_limited: AtomicBool,
}

#[derive(Debug, Default)]
struct MeterState {
    /// The open socket. Its owner removes it here before it closes the socket.
    socket: Option<RawFd>,
    last: SocketCounts,
}

impl SocketMeter {
    /// Counts a socket from now on, until [`SocketMeter::close`].
    pub(super) fn open(&self, socket: &impl AsRawFd) {
        self.state().socket = Some(socket.as_raw_fd());
    }

    /// Reads the counts of this socket for the last time. The owner of the socket calls this before it closes the socket.
    pub(super) fn close(&self, socket: &impl AsRawFd) {
        let mut state = self.state();
        // A connection to a proxy may have been replaced by a second one.
        if state.socket == Some(socket.as_raw_fd()) {
            self.refresh(&mut state);
            state.last.is_in_flight = false;
            state.socket = None;
        }
    }

    /// Records bytes that the socket has taken.
    pub(super) fn wrote(&self, len: usize) {
        // Relaxed here and below: single numbers, which order no other memory.
        self.written.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn set_limited(&self, is_limited: bool) {
        self.is_limited.store(is_limited, Ordering::Relaxed);
    }

    pub(super) fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// Returns the counts at this moment.
    pub(super) fn counts(&self) -> SocketCounts {
        let mut state = self.state();
        self.refresh(&mut state);
        state.last
    }

    /// Returns the bytes in the send queue, which the kernel has taken and the peer has not acknowledged; 0 without an
    /// open socket.
    pub(super) fn queued_bytes(&self) -> u64 {
        // The lock is held during the call, so that the socket is not closed meanwhile.
        let state = self.state();
        let Some(socket) = state.socket else { return 0 };
        let mut bytes: libc::c_int = 0;
        // SAFETY: `TIOCOUTQ`, which tcp(7) calls SIOCOUTQ, writes one int.
        let failed = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) };
        if failed == 0 { bytes.try_into().unwrap_or(0) } else { 0 }
    }

    fn refresh(&self, state: &mut MeterState) {
        let Some(socket) = state.socket else { return };
        let written = self.written.load(Ordering::Relaxed);
        let counts = read(socket).filter(|counts| counts.acked_bytes > 0 || written < UNCOUNTED_BYTES);
        let counts = counts.unwrap_or(SocketCounts { acked_bytes: written, ..SocketCounts::default() });
        // A count that falls back would be a huge rate in the difference of two samples.
        let acked_bytes = counts.acked_bytes.max(state.last.acked_bytes);
        state.last = SocketCounts { acked_bytes, ..counts };
    }

    fn state(&self) -> MutexGuard<'_, MeterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the counts of an open socket; `None` on kernels that do not count acknowledged bytes (before Linux 4.6).
fn read(socket: RawFd) -> Option<SocketCounts> {
    let mut info = [0_u8; size_of::<tcp_info>()];
    let mut len = info.len() as libc::socklen_t;
    let place = info.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to `info`, and the length that it wrote to `len`. The socket is open:
    // its owner removes it from the meter, under the lock that the caller holds, before it closes it.
    let failed = unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut len) };
    // An older kernel writes a shorter structure.
    let info = &info[..info.len().min(len as usize)];
    if failed != 0 || info.len() < offset_of!(tcp_info, tcpi_data_segs_out) + 4 {
        return None;
    }
    let number = |offset: usize| {
        let bytes = info.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let bytes = |offset: usize| {
        let bytes = info.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    let segments: u64 = number(offset_of!(tcp_info, tcpi_data_segs_out)).into();
    let retransmitted = number(offset_of!(tcp_info, tcpi_total_retrans)).into();
    // Before Linux 4.19, both are missing and read as zero.
    let (sent, sent_again) =
        (bytes(offset_of!(tcp_info, tcpi_bytes_sent)), bytes(offset_of!(tcp_info, tcpi_bytes_retrans)));
    let unsent = number(offset_of!(tcp_info, tcpi_notsent_bytes));
    Some(SocketCounts {
        acked_bytes: bytes(offset_of!(tcp_info, tcpi_bytes_acked)),
        segments,
        retransmitted: whole_segments(retransmitted, segments, sent, sent_again),
        is_in_flight: unsent > 0 || number(offset_of!(tcp_info, tcpi_unacked)) > 0,
        round_trip: Duration::from_micros(number(offset_of!(tcp_info, tcpi_rtt)).into()),
    })
}

/// Returns the segments that were sent again, by their bytes if the kernel counts those: a segment may be sent again in
/// small parts, each of which counts as a segment.
fn whole_segments(retransmitted: u64, segments: u64, sent: u64, sent_again: u64) -> u64 {
    if sent == 0 {
        return retransmitted;
    }
    // The product of two `u64` needs 128 bits.
    let whole = u128::from(sent_again) * u128::from(segments) / u128::from(sent);
    retransmitted.min(whole.try_into().unwrap_or(u64::MAX))
}

/// A peer that has acknowledged nothing of this many bytes does not exist: the kernel, or what stands in for it, does
/// not count.
const UNCOUNTED_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_in_the_send_buffer_are_not_acknowledged() {
        let (mut near, mut far) = pair();
        near.set_nonblocking(true).unwrap();
        let meter = SocketMeter::default();
        meter.open(&near);
        // Nothing reads: both buffers fill.
        let mut written = 0;
        while let Ok(len) = near.write(&[7; 65536]) {
            written += len as u64;
            meter.wrote(len);
        }
        let (counts, queued) = (meter.counts(), meter.queued_bytes());
        assert!(counts.acked_bytes < written && counts.is_in_flight, "{counts:?} of {written}");
        assert!(queued > 0 && queued < written, "{queued} of {written} bytes");
        far.read_exact(&mut vec![0; written as usize]).unwrap();
        while meter.queued_bytes() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn closing_a_replaced_socket_keeps_its_successor() {
        let ((first, _far), (second, _other)) = (pair(), pair());
        let meter = SocketMeter::default();
        meter.open(&first);
        meter.open(&second);
        meter.close(&first);
        assert_eq!(meter.state().socket, Some(second.as_raw_fd()));
        meter.close(&second);
        assert_eq!(meter.queued_bytes(), 0);
    }

    #[test]
    fn counts_stay_readable_after_the_socket_was_closed() {
        let (mut near, mut far) = pair();
        let meter = SocketMeter::default();
        meter.open(&near);
        near.write_all(&[7; 4096]).unwrap();
        far.read_exact(&mut [0; 4096]).unwrap();
        while meter.counts().acked_bytes < 4096 {
            std::thread::yield_now();
        }
        meter.close(&near);
        drop(near);
        let counts = meter.counts();
        assert!(counts.acked_bytes >= 4096 && !counts.is_in_flight, "{counts:?}");
        assert!(counts.segments >= 1 && counts.round_trip > Duration::ZERO, "{counts:?}");
    }

    #[test]
    fn a_segment_that_is_sent_again_in_parts_counts_by_its_bytes() {
        // Loopback: segments of 64 KiB, of which a full receive buffer took all but 4 KiB.
        assert_eq!(whole_segments(16, 1000, 1000 << 16, 16 << 12), 1);
        // Ethernet: each is sent again as a whole.
        assert_eq!(whole_segments(16, 1000, 1_448_000, 16 * 1448), 16);
        assert_eq!(whole_segments(16, 1000, 0, 0), 16);
    }

    #[test]
    fn without_counts_of_the_kernel_the_written_bytes_count() {
        // A file is no socket, so the kernel refuses.
        let meter = SocketMeter::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        meter.open(&file);
        meter.wrote(1000);
        assert_eq!(meter.counts().acked_bytes, 1000);
    }
}
