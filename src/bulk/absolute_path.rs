//! The absolute path of a file, as jobs name it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Returns the absolute path without `..`, by which a file is one job from wherever its path was written down. Symbolic
/// links stay: another name of a file is another job.
///
/// The kernel resolves the folders up to the last `..`, because `link/..` is the folder above the link's target.
///
/// # Errors
/// If there is no working directory, or the path is empty.
pub(super) fn absolute_path(path: &Path) -> io::Result<PathBuf> {
    let Some(below) = below_last_parent(path) else { return std::path::absolute(path) };
    let above = path.ancestors().nth(below.components().count()).unwrap_or(path);
    match fs::canonicalize(above) {
        Ok(folder) => Ok(folder.join(below)),
        // A folder that is away. The file cannot be found either, and the path is only shown.
        Err(_) => std::path::absolute(path),
    }
}

/// Returns the part of the path after its last `..`; `None` if it has none.
fn below_last_parent(path: &Path) -> Option<&Path> {
    let (mut rest, mut below) = (path.components(), None);
    while let Some(component) = rest.next() {
        if component == Component::ParentDir {
            below = Some(rest.as_path());
        }
    }
    below
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_has_one_path_from_every_folder_and_one_for_each_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("films/old")).unwrap();
        fs::create_dir(root.join("elsewhere")).unwrap();
        symlink(root.join("films/old"), root.join("elsewhere/link")).unwrap();
        let absolute = |path: &str| absolute_path(&root.join(path)).unwrap();
        let film = root.join("films/a.mp4");
        assert_eq!(absolute("films/a.mp4"), film);
        assert_eq!(absolute("films/old/../a.mp4"), film);
        assert_eq!(absolute("elsewhere/../films/./old/../a.mp4"), film);
        // The folder above the target, and not the one above the link.
        assert_eq!(absolute("elsewhere/link/../a.mp4"), film);
        assert_eq!(absolute("elsewhere/link/a.mp4"), root.join("elsewhere/link/a.mp4"));
        assert_eq!(absolute("films/../elsewhere/link/a.mp4"), root.join("elsewhere/link/a.mp4"));
        assert_eq!(absolute("gone/../a.mp4"), root.join("gone/../a.mp4"));
        assert_eq!(
            absolute_path(Path::new("..")).unwrap(),
            std::env::current_dir().unwrap().parent().unwrap()
        );
    }
}
