//! The send queue of a socket: bytes that the kernel has taken and that the peer's TCP has not acknowledged.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The send queue of a lane's socket, readable from any thread.
///
/// Holds no descriptor of its own: the connection must close when its lane drops it, not when a reader is done.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// The open socket. Its owner closes it only after [`SendQueue::close`].
    socket: Mutex<Option<RawFd>>,
}

impl SendQueue {
    /// Follows this socket, until [`SendQueue::close`] is called with it.
    pub(super) fn open(&self, socket: BorrowedFd<'_>) {
        *self.socket() = Some(socket.as_raw_fd());
    }

    /// Stops following this socket. Called before it is closed, because its number may then belong to another file.
    pub(super) fn close(&self, socket: BorrowedFd<'_>) {
        let mut open = self.socket();
        // A connection to a proxy may have been replaced by a second one.
        if *open == Some(socket.as_raw_fd()) {
            *open = None;
        }
    }

    /// Returns the bytes in the queue; 0 without an open socket.
    pub(super) fn bytes(&self) -> u64 {
        // The lock is held during the call, so that the socket is not closed meanwhile.
        let socket = self.socket();
        let Some(fd) = *socket else { return 0 };
        let mut bytes: libc::c_int = 0;
        // SAFETY: `TIOCOUTQ`, which tcp(7) calls SIOCOUTQ, writes one int.
        let status = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
        if status == 0 { bytes.try_into().unwrap_or(0) } else { 0 }
    }

    fn socket(&self) -> MutexGuard<'_, Option<RawFd>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_stay_in_the_queue_until_the_peer_takes_them() {
        let (mut near, mut far) = pair();
        let queue = SendQueue::default();
        assert_eq!(queue.bytes(), 0);
        queue.open(near.as_fd());
        near.set_nonblocking(true).unwrap();
        let mut sent = 0;
        // Until both the peer's receive buffer and the queue are full.
        while let Ok(len) = near.write(&[7; 64 << 10]) {
            sent += len as u64;
        }
        let queued = queue.bytes();
        assert!(queued > 0 && queued < sent, "{queued} of {sent} bytes");
        far.read_exact(&mut vec![0; sent as usize]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while queue.bytes() > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_closed_socket_has_an_empty_queue_and_leaves_its_successor() {
        let ((first, _far), (second, _other)) = (pair(), pair());
        let queue = SendQueue::default();
        queue.open(first.as_fd());
        queue.open(second.as_fd());
        queue.close(first.as_fd());
        assert_eq!(*queue.socket(), Some(second.as_raw_fd()));
        queue.close(second.as_fd());
        drop(second);
        assert_eq!(queue.bytes(), 0);
    }
}
