//! The files that a measurement writes at its end.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::cli::exit::CommandError;

/// Fails if the chart and the config file, which does not exist yet, are the same file.
pub(super) fn check_apart(plot: &Path, config: &Path) -> Result<(), CommandError> {
    if full_name(plot) == full_name(config) {
        let plot = plot.display();
        return Err(CommandError::usage(format!("{plot}: give --plot and --write-config different files")));
    }
    Ok(())
}

/// Returns the path without links in its folder, or the path itself if the folder cannot be read.
fn full_name(path: &Path) -> PathBuf {
    let folder = folder_of(path).canonicalize();
    folder.map_or_else(|_| path.to_owned(), |folder| folder.join(path.file_name().unwrap_or_default()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Fails if no file can be created at `path`, or if the file there cannot be replaced. The measurement takes a minute and a
/// part of the request budget, so that its end is too late for this error.
pub(super) fn check(path: &Path) -> Result<(), CommandError> {
    if path.is_dir() {
        return Err(CommandError::usage(format!("{}: is a directory: name a file in it", path.display())));
    }
    let folder = folder_of(path);
    let permits = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS);
    let permitted = if path.exists() {
        permits(path, Access::WRITE_OK)
    } else {
        permits(folder, Access::WRITE_OK | Access::EXEC_OK)
    };
    permitted.map_err(|error| CommandError::io(format!("write {}", path.display()), error.into()))
}
