//! Waking a reader seldom.
//!
//! On loopback it is the sender's processor time that wakes the receiver, once for every piece that
//! arrives. No network does that to a client, so the sink sleeps until much has come (`SO_RCVLOWAT`, socket(7)):
//! not so much, though, that a fast client fills the window and has to sleep itself.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// How much must have arrived before a read returns.
pub(crate) struct LowWater {
    socket: Arc<TcpStream>,
    target_bytes: libc::c_int,
    bytes: libc::c_int,
}

impl LowWater {
    /// `much` is what is waited for while at least twice as much is to come.
    pub(crate) fn new(socket: Arc<TcpStream>, target_bytes: libc::c_int) -> LowWater {
        LowWater { socket, target_bytes, bytes: 1 }
    }

    /// At least `len` bytes are still to come before the other side waits for an answer.
    pub(crate) fn update(&mut self, len: u64) -> io::Result<()> {
        let bytes = if len >= 2 * self.target_bytes.unsigned_abs() as u64 { self.target_bytes } else { 1 };
        if bytes == self.bytes {
            return Ok(());
        }
        self.bytes = bytes;
        let size = size_of_val(&bytes) as libc::socklen_t;
        let fd = self.socket.as_raw_fd();
        // SAFETY: the descriptor is open, and the option's value is a live integer of the size given.
        let set = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), size)
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
