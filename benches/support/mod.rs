//! A sink inside the benchmark's process, and files to send to it.
//!
//! The sink is the one of `ringlift-baseline`: it discards bodies in the kernel and decrypts nothing but heads, on
//! a core of its own. `throughput/limit` measures a bare `sendfile` loop against it, which nothing else
//! comes near; that is how one knows that it is not the bottleneck.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ringlift_baseline::Sink;
use tempfile::TempDir;

/// A file in the page cache; gone when it is dropped.
pub(crate) struct HotFile {
    folder: TempDir,
    pub(crate) len: u64,
}

impl HotFile {
    pub(crate) fn new(len: u64) -> std::io::Result<HotFile> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut file = File::create(folder.path().join(NAME))?;
        let mut random = fastrand::Rng::with_seed(len);
        let mut block = vec![0; 1 << 20];
        let mut left = len;
        while left > 0 {
            let piece = left.min(block.len() as u64);
            random.fill(&mut block[..piece as usize]);
            file.write_all(&block[..piece as usize])?;
            left -= piece;
        }
        // Pages on their way to the disk would disturb the first measurements.
        file.sync_all()?;
        Ok(HotFile { folder, len })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }
}

/// A file with the sink's certificate, where a client looks for it.
pub(crate) fn certificate(sink: &Sink, folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let Some(pem) = sink.ca_pem() else { return Ok(None) };
    let path = folder.join("ca.pem");
    std::fs::write(&path, pem)?;
    Ok(Some(path))
}

const NAME: &str = "movie.mp4";
