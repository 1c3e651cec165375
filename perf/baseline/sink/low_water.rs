//! Limits how often a reader is woken, and has every body acknowledged like the first.
//!
//! On loopback, waking the receiver costs the sender's processor time, once for every piece that arrives. A network
//! does not cost the client this time, so the sink sleeps until many bytes have arrived (`SO_RCVLOWAT`, socket(7)),
//! but not so many that a fast client fills the window and has to sleep.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::net::sockopt::set_tcp_quickack;

/// The number of bytes that must have arrived before a read returns.
pub(crate) struct LowWater {
    socket: Arc<TcpStream>,
    target_bytes: libc::c_int,
    bytes: libc::c_int,
}

impl LowWater {
    /// Creates the limit. Reads wait for `target_bytes` while at least twice as many bytes are still expected.
    pub(crate) fn new(socket: Arc<TcpStream>, target_bytes: libc::c_int) -> LowWater {
        LowWater { socket, target_bytes, bytes: 1 }
    }

    /// Adjusts the limit: `len` bytes are still expected before the client waits for an answer. Has the bytes of a long
    /// body acknowledged without delay.
    pub(crate) fn update(&mut self, len: u64) -> io::Result<()> {
        let bytes = if len >= 2 * self.target_bytes.unsigned_abs() as u64 { self.target_bytes } else { 1 };
        if bytes == self.bytes {
            return Ok(());
        }
        self.bytes = bytes;
        if bytes == self.target_bytes {
            // Since the last answer, the kernel delays its acknowledgements (`TCP_QUICKACK`, tcp(7)). The sender then
            // works on longer queues, and BBR underrates the link.
            set_tcp_quickack(&*self.socket, true)?;
        }
        let size = size_of_val(&bytes) as libc::socklen_t;
        let fd = self.socket.as_raw_fd();
        // SAFETY: the descriptor is open, and the option's value is a live integer of the size given.
        let set = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), size)
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
