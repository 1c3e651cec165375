//! The runtime of a thread with a ring.

use std::io;

pub(crate) use tokio_uring::Runtime as RingRuntime;
#[cfg(test)]
pub(in crate::source) use tokio_uring::start;

/// Creates a runtime whose ring has room for `completions`, a power of two, and submits reads whenever `held_back` of
/// them wait.
///
/// # Errors
/// If the kernel refuses the ring.
pub(crate) fn ring_runtime(held_back: u32, completions: u32) -> io::Result<RingRuntime> {
    let mut ring = tokio_uring::builder();
    ring.entries(held_back).uring_builder(tokio_uring::uring_builder().setup_cqsize(completions));
    RingRuntime::new(&ring)
}
