//! The file that the demonstration uploads.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::cli::exit::{Exit, Failure};
use crate::cli::values::Size;

/// A directory that goes away with everything in it.
pub(super) fn workplace(parent: Option<&Path>) -> Result<TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ringlift-demo-");
    let made = match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    };
    made.map_err(|error| Failure::io("make a temporary directory", error))
}

/// Refuses what the disk cannot hold, before it is full.
pub(super) fn check_room(dir: &Path, needed: u64) -> Result<(), Failure> {
    let room = statvfs(dir)
        .map_err(|error| Failure::io(format!("look at the disk of {}", dir.display()), error.into()))?;
    let free = room.f_bavail * room.f_frsize;
    if free < needed + RESERVE_BYTES {
        let why = format!(
            "the demonstration needs {} in {}, where {} are free: use a smaller --size, or --data elsewhere",
            Size(needed),
            dir.display(),
            Size(free),
        );
        return Err(Failure::Other(Exit::Failed, why));
    }
    Ok(())
}

/// Writes a file that no disk and no network can compress, the same every time.
pub(super) fn make(path: &Path, bytes: u64) -> Result<(), Failure> {
    write(path, bytes).map_err(|error| Failure::io(format!("write {}", path.display()), error))
}

fn write(path: &Path, bytes: u64) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut file = File::create(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        random.fill(&mut block);
        let len = left.min(BLOCK_BYTES as u64);
        file.write_all(&block[..len as usize])?;
        left -= len;
    }
    Ok(())
}

/// Copies the first bytes of a file into another.
pub(super) fn cut(from: &Path, dir: &Path, bytes: u64) -> Result<PathBuf, Failure> {
    let path = dir.join("slice.mp4");
    let copy = || io::copy(&mut io::Read::take(File::open(from)?, bytes), &mut File::create(&path)?);
    copy().map_err(|error| Failure::io(format!("copy the start of {}", from.display()), error))?;
    Ok(path)
}

pub(super) const NAME: &str = "sample.mp4";
const SEED: u64 = 0x72_69_6e_67;
const BLOCK_BYTES: usize = 1 << 20;

/// What is left to others on the disk.
const RESERVE_BYTES: u64 = 256 << 20;
