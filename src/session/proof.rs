//! Chunks that an earlier process sent of a file that was touched since: the session expects only proved ones.

use super::{ReceivedSet, Session, SessionPhase};
use crate::error::Error;
use crate::session::retry::AttemptKind;

impl Session {
    /// Limits the chunks that an earlier process can have stored to these. An answer that says "already there" to any
    /// other is a refusal: the service has bytes that were not compared with the file.
    pub fn expect_only(&mut self, sent: impl IntoIterator<Item = u32>) {
        let known = self.chunks.known();
        for index in 0..known {
            self.chunks.record_mut(index).attempt = AttemptKind::First;
        }
        for index in sent.into_iter().filter(|&index| index < known) {
            self.chunks.record_mut(index).attempt = AttemptKind::Repeated;
        }
    }

    /// Returns `true` when the service, asked before anything is sent, holds a chunk that
    /// [`Session::expect_only`] did not name.
    pub fn is_unexpected(&self, received: &ReceivedSet) -> bool {
        let is_foreign = |index| self.chunks.record(index).attempt == AttemptKind::First;
        matches!(self.phase, SessionPhase::Reconciling)
            && self
                .seen_in_status(received)
                .any(|(index, seen_in_status)| (seen_in_status || received.complete) && is_foreign(index))
    }

    /// Ends the session with an error, also where it had ended well because an earlier process has seen the
    /// acknowledgement of every chunk.
    pub fn disprove(&mut self, error: Error) {
        self.phase = SessionPhase::Ended(Some(Err(error)));
    }

    /// Returns `true` when it has ended with an error.
    pub fn has_failed(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(Some(Err(_))))
    }
}
