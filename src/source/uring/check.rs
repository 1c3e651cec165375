//! The check that this process can use io_uring.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;

use crate::source::reader::Unavailable;

/// Sets up a ring like that of a worker, and closes it again (io_uring_setup(2)).
///
/// # Errors
/// The reason why this process cannot use io_uring.
pub fn check_ring() -> Result<(), Unavailable> {
    let ring = IoUring::new(RING_ENTRIES).map_err(|error| Unavailable::from_ring_error(&error))?;
    let mut probe = Probe::new();
    // Kernels before 5.6 have neither the probe nor `IORING_OP_READ`.
    ring.submitter().register_probe(&mut probe).map_err(|_| Unavailable::TooOld)?;
    let can_read = probe.is_supported(opcode::Read::CODE) && probe.is_supported(opcode::ReadFixed::CODE);
    if can_read { Ok(()) } else { Err(Unavailable::TooOld) }
}

impl Unavailable {
    pub(super) fn from_ring_error(error: &io::Error) -> Unavailable {
        match Errno::from_io_error(error) {
            Some(Errno::NOSYS) => Unavailable::NoSuchCall,
            // Before Linux 5.12 the ring's memory counts against RLIMIT_MEMLOCK (io_uring_setup(2)).
            Some(Errno::NOMEM) => Unavailable::Memlock,
            // The sysctl and a seccomp filter fail with the same errno; only the sysctl can be read.
            Some(Errno::PERM | Errno::ACCESS) => match disabled_by_sysctl() {
                Some(value) => Unavailable::Disabled { value },
                None => Unavailable::Forbidden,
            },
            _ => Unavailable::from_other_error(error),
        }
    }

    pub(super) fn from_registration_error(error: &io::Error) -> Unavailable {
        match Errno::from_io_error(error) {
            // Buffers beyond RLIMIT_MEMLOCK are refused with ENOMEM (io_uring_register(2)).
            Some(Errno::NOMEM) => Unavailable::Memlock,
            _ => Unavailable::from_other_error(error),
        }
    }
}

/// Returns the sysctl's value if it forbids io_uring (Documentation/admin-guide/sysctl/kernel.rst, since
/// Linux 6.6).
fn disabled_by_sysctl() -> Option<u8> {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    value.trim().parse().ok().filter(|value| *value > 0)
}

/// About the size of a worker's ring, which has a shorter submission queue and a longer completion queue.
const RING_ENTRIES: u32 = 64;

#[cfg(test)]
mod tests {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    /// Returns the result of `check_ring()` on a thread whose io_uring_setup fails with `errno`.
    fn ring_refused_with(errno: i32) -> Result<(), Unavailable> {
        let refused = std::thread::spawn(move || {
            let calls = [(libc::SYS_io_uring_setup, vec![])].into();
            let action = SeccompAction::Errno(errno as u32);
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(calls, SeccompAction::Allow, action, arch).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            apply_filter(&program).unwrap();
            check_ring()
        });
        refused.join().unwrap()
    }

    #[test]
    fn a_refused_ring_reports_the_reason() {
        assert_eq!(ring_refused_with(libc::EPERM), Err(Unavailable::Forbidden));
        assert_eq!(ring_refused_with(libc::ENOSYS), Err(Unavailable::NoSuchCall));
        assert_eq!(ring_refused_with(libc::ENOMEM), Err(Unavailable::Memlock));
        let choked = ring_refused_with(libc::EMFILE).unwrap_err();
        assert!(choked.to_string().contains("open files"), "{choked}");
    }
}
