//! The action on a file whose upload an earlier run has completed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{AfterAction, AfterActionError, AfterOutcome};
use crate::bulk::file_stamp::FileStamp;
use crate::bulk::unix_time::UnixMillis;

impl AfterAction {
    /// Carries out the action on a file that a later run finds with the size and the time of the one that was uploaded: the
    /// process may have died before the action. Blocks.
    ///
    /// A program can set the time of the last write. The kernel's time of the last change shows what was written since the
    /// upload ended at `finished_at`.
    ///
    /// # Errors
    /// [`AfterActionError::Touched`], and as [`AfterAction::apply`].
    pub(crate) fn make_good(
        &self,
        path: &Path,
        found: &FileStamp,
        finished_at: Option<UnixMillis>,
    ) -> Result<AfterOutcome, AfterActionError> {
        let is_touched =
            finished_at.zip(changed_at(path)).is_some_and(|(finished, changed)| changed > finished);
        if is_touched && *self != AfterAction::Keep {
            return Err(AfterActionError::Touched { path: path.to_owned() });
        }
        self.apply(path, found)
    }
}

/// Returns the time of the last change of a file, of its content or its attributes (`st_ctime`, inode(7)).
fn changed_at(path: &Path) -> Option<UnixMillis> {
    let metadata = path.symlink_metadata().ok()?;
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    Some(UnixMillis::new(seconds * 1000 + metadata.ctime_nsec().unsigned_abs() / 1_000_000))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_file_that_is_as_old_as_its_upload_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        fs::write(&path, b"a").unwrap();
        let (stamp, changed) = (FileStamp::of(&path).unwrap(), changed_at(&path).unwrap());
        let before = UnixMillis::new(changed.get() - 1);
        let kept = AfterAction::Delete.make_good(&path, &stamp, Some(before));
        assert!(matches!(kept, Err(AfterActionError::Touched { .. })) && path.exists(), "{kept:?}");
        assert_eq!(
            AfterAction::Delete.make_good(&path, &stamp, Some(changed)).unwrap(),
            AfterOutcome::Deleted
        );
    }
}
