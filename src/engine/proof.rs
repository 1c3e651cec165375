//! The proof that a file still has the bytes that an earlier process sent.
//!
//! It is needed if the file's times cannot exclude a change, and runs before anything is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::Extent;
use crate::source::{ChunkDigest, Residency, SourceError, SourceFile};

/// Chunks of an earlier process, with the evidence of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unproved {
    /// The digests of every chunk that was sent; `None` for a digest that matches no bytes.
    Prove(Vec<(u32, Option<ChunkDigest>)>),
    /// Digests of some chunks that were sent. The file has the length and mtime of the file that was sent, so that
    /// chunks without a digest are accepted.
    Compare(Vec<(u32, Option<ChunkDigest>)>),
    /// No evidence exists.
    Anew,
}

/// The result of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The file has every chunk as it was sent: `chunks` chunks of `bytes` bytes together.
    Equal { chunks: u32, bytes: u64 },
    /// The chunk at this index differs.
    Differs { index: u32 },
}

/// A pending proof: chunks of a file, and the digests they had.
pub(crate) struct Proving {
    pub(crate) file: SourceFile,
    pub(crate) residency: Residency,
    pub(crate) chunks: Vec<(u32, Extent, Option<ChunkDigest>)>,
    /// The number of bytes read so far.
    pub(crate) read: Arc<AtomicU64>,
    /// Becomes `true` when the upload is over.
    pub(crate) cancelled: watch::Receiver<bool>,
}

impl Proving {
    /// Reads and compares the chunks on a blocking thread. Gives up if no byte arrives for `patience`: a read from a
    /// hung file system cannot be interrupted.
    ///
    /// # Errors
    /// If the file cannot be read, changed meanwhile or gave no byte for `patience`; or if the upload is over.
    pub(crate) async fn run(self, patience: Duration) -> Result<Proof> {
        let (reply, mut answer) = oneshot::channel();
        let read = self.read.clone();
        tokio::task::spawn_blocking(move || {
            // The receiver was dropped if the read took too long.
            let _ = reply.send(self.compare());
        });
        let mut seen = 0;
        loop {
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(Ok(compared)) => return compared?.ok_or_else(cancelled),
                // Only a panic of the comparison drops the sender.
                Ok(Err(_)) => return Err(Error::new(ErrorKind::Internal, COMPARE)),
                // Not a byte since the last look. A slow disk is not a silent one.
                Err(_) if read.load(Ordering::Relaxed) == seen => {
                    let reason = format!("the file gave no byte for {} seconds", patience.as_secs());
                    return Err(Error::new(ErrorKind::Stalled, COMPARE).because(reason));
                }
                Err(_) => seen = read.load(Ordering::Relaxed),
            }
        }
    }

    /// Returns `None` if the upload was cancelled.
    fn compare(self) -> Result<Option<Proof>, SourceError> {
        let (mut chunks, mut bytes) = (0, 0);
        for (index, extent, digest) in self.chunks {
            let is_wanted = |read| {
                // Relaxed: the count shows that bytes arrive, and guards no other memory.
                self.read.fetch_add(read, Ordering::Relaxed);
                !*self.cancelled.borrow()
            };
            match self.file.digest(extent, self.residency, is_wanted)? {
                None => return Ok(None),
                // Also for a chunk whose digest is `None`: that digest equals no bytes.
                found if found != digest => return Ok(Some(Proof::Differs { index })),
                Some(_) => (chunks, bytes) = (chunks + 1, bytes + extent.len()),
            }
        }
        // At the end: the file may have changed while it was read.
        self.file.check_unchanged()?;
        Ok(Some(Proof::Equal { chunks, bytes }))
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, COMPARE)
}

const COMPARE: &str = "compare the chunks of an earlier run with the file";

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: Residency = Residency { percent: 100 };

    fn proof(change: impl FnOnce(&mut Vec<(u32, Extent, Option<ChunkDigest>)>)) -> Result<Proof> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..3000).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(file.path(), bytes).unwrap();
        let file = SourceFile::open(file.path()).unwrap();
        let extents = (0..3).map(|index| (index, Extent::new(u64::from(index) * 1000, 1000)));
        let digest = |extent| file.digest(extent, HOT, |_| true).unwrap();
        let mut chunks = extents.map(|(index, extent)| (index, extent, digest(extent))).collect();
        change(&mut chunks);
        let (read, cancelled) = (Arc::default(), watch::channel(false).1);
        let proving = Proving { file: file.clone(), residency: HOT, chunks, read, cancelled };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(proving.run(Duration::from_secs(60)))
    }

    #[test]
    fn unchanged_chunks_are_proved() {
        assert_eq!(proof(|_| {}).unwrap(), Proof::Equal { chunks: 3, bytes: 3000 });
        assert_eq!(proof(Vec::clear).unwrap(), Proof::Equal { chunks: 0, bytes: 0 });
    }

    #[test]
    fn one_chunk_that_differs_disproves_all() {
        let swapped = proof(|chunks| chunks[2].2 = chunks[1].2).unwrap();
        assert_eq!(swapped, Proof::Differs { index: 2 });
        let unusable = proof(|chunks| chunks[1].2 = None).unwrap();
        assert_eq!(unusable, Proof::Differs { index: 1 });
    }

    #[test]
    fn a_file_that_cannot_be_read_proves_nothing() {
        let beyond = proof(|chunks| chunks[0].1 = Extent::new(2500, 1000));
        assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Internal);
    }
}
