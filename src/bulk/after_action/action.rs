//! The action, its outcomes and its failures.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::mover::{self, MoveFailure};
use crate::bulk::file_stamp::FileStamp;

/// The fate of a file once the service has confirmed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterAction {
    /// The file stays where it is.
    #[default]
    Keep,
    /// The file is moved to this folder under its name.
    MoveTo(PathBuf),
    /// The file is deleted.
    Delete,
}

/// The outcome of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterOutcome {
    /// The file stays.
    Kept,
    /// The file is at this path now.
    Moved(PathBuf),
    /// The file is deleted.
    Deleted,
    /// An earlier run has moved or deleted the file.
    AlreadyDone,
}

/// An action that was not carried out. The file is where it was, and so is every other file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AfterActionError {
    /// The file at the path is not the one that was uploaded.
    #[error("{}: is not the file that was uploaded; it changed or was replaced, and stays", .path.display())]
    Changed {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file was changed after its upload, though its size and the time of its last write are the same.
    #[error("{}: was changed after its upload, if only in its attributes, and stays", .path.display())]
    Touched {
        /// The path of the file.
        path: PathBuf,
    },
    /// The path is a symbolic link.
    #[error("{}: is a symbolic link, and stays", .path.display())]
    Link {
        /// The path of the link.
        path: PathBuf,
    },
    /// The file is gone, and is not at the destination either.
    #[error("{}: is gone, and is not in the folder that it should move to", .path.display())]
    Missing {
        /// The path of the file.
        path: PathBuf,
    },
    /// There is another file of this name.
    #[error("{}: exists, and is not overwritten; rename one of the files", .path.display())]
    NameTaken {
        /// The path of the other file.
        path: PathBuf,
    },
    /// The folder to move to does not exist or is no folder.
    #[error("{}: is no folder; create it, or name another one to move files to", .path.display())]
    NoFolder {
        /// The path of the folder.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("{}: cannot {doing} the uploaded file: {source}", .path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The operation.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// The text is not an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use keep, delete or move:FOLDER")]
pub struct UnknownAfterAction;

impl FromStr for AfterAction {
    type Err = UnknownAfterAction;

    fn from_str(text: &str) -> Result<AfterAction, UnknownAfterAction> {
        AfterAction::try_from(OsStr::new(text))
    }
}

/// Parses `keep`, `delete` or `move:FOLDER`. The folder may have any bytes.
impl TryFrom<&OsStr> for AfterAction {
    type Error = UnknownAfterAction;

    fn try_from(text: &OsStr) -> Result<AfterAction, UnknownAfterAction> {
        use std::os::unix::ffi::OsStrExt;
        match text.as_bytes() {
            b"keep" => Ok(AfterAction::Keep),
            b"delete" => Ok(AfterAction::Delete),
            [b'm', b'o', b'v', b'e', b':', folder @ ..] if !folder.is_empty() => {
                Ok(AfterAction::MoveTo(OsStr::from_bytes(folder).into()))
            }
            _ => Err(UnknownAfterAction),
        }
    }
}

impl fmt::Display for AfterAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AfterAction::Keep => f.write_str("keep"),
            AfterAction::MoveTo(folder) => write!(f, "move:{}", folder.display()),
            AfterAction::Delete => f.write_str("delete"),
        }
    }
}

impl AfterAction {
    /// Checks before a run that the folder to move to exists.
    ///
    /// # Errors
    /// [`AfterActionError::NoFolder`].
    pub fn check(&self) -> Result<(), AfterActionError> {
        match self {
            // A folder that is missing may be a mount that is missing.
            AfterAction::MoveTo(folder) if !folder.is_dir() => {
                Err(AfterActionError::NoFolder { path: folder.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Carries out the action on the file at `path`, if it is still the one with the stamp `uploaded`.
    ///
    /// A move overwrites nothing. Across file systems the file is copied, the copy is synchronized to disk, and only
    /// then is the file removed. The action can be repeated after a crash in the middle of it. Blocks.
    ///
    /// Between the last check of a file and its deletion there is no time for another program to notice, but the
    /// kernel has no deletion by identity: a file that is replaced within those microseconds is deleted.
    ///
    /// # Errors
    /// If the file changed, is a symbolic link or is gone; if the name is taken; if the file system refuses.
    pub fn apply(&self, path: &Path, uploaded: &FileStamp) -> Result<AfterOutcome, AfterActionError> {
        let destination = match self {
            AfterAction::Keep => return Ok(AfterOutcome::Kept),
            AfterAction::Delete => None,
            AfterAction::MoveTo(folder) => {
                // Checked again for each file: a mount may have gone since the run began.
                self.check()?;
                Some(folder.join(path.file_name().unwrap_or_default()))
            }
        };
        // Without following a link: moving or deleting its target was not asked for.
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => Err(AfterActionError::Link { path: path.to_owned() }),
            Ok(metadata) if !metadata.is_file() || FileStamp::from(&metadata) != *uploaded => {
                Err(AfterActionError::Changed { path: path.to_owned() })
            }
            Ok(_) => match destination {
                None => delete(path),
                Some(to) => move_file(path, to, uploaded),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => done_before(path, destination, uploaded),
            Err(source) => Err(AfterActionError::Io { path: path.to_owned(), doing: "examine", source }),
        }
    }
}

fn delete(path: &Path) -> Result<AfterOutcome, AfterActionError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(AfterOutcome::Deleted),
        Err(source) => Err(AfterActionError::Io { path: path.to_owned(), doing: "delete", source }),
    }
}

fn move_file(from: &Path, to: PathBuf, uploaded: &FileStamp) -> Result<AfterOutcome, AfterActionError> {
    match mover::move_file(from, &to, uploaded) {
        Ok(()) => Ok(AfterOutcome::Moved(to)),
        Err(MoveFailure::Changed) => Err(AfterActionError::Changed { path: from.to_owned() }),
        Err(MoveFailure::NameTaken) => Err(AfterActionError::NameTaken { path: to }),
        Err(MoveFailure::Io(source)) => {
            Err(AfterActionError::Io { path: from.to_owned(), doing: "move", source })
        }
    }
}

/// The process may have died after the action and before it was recorded.
fn done_before(
    path: &Path,
    destination: Option<PathBuf>,
    uploaded: &FileStamp,
) -> Result<AfterOutcome, AfterActionError> {
    let Some(to) = destination else { return Ok(AfterOutcome::AlreadyDone) };
    // A copy on another file system has another inode.
    let is_it = |found: FileStamp| (found.bytes, found.modified_ns) == (uploaded.bytes, uploaded.modified_ns);
    if FileStamp::of(&to).is_ok_and(is_it) {
        Ok(AfterOutcome::AlreadyDone)
    } else {
        Err(AfterActionError::Missing { path: path.to_owned() })
    }
}
