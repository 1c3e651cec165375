//! The sample file of the demonstration.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ringlift::limits::MAX_SINGLE_BYTES;
use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::cli::exit::{CommandError, Exit};
use crate::cli::signals::Interrupts;
use crate::cli::values::Size;

/// Creates a temporary directory, which is removed with its contents on drop.
pub(super) fn workplace(parent: Option<&Path>) -> Result<TempDir, CommandError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ringlift-demo-");
    let made = match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    };
    made.map_err(|error| CommandError::io("create a temporary directory", error))
}

/// Fails if the disk cannot hold the sample, the uploaded video and the beginning of the sample.
pub(super) fn check_room(dir: &Path, made: u64, uploaded: u64) -> Result<(), CommandError> {
    let room = statvfs(dir).map_err(|error| {
        CommandError::io(format!("read the free space of {}", dir.display()), error.into())
    })?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    // The sum saturates: an amount that exceeds 64 bits exceeds every disk as well.
    let needed = made.saturating_add(uploaded).saturating_add(MAX_SINGLE_BYTES);
    if free < needed.saturating_add(RESERVE_BYTES) {
        let why = format!(
            "the demonstration needs {} in {} and leaves another {} free, but only {} are free: \
             use a smaller --size, or another disk with --data",
            Size(needed),
            dir.display(),
            Size(RESERVE_BYTES),
            Size(free),
        );
        return Err(CommandError::Other(Exit::Failed, why));
    }
    Ok(())
}

/// Writes a file of incompressible bytes, the same on every run.
pub(in crate::cli) fn make(path: &Path, bytes: u64, interrupts: &mut Interrupts) -> Result<(), CommandError> {
    let failed = |error| CommandError::io(format!("write {}", path.display()), error);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut file = File::create(path).map_err(failed)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        // For each block, because a large sample takes minutes.
        interrupts.check()?;
        random.fill(&mut block);
        let len = left.min(BLOCK_BYTES as u64);
        file.write_all(&block[..len as usize]).map_err(failed)?;
        left -= len;
    }
    Ok(())
}

/// Copies the first bytes of a file to another file.
pub(super) fn cut(
    from: &Path,
    dir: &Path,
    bytes: u64,
    interrupts: &mut Interrupts,
) -> Result<PathBuf, CommandError> {
    let failed = |error| CommandError::io(format!("copy the start of {}", from.display()), error);
    let path = dir.join("slice.mp4");
    let mut from = File::open(from).map_err(failed)?.take(bytes);
    let mut to = File::create(&path).map_err(failed)?;
    loop {
        interrupts.check()?;
        let copied = io::copy(&mut from.by_ref().take(BLOCK_BYTES as u64), &mut to).map_err(failed)?;
        if copied == 0 {
            return Ok(path);
        }
    }
}

pub(super) const NAME: &str = "sample.mp4";
const SEED: u64 = 0x72_69_6e_67;
const BLOCK_BYTES: usize = 1 << 20;

/// Space that stays free for other programs.
const RESERVE_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_sizes_do_not_overflow_the_space_check() {
        let dir = std::env::temp_dir();
        for (made, uploaded) in [(u64::MAX, u64::MAX), (1 << 63, 1 << 63), (u64::MAX - (256 << 20), 0)] {
            let refused = check_room(&dir, made, uploaded).unwrap_err().to_string();
            assert!(refused.contains("leaves another 256 MiB free"), "{refused}");
        }
    }
}
