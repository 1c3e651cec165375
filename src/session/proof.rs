//! Resumption of a file that was touched since: only chunks that were compared by digest count as sent.

use super::{ReceivedSet, Session, SessionPhase};
use crate::error::Error;
use crate::session::retry::AttemptKind;

impl Session {
    /// Restricts the chunks that an earlier process can have stored to `sent`. "Already there" for any other chunk is
    /// a refusal: the service has bytes that were not compared with the file.
    pub(crate) fn expect_only(&mut self, sent: impl IntoIterator<Item = u32>) {
        let known = self.chunks.known();
        for index in 0..known {
            // `restore` marked every chunk as possibly sent. Only chunks with an equal digest keep that mark.
            self.chunks.record_mut(index).attempt = AttemptKind::First;
        }
        // Indexes of another plan may be in the journal.
        for index in sent.into_iter().filter(|&index| index < known) {
            self.chunks.record_mut(index).attempt = AttemptKind::Repeated;
        }
    }

    /// Returns `true` if the first status lists a chunk that was not passed to [`Session::expect_only`].
    pub(crate) fn is_unexpected(&self, received: &ReceivedSet) -> bool {
        let is_foreign = |index| self.chunks.record(index).attempt == AttemptKind::First;
        // Later statuses list the chunks of this run, which need no proof.
        matches!(self.phase, SessionPhase::Reconciling)
            && self
                .seen_in_status(received)
                .any(|(index, seen_in_status)| (seen_in_status || received.complete) && is_foreign(index))
    }

    /// Ends the session with an error, even if it had succeeded because every chunk was acknowledged earlier.
    pub(crate) fn disprove(&mut self, error: Error) {
        // `end` would keep an earlier success, so the phase is replaced.
        self.phase = SessionPhase::Ended(Some(Err(error)));
    }

    /// Returns `true` if the session ended with an error.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(Some(Err(_))))
    }
}
