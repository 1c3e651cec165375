//! Loading memory into the processor's cache before it is needed.

/// Starts to load the first `len` bytes of `bytes`, or all of them if there are fewer. Only x86-64 has an instruction for
/// it that stable Rust offers.
#[cfg(target_arch = "x86_64")]
pub(super) fn prefetch(bytes: &[u8], len: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    for line in bytes[..bytes.len().min(len)].chunks(CACHE_LINE_BYTES) {
        // SAFETY: a prefetch is a hint. It changes no memory, and faults for no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch(_: &[u8], _: usize) {}

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;
