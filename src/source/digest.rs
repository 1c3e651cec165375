//! The digest of a chunk: shows that a file still has the bytes that were sent.
//!
//! XXH3 with 128 bits. It detects accidental changes, not files that were made to collide.

use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use twox_hash::xxhash3_128::Hasher;

use super::error::{RetryOnce, SourceError};
use super::file::SourceFile;
use super::page_cache::Residency;
use super::prefetch::prefetch;
use crate::extent::Extent;

/// The digest of a chunk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkDigest([u8; 16]);

impl ChunkDigest {
    /// Returns the digest as bytes, as the journal stores it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Restores a digest from stored bytes; `None` unless there are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<ChunkDigest> {
        bytes.try_into().ok().map(ChunkDigest)
    }
}

/// Computes a [`ChunkDigest`] from bytes in order.
pub(crate) struct ChunkDigester(Hasher);

impl ChunkDigester {
    /// Creates a digester over no bytes. Allocates a few hundred bytes, and nothing later.
    pub(crate) fn new() -> ChunkDigester {
        ChunkDigester(Hasher::new())
    }

    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // The digest is the first to read the bytes, and the processor does not load ahead over the end of a page.
            prefetch(rest.get(PREFETCH_DISTANCE_BYTES..).unwrap_or_default(), PIECE_BYTES);
            let (piece, after) = rest.split_at(rest.len().min(PIECE_BYTES));
            self.0.write(piece);
            rest = after;
        }
    }

    /// Returns the digest of all bytes so far.
    pub(crate) fn finish(&self) -> ChunkDigest {
        // Big-endian is xxHash's canonical form, the same on every machine.
        ChunkDigest(self.0.finish_128().to_be_bytes())
    }
}

impl Default for ChunkDigester {
    fn default() -> ChunkDigester {
        ChunkDigester::new()
    }
}

impl std::fmt::Debug for ChunkDigester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkDigester")
    }
}

impl SourceFile {
    /// Reads the extent and computes its digest. Blocks for the duration of the reads.
    ///
    /// Calls `on_read` with the length of each block read. If it returns `false`, reading stops and the
    /// result is `None`. Bytes of a cold file are evicted from the page cache afterwards.
    ///
    /// # Errors
    /// [`SourceError::PastEnd`], [`SourceError::Read`], or [`SourceError::Changed`] if the file ends earlier.
    pub fn digest(
        &self,
        extent: Extent,
        residency: Residency,
        mut on_read: impl FnMut(u64) -> bool,
    ) -> Result<Option<ChunkDigest>, SourceError> {
        self.check_extent(extent)?;
        let mut digester = ChunkDigester::new();
        let mut block = vec![0; BLOCK_BYTES.min(extent.len()) as usize];
        let mut rest = extent;
        let mut retry = RetryOnce::default();
        while !rest.is_empty() {
            let wanted = rest.take(BLOCK_BYTES);
            match self.file().read_at(&mut block[..wanted.len() as usize], rest.offset()) {
                // The length was known at the start, so that an end before it is a truncation.
                Ok(0) => return Err(self.unexpected_end_at(rest.offset())),
                Ok(read) => {
                    digester.update(&block[..read]);
                    rest = rest.skip(read as u64);
                    if !on_read(read as u64) {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted || retry.allows(&error) => {}
                Err(error) => return Err(self.read_error(rest.offset(), error)),
            }
        }
        if residency.is_cold() {
            // Only a hint.
            let _ = fadvise(self.file(), extent.offset(), NonZeroU64::new(extent.len()), Advice::DontNeed);
        }
        Ok(Some(digester.finish()))
    }
}

const BLOCK_BYTES: u64 = 512 << 10;
const PIECE_BYTES: usize = 4096;
const PREFETCH_DISTANCE_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: Residency = Residency { percent: 100 };

    #[test]
    fn a_file_has_the_digest_of_its_bytes_however_they_are_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> =
            (0..3 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let (source, extent) = (SourceFile::open(file.path()).unwrap(), Extent::new(1001, (2 << 20) + 17));
        let expected = |block: usize| {
            let mut digester = ChunkDigester::new();
            bytes[1001..1001 + (2 << 20) + 17].chunks(block).for_each(|block| digester.update(block));
            digester.finish()
        };
        let mut read = 0;
        let count = |bytes| {
            read += bytes;
            true
        };
        let digest = source.digest(extent, HOT, count).unwrap().unwrap();
        assert_eq!((digest, read), (expected(7), extent.len()));
        assert_eq!(digest, expected(1 << 20));
        assert_eq!(ChunkDigest::from_bytes(digest.as_bytes()), Some(digest));
        let beside = source.digest(Extent::new(1002, extent.len()), HOT, |_| true).unwrap().unwrap();
        assert_ne!(beside, digest);
    }

    #[test]
    fn digesting_ends_when_cancelled_and_at_the_end_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        let source = SourceFile::open(file.path()).unwrap();
        let whole = Extent::new(0, 2 << 20);
        assert_eq!(source.digest(whole, HOT, |_| false).unwrap(), None);
        file.as_file().set_len(1 << 20).unwrap();
        assert!(matches!(source.digest(whole, HOT, |_| true), Err(SourceError::Changed { .. })));
    }
}
