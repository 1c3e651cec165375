//! The files that a measurement writes at its end.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::cli::exit::CommandError;

/// Fails if no file can be created at `path`, or if the file there cannot be replaced. The measurement takes a minute and a
/// part of the request budget, so that its end is too late for this error.
pub(super) fn check(path: &Path) -> Result<(), CommandError> {
    if path.is_dir() {
        return Err(CommandError::usage(format!("{}: is a directory: name a file in it", path.display())));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permits = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS);
    let permitted = if path.exists() {
        permits(path, Access::WRITE_OK)
    } else {
        permits(folder, Access::WRITE_OK | Access::EXEC_OK)
    };
    permitted.map_err(|error| CommandError::io(format!("write {}", path.display()), error.into()))
}
