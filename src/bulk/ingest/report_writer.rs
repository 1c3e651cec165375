//! The report on a thread of its own: rows that wait share one flush of the disk.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::bulk::report::{Report, ReportError, ReportRow};

/// A handle to the thread that writes the report. Without a report every row is written at once.
#[derive(Clone, Debug)]
pub(super) struct ReportWriter {
    sender: Option<Sender<PendingRow>>,
    /// The failure of the first row that was not written.
    failure: Arc<OnceLock<ReportError>>,
}

#[derive(Debug)]
struct PendingRow {
    row: ReportRow,
    written: oneshot::Sender<Result<(), ReportError>>,
}

impl ReportWriter {
    pub(super) fn start(report: Option<Report>) -> ReportWriter {
        let failure = Arc::new(OnceLock::new());
        let Some(report) = report else { return ReportWriter { sender: None, failure } };
        let (sender, receiver) = channel(QUEUE_LEN);
        let of_thread = failure.clone();
        let write = move || write_all(report, receiver, &of_thread);
        let thread = thread::Builder::new().name("ringlift-report".to_owned()).spawn(write);
        // The sender of a thread that did not start is disconnected, which fails each row.
        let _ = thread;
        ReportWriter { sender: Some(sender), failure }
    }

    /// Writes a row. It is on the disk when the result is `Ok`. Blocks while the queue is full, and so must not be called
    /// by an executor.
    pub(super) fn send_blocking(&self, row: ReportRow) -> Option<oneshot::Receiver<Result<(), ReportError>>> {
        let sender = self.sender.as_ref()?;
        let (written, answer) = oneshot::channel();
        // An error drops the answer's sender, which the receiver finds.
        let _ = sender.blocking_send(PendingRow { row, written });
        Some(answer)
    }

    /// Writes a row and waits until it is on the disk.
    pub(super) async fn write(&self, row: ReportRow) -> Result<(), ReportError> {
        let Some(sender) = &self.sender else { return Ok(()) };
        let (written, answer) = oneshot::channel();
        // As above: the answer has the error.
        let _ = sender.send(PendingRow { row, written }).await;
        answer.await.unwrap_or_else(|_| Err(ended(&self.failure)))
    }
}

fn write_all(mut report: Report, mut receiver: Receiver<PendingRow>, failure: &OnceLock<ReportError>) {
    while let Some(first) = receiver.blocking_recv() {
        // One sync of the disk serves all rows that wait.
        let others = std::iter::from_fn(|| receiver.try_recv().ok());
        let pending: Vec<PendingRow> = std::iter::once(first).chain(others).take(QUEUE_LEN).collect();
        let (rows, answers): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|pending| (pending.row, pending.written)).unzip();
        match report.append(&rows) {
            Ok(()) => answers.into_iter().for_each(|answer| drop(answer.send(Ok(())))),
            Err(error) => {
                // Before the answers: any of the waiters may be the first to run, and ends the run with its answer.
                let _ = failure.set(error);
                answers.into_iter().for_each(|answer| drop(answer.send(Err(ended(failure)))));
                // A later row would hide the gap.
                return;
            }
        }
    }
}

/// Returns the error for a row after the last one: the failure that ended the report, if there was one.
fn ended(failure: &OnceLock<ReportError>) -> ReportError {
    let copied = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
    match failure.get() {
        Some(ReportError::Full { path, source }) => {
            ReportError::Full { path: path.clone(), source: copied(source) }
        }
        Some(ReportError::Io { path, doing, source }) => {
            ReportError::Io { path: path.clone(), doing, source: copied(source) }
        }
        Some(ReportError::Locked { path, seconds }) => {
            ReportError::Locked { path: path.clone(), seconds: *seconds }
        }
        Some(_) | None => {
            let source = io::Error::other("an earlier row could not be written");
            ReportError::Io { path: "report".into(), doing: "continue", source }
        }
    }
}

/// The rows that wait for the disk.
const QUEUE_LEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_after_the_failure_is_answered_with_the_cause() {
        let failure = OnceLock::new();
        assert!(ended(&failure).to_string().contains("an earlier row"));
        let source = io::Error::from(io::ErrorKind::StorageFull);
        failure.set(ReportError::Full { path: "r.csv".into(), source }).unwrap();
        assert!(ended(&failure).to_string().contains("no space for the report"));
        let failure = OnceLock::from(ReportError::Locked { path: "r.csv".into(), seconds: 1 });
        assert!(matches!(ended(&failure), ReportError::Locked { .. }));
    }
}
