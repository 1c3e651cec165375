//! Moves a file without overwriting another one, across file systems too.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::bulk::file_stamp::FileStamp;

/// A move that was not made.
#[derive(Debug)]
pub(super) enum MoveFailure {
    /// The file is not the one that was to be moved.
    Changed,
    /// There is another file of this name.
    NameTaken,
    /// The file system refuses.
    Io(io::Error),
}

impl From<io::Error> for MoveFailure {
    fn from(error: io::Error) -> MoveFailure {
        MoveFailure::Io(error)
    }
}

/// Moves the file `from` with the stamp `expected` to `to`, which must not exist.
pub(super) fn move_file(from: &Path, to: &Path, expected: &FileStamp) -> Result<(), MoveFailure> {
    match rename(from, to) {
        Ok(()) => {
            // The file may have been replaced since it was examined. Only a file of its own may stay moved.
            if FileStamp::of(to).is_ok_and(|found| found != *expected) {
                rename(to, from).map_err(io::Error::from)?;
                return Err(MoveFailure::Changed);
            }
            // The destination first: after a power failure at least one of the two names is there.
            sync_folder(to)?;
            sync_folder(from)?;
            Ok(())
        }
        // Across file systems the kernel does not even look at the destination.
        Err(Errno::XDEV) if to.symlink_metadata().is_err() => copy(from, to, expected),
        Err(Errno::EXIST | Errno::XDEV) => match taken_by(from, to, expected)? {
            Taken::SamePlace => Ok(()),
            Taken::EarlierMove => remove(from, expected),
            Taken::Other => Err(MoveFailure::NameTaken),
        },
        Err(error) => Err(MoveFailure::Io(error.into())),
    }
}

/// Renames without overwriting.
fn rename(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system, such as NFS, does not know the flag. A link does not overwrite either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::linkat(CWD, from, CWD, to, rustix::fs::AtFlags::empty())?;
            rustix::fs::unlink(from)
        }
        other => other,
    }
}

/// Copies the file to another file system. The copy gets its name when it is complete.
fn copy(from: &Path, to: &Path, expected: &FileStamp) -> Result<(), MoveFailure> {
    let part = part_path(to, expected);
    let source = File::open(from)?;
    // By the open file: the path may lead to another one by now.
    if FileStamp::from(&source.metadata()?) != *expected {
        return Err(MoveFailure::Changed);
    }
    let copied = write_copy(&source, &part).map_err(MoveFailure::Io);
    if let Err(failure) = copied.and_then(|()| place(&source, &part, to, expected)) {
        // The error of the copy is the one to report.
        let _ = fs::remove_file(&part);
        return Err(failure);
    }
    sync_folder(to)?;
    remove(from, expected)
}

/// Gives a complete copy its final name.
fn place(source: &File, part: &Path, to: &Path, expected: &FileStamp) -> Result<(), MoveFailure> {
    // Under that name a copy of two states would pass for the film, and stand in the way of the next move.
    if FileStamp::from(&source.metadata()?) != *expected {
        return Err(MoveFailure::Changed);
    }
    rename(part, to).map_err(|error| match error {
        Errno::EXIST => MoveFailure::NameTaken,
        error => MoveFailure::Io(error.into()),
    })
}

fn write_copy(mut source: &File, part: &Path) -> io::Result<()> {
    // The rest of an attempt that a crash ended.
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let metadata = source.metadata()?;
    // Without setuid and setgid: the copy belongs to the user of this process, and not to the owner of the original.
    let mut copy =
        OpenOptions::new().write(true).create_new(true).mode(metadata.mode() & 0o777).open(part)?;
    io::copy(&mut source, &mut copy)?;
    // The times are how the next run recognizes the copy.
    copy.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
    copy.sync_all()
}

/// Removes the original of a copy.
fn remove(from: &Path, expected: &FileStamp) -> Result<(), MoveFailure> {
    // A copy takes minutes, in which another program may have written to the file.
    if FileStamp::from(&from.symlink_metadata()?) != *expected {
        return Err(MoveFailure::Changed);
    }
    fs::remove_file(from)?;
    sync_folder(from)?;
    Ok(())
}

/// The file that has the name of the destination already.
enum Taken {
    /// The file itself: it is in the folder that it should move to.
    SamePlace,
    /// The file by another link, or a whole copy of it: a crash came before the original was removed.
    EarlierMove,
    /// Another file.
    Other,
}

fn taken_by(from: &Path, to: &Path, expected: &FileStamp) -> io::Result<Taken> {
    let found = to.symlink_metadata()?;
    let stamp = FileStamp::from(&found);
    if stamp == *expected {
        // The removal of the only link would delete the film.
        return Ok(if found.nlink() > 1 { Taken::EarlierMove } else { Taken::SamePlace });
    }
    let may_be_copy =
        found.is_file() && (stamp.bytes, stamp.modified_ns) == (expected.bytes, expected.modified_ns);
    Ok(if may_be_copy && have_equal_bytes(from, to)? { Taken::EarlierMove } else { Taken::Other })
}

fn have_equal_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let open = |path| File::open(path).map(|file| BufReader::with_capacity(BUFFER_BYTES, file));
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let len = left.len().min(right.len());
        if len == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..len] != right[..len] {
            return Ok(false);
        }
        one.consume(len);
        other.consume(len);
    }
}

/// Returns a name that the next run finds again, and that a walk leaves out. A name with the file's own in it could be
/// too long.
fn part_path(to: &Path, expected: &FileStamp) -> PathBuf {
    to.with_file_name(format!(".ringlift-{:x}-{:x}.part", expected.device, expected.inode))
}

/// Makes the names of a folder survive a crash. A folder that cannot be synchronized is left to the kernel.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Only EIO means that names may be lost. Other errors mean that the file system cannot synchronize a
        // folder.
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}

const BUFFER_BYTES: usize = 256 << 10;
