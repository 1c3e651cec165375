//! The errors of job stores and reports as errors of the command.

use std::error::Error;
use std::io;

use ringlift::bulk::{JobStoreError, ReportError, StoreProblem};

use super::exit::{CommandError, Exit};

/// Returns the error of a job store with its exit.
pub(super) fn store_error(error: &JobStoreError) -> CommandError {
    let cause = error.source().filter(|_| needs_cause(error)).map(|cause| format!(": {cause}"));
    CommandError::Other(store_exit(error), format!("{error}{}", cause.unwrap_or_default()))
}

/// Returns the exit of a store's error.
pub(super) fn store_exit(error: &JobStoreError) -> Exit {
    match error.problem() {
        Some(StoreProblem::Locked | StoreProblem::Unreachable | StoreProblem::Timeout) => Exit::Temporary,
        Some(StoreProblem::Denied | StoreProblem::Untrusted) => Exit::NotAllowed,
        Some(StoreProblem::BadCredentials | StoreProblem::BadCertificates) if is_missing(error) => {
            Exit::NoSuchFile
        }
        _ => Exit::Failed,
    }
}

/// Returns the error of a report with its exit.
pub(super) fn report_error(error: &ReportError) -> CommandError {
    match report_exit(error) {
        Exit::Usage => CommandError::usage(error.to_string()),
        exit => CommandError::Other(exit, error.to_string()),
    }
}

/// Returns the exit of a report's error.
pub(super) fn report_exit(error: &ReportError) -> Exit {
    match error {
        ReportError::Locked { .. } => Exit::Temporary,
        // The user chose the name, as that of a manifest.
        ReportError::UnknownFormat { .. } => Exit::Usage,
        ReportError::Incomplete { cause, .. } => report_exit(cause),
        _ => Exit::Failed,
    }
}

/// Returns `true` if the problem does not name the file or the certificate, and its cause does.
fn needs_cause(error: &JobStoreError) -> bool {
    use StoreProblem::{BadCertificates, BadCredentials, Untrusted};
    matches!(error.problem(), Some(BadCertificates | BadCredentials | Untrusted))
}

fn is_missing(error: &JobStoreError) -> bool {
    // Not by `Error::source`, whose value is the pointer to the cause.
    let JobStoreError::Store { source: Some(cause), .. } = error else { return false };
    cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_file_is_temporary_and_another_problem_of_it_is_not() {
        let store = |problem| JobStoreError::Store { place: "jobs.db".to_owned(), problem, source: None };
        assert_eq!(store_exit(&store(StoreProblem::Locked)), Exit::Temporary);
        assert_eq!(store_exit(&store(StoreProblem::Io)), Exit::Failed);
        assert_eq!(report_exit(&ReportError::Locked { path: "r.csv".into(), seconds: 1 }), Exit::Temporary);
        assert_eq!(report_exit(&ReportError::NotRegular { path: "r.csv".into() }), Exit::Failed);
    }
}
