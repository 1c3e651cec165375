//! The errors of job stores as errors of the command.

use ringlift::bulk::{JobStoreError, StoreProblem};

use super::exit::{CommandError, Exit};

/// Returns the error of a job store with its exit.
pub(super) fn store_error(error: &JobStoreError) -> CommandError {
    CommandError::Other(store_exit(error), error.to_string())
}

/// Returns the exit of a store's error.
pub(super) fn store_exit(error: &JobStoreError) -> Exit {
    match error.problem() {
        Some(StoreProblem::Locked | StoreProblem::Unreachable | StoreProblem::Timeout) => Exit::Temporary,
        _ => Exit::Failed,
    }
}
