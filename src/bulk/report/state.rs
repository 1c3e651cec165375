//! The state of a finished job.

use std::fmt;
use std::str::FromStr;

/// The state of a finished job in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RowState {
    /// The service confirmed the video.
    Done,
    /// The job failed.
    Failed,
    /// The job was done or had failed before, and nothing was sent.
    Skipped,
    /// The run ended before the job did.
    Cancelled,
}

/// The text is not a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use done, failed, skipped or cancelled")]
pub struct UnknownRowState;

impl RowState {
    /// Returns the state as it is written in a report.
    pub fn name(self) -> &'static str {
        match self {
            RowState::Done => "done",
            RowState::Failed => "failed",
            RowState::Skipped => "skipped",
            RowState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for RowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RowState {
    type Err = UnknownRowState;

    fn from_str(text: &str) -> Result<RowState, UnknownRowState> {
        let all = [RowState::Done, RowState::Failed, RowState::Skipped, RowState::Cancelled];
        all.into_iter().find(|state| state.name() == text.trim()).ok_or(UnknownRowState)
    }
}
