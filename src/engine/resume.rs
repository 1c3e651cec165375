//! The join of a checkpoint with the journal of this host, which may have an entry of the same upload.

use crate::engine::checkpoint::Checkpoint;
use crate::engine::journal_entry::{JournalEntryGuard, Recovered};
use crate::error::{Error, ErrorKind, Result};
use crate::source::SourceFile;

/// Returns the state from which an upload continues, and its journal entry.
///
/// # Errors
/// If the checkpoint cannot be used, or if the journal has the file in another video. A journal entry that the claim
/// has just added is removed then.
pub(crate) fn joined(
    journal_entry: Option<JournalEntryGuard>,
    ours: Recovered,
    checkpoint: &Checkpoint,
    endpoint: &str,
    file: Option<&SourceFile>,
) -> Result<(Option<JournalEntryGuard>, Recovered)> {
    let theirs = match file {
        Some(file) => checkpoint.recover(endpoint, file),
        None => Err(refused("only the upload of a file can be continued".to_owned())),
    };
    match theirs.and_then(|theirs| newer(ours, theirs)) {
        Ok(continued) => Ok((journal_entry, continued)),
        Err(error) => {
            let added = journal_entry.filter(JournalEntryGuard::is_new);
            added.into_iter().for_each(JournalEntryGuard::finished);
            Err(error)
        }
    }
}

/// Returns the state that knows more.
fn newer(ours: Recovered, theirs: Recovered) -> Result<Recovered> {
    match (ours, theirs) {
        (
            Recovered::Container { video_id, made, plan, mut resumed, doubt, digests },
            Recovered::Container { video_id: other, plan: other_plan, resumed: more, .. },
        ) => {
            if video_id != other || plan != other_plan {
                return Err(refused(format!(
                    "the journal has the file in video {video_id}, and the checkpoint in video {other}"
                )));
            }
            // Each may know chunks that the other does not: the checkpoint may come from another host.
            resumed.stored.extend(more.stored);
            Ok(Recovered::Container { video_id, made, plan, resumed, doubt, digests })
        }
        (_, theirs @ Recovered::Container { .. }) => Ok(theirs),
        (Recovered::Nothing | Recovered::PossibleOrphan, theirs) => Ok(theirs),
        // The checkpoint was taken before the journal learned more of the same upload.
        (ours, _) => Ok(ours),
    }
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "continue from the checkpoint").because(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::CreatedBy;
    use crate::session::Resumed;
    use crate::wire::limits::MIN_CHUNK_BYTES;
    use crate::wire::{Addressing, Plan};

    fn container(video_id: &str, stored: &[u32]) -> Recovered {
        let plan = Plan::new(9 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::Part).unwrap();
        let (resumed, made) = (Resumed { stored: stored.to_vec() }, CreatedBy::ByUs);
        Recovered::Container {
            video_id: video_id.into(),
            made,
            plan,
            resumed,
            doubt: None,
            digests: Vec::new(),
        }
    }

    fn intended(mark: &str) -> Recovered {
        Recovered::Intended { mark: mark.into() }
    }

    #[test]
    fn chunks_of_the_journal_and_of_the_checkpoint_are_joined_in_one_video_only() {
        let Recovered::Container { resumed, .. } =
            newer(container("vi1", &[0, 1]), container("vi1", &[1, 2])).unwrap()
        else {
            panic!()
        };
        assert_eq!(resumed.stored, [0, 1, 1, 2]);
        let error = newer(container("vi1", &[]), container("vi2", &[])).unwrap_err().to_string();
        assert!(error.contains("vi1") && error.contains("vi2"), "{error}");
    }

    #[test]
    fn a_container_is_newer_than_a_mark_and_a_mark_than_nothing() {
        let is_container = |joined: Result<Recovered>| matches!(joined, Ok(Recovered::Container { .. }));
        assert!(is_container(newer(intended("m"), container("vi1", &[]))));
        assert!(is_container(newer(container("vi1", &[]), intended("m"))));
        assert!(is_container(newer(Recovered::Nothing, container("vi1", &[]))));
        assert!(matches!(newer(Recovered::Nothing, intended("m")), Ok(Recovered::Intended { .. })));
        assert!(matches!(newer(intended("m"), Recovered::Nothing), Ok(Recovered::Intended { .. })));
    }
}
