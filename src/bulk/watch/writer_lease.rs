//! A test for processes that have a file open for writing, by a lease.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::file_system::without_events_of;

/// Returns `true` if a process has the file open for writing, or has a writable map of it; `false` if none has, or if the
/// kernel does not answer: on network file systems, and for files of other users.
pub(super) fn has_writer(file: &File) -> bool {
    // There the same error can mean that the server grants no lease.
    if without_events_of(file).is_some() {
        return false;
    }
    let fd = file.as_raw_fd();
    // A writer that opens the file during the next two calls makes the kernel send a signal to this process, by default
    // SIGIO, which ends it. SIGURG is ignored by default.
    // SAFETY: the descriptor is open; the call changes only the signal of its leases.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } == -1 {
        return false;
    }
    // SAFETY: the descriptor is open; the call takes a number and no pointer.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) } == -1 {
        // fcntl(2): a read lease needs a file that is open for writing nowhere.
        return io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    }
    // The writer that opened the file meanwhile waits until the lease is gone.
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    false
}

/// asm-generic/fcntl.h; the libc crate does not have it.
const F_SETSIG: i32 = 10;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_writer_is_found_until_it_closes_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.mp4");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(has_writer(&reader));
        drop(writer);
        assert!(!has_writer(&reader) && !has_writer(&File::open(&path).unwrap()));
        let appending = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(has_writer(&reader));
        drop(appending);
    }

    #[test]
    fn a_writer_that_opens_the_file_during_the_test_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.mp4");
        File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let other = std::thread::spawn({
            let path = path.clone();
            move || (0..2000).for_each(|_| drop(OpenOptions::new().append(true).open(&path).unwrap()))
        });
        while !other.is_finished() {
            has_writer(&reader);
        }
        other.join().unwrap();
    }

    #[test]
    fn where_the_kernel_does_not_answer_no_writer_is_reported() {
        assert!(!has_writer(&File::open("/proc/version").unwrap()));
        assert!(!has_writer(&File::open("/dev/null").unwrap()));
    }
}
