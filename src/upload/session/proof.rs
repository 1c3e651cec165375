//! What a session may believe of chunks that an earlier process sent, when the file was touched since.

use super::{Phase, Received, Session};
use crate::error::Error;
use crate::upload::retry::Attempt;

impl Session {
    /// Only these chunks can have been stored by an earlier process. An answer that says "already there" to any
    /// other is a refusal: the service has bytes that were not compared with the file.
    pub fn expect_only(&mut self, sent: impl IntoIterator<Item = u32>) {
        let known = self.chunks.known();
        for index in 0..known {
            self.chunks.record_mut(index).attempt = Attempt::First;
        }
        for index in sent.into_iter().filter(|&index| index < known) {
            self.chunks.record_mut(index).attempt = Attempt::Repeated;
        }
    }

    /// Whether the service, asked before anything is sent, holds a chunk that [`Session::expect_only`] did not name.
    pub fn is_unexpected(&self, received: &Received) -> bool {
        let is_foreign = |index| self.chunks.record(index).attempt == Attempt::First;
        matches!(self.phase, Phase::Reconciling)
            && self.shown(received).any(|(index, shown)| (shown || received.complete) && is_foreign(index))
    }

    /// What an earlier process left cannot be trusted: the session ends, also where it had ended well because every
    /// chunk was acknowledged then.
    pub fn disprove(&mut self, error: Error) {
        self.phase = Phase::Ended(Some(Err(error)));
    }

    /// Whether it has ended, and not well.
    pub fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Ended(Some(Err(_))))
    }
}
