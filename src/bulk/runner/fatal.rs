//! The decision whether an error ends the whole run.

use std::error::Error as _;

use crate::error::{Error, ErrorKind};
use crate::journal::JournalError;

/// The circumstances of a failed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// `true` if the service has accepted anything in this run.
    pub(super) has_succeeded: bool,
    /// `true` if the job uses credentials that other jobs do not use.
    pub(super) has_own_token: bool,
    /// `true` if the job uses an upload token.
    pub(super) uses_token: bool,
    /// `true` if the job fills a video that its options name.
    pub(super) names_video: bool,
}

/// Returns `true` if every other job of the run would fail with the same error.
///
/// After a first success a failing connection may be temporary, and a refusal may concern one video. With a journal that
/// has no room, each attempt of each job could leave an unrecorded video behind.
pub(super) fn ends_run(error: &Error, circumstances: Circumstances) -> bool {
    let Circumstances { has_succeeded, has_own_token, uses_token, names_video } = circumstances;
    match error.kind() {
        ErrorKind::Untrusted => true,
        ErrorKind::Journal => {
            let of_journal = error.source().and_then(|source| source.downcast_ref::<JournalError>());
            of_journal.is_some_and(concerns_every_file)
        }
        // A web application firewall may refuse one file by its name.
        ErrorKind::NotAuthorized if error.is_from_intermediary() => !has_succeeded,
        ErrorKind::NotAuthorized => !has_own_token && !names_video,
        // The service answers so to an upload token that it does not know.
        ErrorKind::NotFound => uses_token && !has_own_token && !names_video && !has_succeeded,
        ErrorKind::Connect | ErrorKind::WrongProtocol | ErrorKind::MalformedAnswer => !has_succeeded,
        ErrorKind::Refused => error.is_from_intermediary() && !has_succeeded,
        _ => false,
    }
}

/// Returns `true` if the journal would fail in the same way for every other file.
fn concerns_every_file(error: &JournalError) -> bool {
    match error {
        JournalError::Foreign { .. }
        | JournalError::Newer { .. }
        | JournalError::Older { .. }
        | JournalError::NotWritable { .. }
        | JournalError::Full { .. }
        | JournalError::NoSharedMemory { .. }
        | JournalError::NoLocks { .. }
        | JournalError::Replaced { .. }
        | JournalError::LeftOut { .. } => true,
        // A row may be damaged alone, and a disk may fail in one place.
        JournalError::Damaged { .. }
        | JournalError::OutOfReach { .. }
        | JournalError::Locked { .. }
        | JournalError::Claimed { .. }
        | JournalError::Forgotten { .. }
        | JournalError::Io { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;

    const FIRST: Circumstances =
        Circumstances { has_succeeded: false, has_own_token: false, uses_token: false, names_video: false };

    fn ends(kind: ErrorKind, circumstances: Circumstances) -> bool {
        ends_run(&Error::new(kind, "create the video"), circumstances)
    }

    #[test]
    fn a_refused_key_ends_the_run_at_any_time() {
        assert!(ends(ErrorKind::NotAuthorized, FIRST));
        assert!(ends(ErrorKind::NotAuthorized, Circumstances { has_succeeded: true, ..FIRST }));
    }

    #[test]
    fn refused_credentials_of_one_job_do_not_end_the_run() {
        let own = Circumstances { has_own_token: true, uses_token: true, ..FIRST };
        assert!(!ends(ErrorKind::NotAuthorized, own) && !ends(ErrorKind::NotFound, own));
        assert!(!ends(ErrorKind::NotAuthorized, Circumstances { names_video: true, ..FIRST }));
    }

    #[test]
    fn a_dead_endpoint_ends_the_run_only_before_a_first_success() {
        for kind in [ErrorKind::Connect, ErrorKind::WrongProtocol, ErrorKind::MalformedAnswer] {
            assert!(ends(kind, FIRST), "{kind:?}");
            assert!(!ends(kind, Circumstances { has_succeeded: true, ..FIRST }), "{kind:?}");
        }
        let page = Refusal { status: 404, ..Refusal::default() };
        let gateway = Error::new(ErrorKind::Refused, "create the video").with_refusal(page);
        assert!(ends_run(&gateway, FIRST));
        assert!(!ends_run(&gateway, Circumstances { has_succeeded: true, ..FIRST }));
    }

    #[test]
    fn a_journal_without_room_ends_the_run_and_a_damaged_entry_does_not() {
        let path = || "journal.db".into();
        let has_succeeded = Circumstances { has_succeeded: true, ..FIRST };
        assert!(ends_run(&Error::from(JournalError::Full { path: path() }), has_succeeded));
        assert!(ends_run(&Error::from(JournalError::Replaced { path: path() }), has_succeeded));
        assert!(!ends_run(&Error::from(JournalError::Damaged { path: path() }), FIRST));
        assert!(!ends_run(&Error::from(JournalError::Locked { path: path() }), FIRST));
    }

    #[test]
    fn an_error_of_one_file_does_not_end_the_run() {
        for kind in [ErrorKind::NoSuchFile, ErrorKind::Refused, ErrorKind::Unavailable, ErrorKind::Stalled] {
            assert!(!ends(kind, FIRST), "{kind:?}");
        }
    }
}
