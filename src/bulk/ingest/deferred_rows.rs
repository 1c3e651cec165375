//! The rows of the report for jobs that wait for another attempt.

use std::collections::HashMap;

use crate::bulk::job_id::JobId;
use crate::bulk::report::ReportRow;

/// The rows of the jobs that wait for another attempt, each until the run begins its job again.
#[derive(Debug, Default)]
pub(super) struct DeferredRows(HashMap<JobId, ReportRow>);

impl DeferredRows {
    /// Keeps the row of a job. Returns the row if [`MOST_ROWS`] others are kept.
    pub(super) fn keep(&mut self, id: &JobId, row: ReportRow) -> Option<ReportRow> {
        if self.0.len() >= MOST_ROWS && !self.0.contains_key(id) {
            return Some(row);
        }
        self.0.insert(id.clone(), row);
        None
    }

    /// Removes all rows, and returns them with the jobs.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (JobId, ReportRow)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }

    /// Removes the row of a job that begins again: the row of its next end takes its place.
    pub(super) fn remove(&mut self, id: &JobId) {
        self.0.remove(id);
    }
}

/// The most rows that are kept, of about 1 KiB. The row of a further job is written at once, although the job may end
/// later in the run.
const MOST_ROWS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::report::RowState;

    #[test]
    fn a_row_that_has_no_place_is_returned_and_a_job_that_has_one_keeps_it() {
        let mut rows = DeferredRows::default();
        let id = |number: usize| JobId::new(&number.to_string()).unwrap();
        let row = |number: usize| ReportRow::new(number.to_string(), None, RowState::Failed);
        assert!((0..MOST_ROWS).all(|number| rows.keep(&id(number), row(number)).is_none()));
        assert!(rows.keep(&id(MOST_ROWS), row(MOST_ROWS)).is_some());
        assert!(rows.keep(&id(7), row(7)).is_none());
        rows.remove(&id(7));
        assert!(rows.keep(&id(MOST_ROWS), row(MOST_ROWS)).is_none());
    }
}
