//! The report on a thread of its own: rows that wait share one flush of the disk.

use std::thread;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::bulk::report::{Report, ReportError, ReportRow};

/// A handle to the thread that writes the report. Without a report every row is written at once.
#[derive(Clone, Debug)]
pub(super) struct ReportWriter {
    sender: Option<Sender<PendingRow>>,
}

#[derive(Debug)]
struct PendingRow {
    row: ReportRow,
    written: oneshot::Sender<Result<(), ReportError>>,
}

impl ReportWriter {
    pub(super) fn start(report: Option<Report>) -> ReportWriter {
        let Some(report) = report else { return ReportWriter { sender: None } };
        let (sender, receiver) = channel(QUEUE_LEN);
        let write = move || write_all(report, receiver);
        let thread = thread::Builder::new().name("ringlift-report".to_owned()).spawn(write);
        // The sender of a thread that did not start is disconnected, which fails each row.
        let _ = thread;
        ReportWriter { sender: Some(sender) }
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
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn write_all(mut report: Report, mut receiver: Receiver<PendingRow>) {
    while let Some(first) = receiver.blocking_recv() {
        // One sync of the disk serves all rows that wait.
        let others = std::iter::from_fn(|| receiver.try_recv().ok());
        let pending: Vec<PendingRow> = std::iter::once(first).chain(others).take(QUEUE_LEN).collect();
        let (rows, answers): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|pending| (pending.row, pending.written)).unzip();
        match report.append(&rows) {
            Ok(()) => answers.into_iter().for_each(|answer| drop(answer.send(Ok(())))),
            Err(error) => {
                // The first waiter receives the cause; it ends the run.
                let mut answers = answers.into_iter();
                answers.next().map(|answer| answer.send(Err(error)));
                answers.for_each(|answer| drop(answer.send(Err(ended()))));
                // A later row would hide the gap.
                return;
            }
        }
    }
}

fn ended() -> ReportError {
    let source = std::io::Error::other("an earlier row could not be written");
    ReportError::Io { path: "report".into(), doing: "continue", source }
}

/// The rows that wait for the disk.
const QUEUE_LEN: usize = 256;
