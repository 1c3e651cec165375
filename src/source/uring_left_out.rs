//! Stands in for `uring` in a build without that feature: no ring can be used, and no value of its types exists.

use std::future::{Future, Ready};
use std::io;

use bytes::Bytes;

use super::Source;
use super::error::SourceError;
use super::file::SourceFile;
use super::page_cache::Residency;
use super::pool::BufferPool;
use super::reader::Unavailable;
use crate::extent::Extent;

/// Returns [`Unavailable::LeftOut`].
///
/// # Errors
/// Always.
pub fn check_ring() -> Result<(), Unavailable> {
    Err(Unavailable::LeftOut)
}

impl BufferPool {
    /// Creates a pool without a ring.
    ///
    /// # Errors
    /// The errors of [`BufferPool::new`].
    pub fn in_ring(count: usize, block_bytes: u64) -> io::Result<BufferPool> {
        BufferPool::with_ring(count, block_bytes, |_| Err(Unavailable::LeftOut))
    }
}

/// Returns an error: workers run without a ring.
pub(crate) fn ring_runtime(_: u32, _: u32) -> io::Result<RingRuntime> {
    Err(io::Error::new(io::ErrorKind::Unsupported, Unavailable::LeftOut))
}

/// Skips a test that needs a ring.
#[cfg(test)]
pub(super) fn start<F: Future<Output = ()>>(_: F) {}

/// A runtime that no thread has.
#[derive(Debug)]
pub(crate) enum RingRuntime {}

impl RingRuntime {
    pub(crate) fn block_on<F: Future>(&self, _: F) -> F::Output {
        match *self {}
    }
}

/// A source that no file has.
#[derive(Clone, Debug)]
pub enum UringSource {}

impl UringSource {
    pub(super) fn buffered(
        _: &SourceFile,
        _: Residency,
        pool: &BufferPool,
    ) -> Result<UringSource, Unavailable> {
        Err(pool.ring().err().unwrap_or(Unavailable::LeftOut))
    }

    pub(super) fn direct(file: &SourceFile, pool: &BufferPool) -> Result<UringSource, Unavailable> {
        UringSource::buffered(file, Residency { percent: 0 }, pool)
    }

    fn never(&self) -> Ready<Result<Bytes, SourceError>> {
        match *self {}
    }
}

impl Source for UringSource {
    fn read_now(&self, _: Extent) -> Option<Result<Bytes, SourceError>> {
        match *self {}
    }

    fn read(&self, _: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        self.never()
    }

    fn block_bytes(&self) -> u64 {
        match *self {}
    }

    fn depth(&self) -> usize {
        match *self {}
    }
}
