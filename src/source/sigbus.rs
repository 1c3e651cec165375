//! A process-wide SIGBUS handler for maps that are read in user space.
//!
//! Touching a page beyond the end of a truncated file raises SIGBUS, whose default action ends the process.
//! The handler replaces the rest of such a map by zero pages and marks the map, whose source then returns
//! [`SourceError::Changed`](super::SourceError::Changed). Faults outside registered maps go to the previous
//! handler.

use std::ffi::c_void;
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use memmap2::MmapRaw;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::reader::Unavailable;

static GUARDED_RANGES: [GuardedRange; MAX_GUARDED] = [const { GuardedRange::free() }; MAX_GUARDED];

/// Held while a range is claimed or freed, or the handler is installed. The handler never takes it: the
/// interrupted thread may hold it.
static CLAIM_LOCK: Mutex<()> = Mutex::new(());

/// The previous SIGBUS handler.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A range of addresses that the handler covers. Written under [`CLAIM_LOCK`], read by the handler at any
/// time.
struct GuardedRange {
    /// Odd while claimed. It changes with every claim and release, so that the handler never mixes the fields
    /// of two claims.
    generation: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// The address of the lowest missing page; zero if none was missing.
    fault: AtomicUsize,
}

/// A claim to one of the ranges, released on drop.
#[derive(Debug)]
pub(super) struct SigbusGuard {
    slot: usize,
}

impl SigbusGuard {
    pub(super) fn over(map: &MmapRaw) -> Result<SigbusGuard, Unavailable> {
        let _claiming = CLAIM_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        install().map_err(|error| Unavailable::from_other_error(&error))?;
        // Relaxed: the lock that is held orders all claims and releases.
        let is_free = |slot: &GuardedRange| slot.generation.load(Ordering::Relaxed).is_multiple_of(2);
        let slot =
            GUARDED_RANGES.iter().position(is_free).ok_or(Unavailable::TooManyMaps { limit: MAX_GUARDED })?;
        let start = map.as_ptr() as usize;
        GUARDED_RANGES[slot].claim(start, start + map.len().next_multiple_of(rustix::param::page_size()));
        Ok(SigbusGuard { slot })
    }

    pub(super) fn fault(&self) -> Option<usize> {
        match GUARDED_RANGES[self.slot].fault.load(Ordering::Acquire) {
            0 => None,
            address => Some(address),
        }
    }
}

impl Drop for SigbusGuard {
    fn drop(&mut self) {
        let _claiming = CLAIM_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        // Even again, which frees the range; a handler that is reading it sees that it changed.
        GUARDED_RANGES[self.slot].generation.fetch_add(1, Ordering::Release);
    }
}

impl GuardedRange {
    const fn free() -> GuardedRange {
        GuardedRange {
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            fault: AtomicUsize::new(0),
        }
    }

    fn claim(&self, start: usize, end: usize) {
        self.fault.store(0, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        // Last, with Release: a handler that sees the odd generation sees the fields of this claim.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns the end of the claimed range if `address` lies inside it.
    fn end_after(&self, address: usize) -> Option<usize> {
        // A sequence lock: the range is valid only if the generation is odd and the same before and after the
        // loads.
        let generation = self.generation.load(Ordering::Acquire);
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let settled = generation % 2 == 1 && self.generation.load(Ordering::Relaxed) == generation;
        (settled && start <= address && address < end).then_some(end)
    }
}

/// Installs the handler once and keeps the previous one. The caller holds [`CLAIM_LOCK`].
fn install() -> io::Result<()> {
    // A second exchange would keep this handler as the previous one, which would then forward to itself.
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // Stored before the exchange: the new handler may run as soon as it is installed.
    let previous = exchange_handler(None)?;
    PREVIOUS.get_or_init(|| previous);
    let mut ours = previous;
    ours.sa_sigaction = on_sigbus as *const () as usize;
    // SA_ONSTACK: the previous handler may need the alternate stack, as that of Rust's std for stack overflows.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    exchange_handler(Some(&ours)).map(drop)
}

/// Calls sigaction(2) for SIGBUS; `None` only queries.
fn exchange_handler(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `new` is null or points to a sigaction, `old` to room for one.
    let done =
        unsafe { libc::sigaction(libc::SIGBUS, new.map_or(ptr::null(), ptr::from_ref), old.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, which is a valid sigaction, and then written by the kernel.
    Ok(unsafe { old.assume_init() })
}

/// Handles SIGBUS. Async-signal-safe: allocates nothing, takes no lock and preserves errno.
extern "C" fn on_sigbus(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: SA_SIGINFO promises a siginfo that is valid while the handler runs.
    let info_ref = unsafe { &*info };
    // SAFETY: a SIGBUS from the kernel carries an address; one sent by a process is not BUS_ADRERR.
    let address = unsafe { info_ref.si_addr() } as usize;
    // A memory error of the machine (BUS_MCEERR_AR) is no truncation: zeros must not take the place of its page.
    let ours = info_ref.si_code == libc::BUS_ADRERR
        && GUARDED_RANGES.iter().any(|slot| replace_pages_from(slot, address));
    if !ours {
        forward_to_previous(signal, info, context);
    }
}

/// Replaces the range's pages from `address` on by zero pages. Returns `false` if `address` lies outside the
/// range.
fn replace_pages_from(slot: &GuardedRange, address: usize) -> bool {
    let Some(end) = slot.end_after(address) else { return false };
    let page = address - address % rustix::param::page_size();
    // The mark is set before the zero pages appear: a reader that sees a false zero must also see the mark.
    let _ = slot.fault.fetch_update(Ordering::AcqRel, Ordering::Acquire, |fault| match fault {
        0 => Some(page),
        earlier => Some(earlier.min(page)),
    });
    // Up to the end of the map: the file ends before this page, so that every later page is missing too.
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: `page..end` is the rest of a map of ours, which stays claimed while the faulting thread,
    // interrupted here, reads it. memmap2 unmaps the whole range, whatever lies in it by then.
    unsafe { mmap_anonymous(page as *mut c_void, end - page, ProtFlags::READ, flags) }.is_ok()
}

/// Forwards the signal to the previous handler, or to the default action.
fn forward_to_previous(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let ignored_or_default = [libc::SIG_IGN, libc::SIG_DFL];
    match PREVIOUS.get().filter(|previous| !ignored_or_default.contains(&previous.sa_sigaction)) {
        // The kernel does not ignore a fault either: the instruction would fault again endlessly.
        None => raise_default(signal),
        Some(previous) if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: with SA_SIGINFO the field holds a handler of three arguments.
            let handler = unsafe { mem::transmute::<usize, Handler>(previous.sa_sigaction) };
            handler(signal, info, context);
        }
        Some(previous) => {
            // SAFETY: without SA_SIGINFO the field holds a handler of one argument.
            let handler = unsafe { mem::transmute::<usize, extern "C" fn(i32)>(previous.sa_sigaction) };
            handler(signal);
        }
    }
}

/// Restores the default action, which ends the process once the handler returns.
fn raise_default(signal: i32) {
    // SAFETY: async-signal-safe (signal-safety(7)), and the default action is always valid.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: async-signal-safe (signal-safety(7)).
    unsafe { libc::raise(signal) };
}

/// The maximum number of maps read in user space at once, in the whole process. A static table, since a
/// handler cannot allocate.
pub(super) const MAX_GUARDED: usize = 1024;
