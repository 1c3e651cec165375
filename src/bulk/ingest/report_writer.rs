//! The report on a thread of its own: rows that wait share one flush of the disk, and rows for which the report is locked
//! are kept.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::bulk::report::{LOCK_TIMEOUT, Report, ReportError, ReportRow};

/// A handle to the thread that writes the report. Without a report every row is written at once.
#[derive(Clone, Debug)]
pub(super) struct ReportWriter {
    sender: Option<Sender<Request>>,
    /// The failure of the first row that was neither written nor kept.
    failure: Arc<OnceLock<ReportError>>,
}

type Answer = oneshot::Sender<Result<(), ReportError>>;

#[derive(Debug)]
enum Request {
    Row(Box<ReportRow>, Answer),
    /// Asks for the last write.
    Finish(Answer),
}

impl ReportWriter {
    pub(super) fn start(report: Option<Report>) -> ReportWriter {
        ReportWriter::start_with(report, Waits::default())
    }

    fn start_with(report: Option<Report>, waits: Waits) -> ReportWriter {
        let failure = Arc::new(OnceLock::new());
        let Some(report) = report else { return ReportWriter { sender: None, failure } };
        let (sender, receiver) = channel(QUEUE_LEN);
        let rows = ReportThread::new(report, waits, failure.clone());
        let thread = thread::Builder::new().name("ringlift-report".to_owned());
        let thread = thread.spawn(move || rows.run(receiver));
        // The sender of a thread that did not start is disconnected, which fails each row.
        let _ = thread;
        ReportWriter { sender: Some(sender), failure }
    }

    /// Writes a row. With the result `Ok` it is on the disk, or kept until the report is unlocked. Blocks while the queue is
    /// full, and so must not be called by an executor.
    pub(super) fn send_blocking(&self, row: ReportRow) -> Option<oneshot::Receiver<Result<(), ReportError>>> {
        let sender = self.sender.as_ref()?;
        let (written, answer) = oneshot::channel();
        // An error drops the answer's sender, which the receiver finds.
        let _ = sender.blocking_send(Request::Row(Box::new(row), written));
        Some(answer)
    }

    /// Writes a row and waits until it is on the disk, or kept until the report is unlocked.
    pub(super) async fn write(&self, row: ReportRow) -> Result<(), ReportError> {
        self.request(|answer| Request::Row(Box::new(row), answer)).await
    }

    /// Writes the rows that are kept. No row may follow.
    ///
    /// # Errors
    /// [`ReportError::Incomplete`] with the number of all rows that are not in the report.
    pub(super) async fn finish(&self) -> Result<(), ReportError> {
        self.request(Request::Finish).await
    }

    async fn request(&self, request: impl FnOnce(Answer) -> Request) -> Result<(), ReportError> {
        let Some(sender) = &self.sender else { return Ok(()) };
        let (written, answer) = oneshot::channel();
        // As above: the answer has the error.
        let _ = sender.send(request(written)).await;
        answer.await.unwrap_or_else(|_| Err(ended(&self.failure)))
    }
}

/// The times for which the thread waits for the lock of the report.
#[derive(Clone, Copy, Debug)]
struct Waits {
    /// For rows while none are kept.
    first: Duration,
    /// For each attempt while rows are kept.
    again: Duration,
    /// Between two of these attempts, if no row arrives.
    pause: Duration,
    /// At the end of the run.
    last: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        // Both are short, because the next row waits for them. The last one is part of the time after a signal.
        let (again, pause) = (Duration::from_millis(20), Duration::from_millis(200));
        Waits { first: LOCK_TIMEOUT, again, pause, last: Duration::from_secs(10) }
    }
}

/// The thread that writes the report.
#[derive(Debug)]
struct ReportThread {
    report: Report,
    waits: Waits,
    /// The lines of the rows that are not in the report yet, and the number of these rows.
    kept: (Vec<u8>, u64),
    /// The time since which the report is locked.
    locked_since: Option<Instant>,
    /// The number of rows that were neither written nor kept.
    lost: u64,
    failure: Arc<OnceLock<ReportError>>,
}

impl ReportThread {
    fn new(report: Report, waits: Waits, failure: Arc<OnceLock<ReportError>>) -> ReportThread {
        ReportThread { report, waits, kept: (Vec::new(), 0), locked_since: None, lost: 0, failure }
    }

    fn run(mut self, mut receiver: Receiver<Request>) {
        while let Some(requests) = self.next(&mut receiver) {
            let (mut answers, mut finish) = (Vec::new(), None);
            for request in requests {
                match request {
                    Request::Row(row, answer) => {
                        self.add(&row);
                        answers.push(answer);
                    }
                    Request::Finish(answer) => finish = Some(answer),
                }
            }
            if finish.is_some() {
                self.write_last();
            } else {
                self.write();
            }
            // Any of the waiters may be the first to run, and ends the run with its answer.
            let answer = || self.failure.get().map_or(Ok(()), |_| Err(ended(&self.failure)));
            answers.into_iter().for_each(|written| drop(written.send(answer())));
            if let Some(finish) = finish {
                return drop(finish.send(self.completeness()));
            }
        }
        // The run was dropped.
        self.write_last();
    }

    /// Waits for requests, and returns those that have arrived: one sync of the disk serves all of them. Returns none if it
    /// is time to write the kept rows, and `None` once the run is dropped.
    fn next(&self, receiver: &mut Receiver<Request>) -> Option<Vec<Request>> {
        let is_retrying = self.kept.1 > 0 && self.failure.get().is_none();
        let mut requests = Vec::new();
        if !is_retrying {
            requests.push(receiver.blocking_recv()?);
        } else if receiver.is_empty() {
            thread::sleep(self.waits.pause);
        }
        requests.extend(std::iter::from_fn(|| receiver.try_recv().ok()).take(QUEUE_LEN));
        let is_over = requests.is_empty() && receiver.is_closed();
        (!is_over).then_some(requests)
    }

    fn add(&mut self, row: &ReportRow) {
        // A later row would hide the gap.
        if self.failure.get().is_some() {
            self.lost += 1;
            return;
        }
        self.kept.0.extend(self.report.line(row));
        self.kept.1 += 1;
    }

    /// Writes the rows. Keeps them if another process has locked the report.
    fn write(&mut self) {
        if self.failure.get().is_some() {
            return;
        }
        let was_locked = self.locked_since.is_some();
        let written = self.append(if was_locked { self.waits.again } else { self.waits.first });
        let path = self.report.path().display();
        match written {
            Ok(()) if was_locked => {
                tracing::info!(report = %path, "the report is unlocked, its rows are written")
            }
            Ok(()) => {}
            Err(ReportError::Locked { .. }) if self.kept.0.len() <= MOST_KEPT_BYTES => {
                if !was_locked {
                    tracing::warn!(report = %path, "another process has locked the report: its rows are kept in memory");
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Writes the rows for the last time.
    fn write_last(&mut self) {
        if let Err(error) = self.append(self.waits.last) {
            self.fail(error);
        }
    }

    fn append(&mut self, wait: Duration) -> Result<(), ReportError> {
        if self.kept.1 == 0 {
            return Ok(());
        }
        let began = Instant::now();
        match self.report.append_lines(&self.kept.0, wait) {
            Ok(()) => {
                (self.kept, self.locked_since) = ((Vec::new(), 0), None);
                Ok(())
            }
            Err(ReportError::Locked { path, .. }) => {
                let since = *self.locked_since.get_or_insert(began);
                Err(ReportError::Locked { path, seconds: since.elapsed().as_secs() })
            }
            Err(error) => Err(error),
        }
    }

    fn fail(&self, error: ReportError) {
        // The first failure is the cause of the others.
        let _ = self.failure.set(error);
    }

    /// Returns an error if a row is not in the report.
    fn completeness(&self) -> Result<(), ReportError> {
        match self.lost + self.kept.1 {
            0 => Ok(()),
            rows => Err(ReportError::Incomplete { rows, cause: Box::new(ended(&self.failure)) }),
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

/// The rows that wait for a locked report: about 20,000. A run with more of them ends.
const MOST_KEPT_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::bulk::report::RowState;

    /// Waits that a test can wait for.
    const SHORT: Waits = Waits {
        first: Duration::from_millis(50),
        again: Duration::from_millis(5),
        pause: Duration::from_millis(5),
        last: Duration::from_millis(50),
    };

    /// A writer with a report in a folder, and the path of the report.
    fn writer() -> (tempfile::TempDir, std::path::PathBuf, ReportWriter) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        let writer = ReportWriter::start_with(Some(Report::open(&path).unwrap()), SHORT);
        (folder, path, writer)
    }

    fn row(id: &str) -> ReportRow {
        ReportRow::new(id, None, RowState::Done)
    }

    /// Locks the report as another process does: flock(2) is of the open file.
    fn locked(path: &std::path::Path) -> File {
        let other = File::open(path).unwrap();
        other.lock().unwrap();
        other
    }

    fn rows_in(path: &std::path::Path) -> usize {
        fs::read_to_string(path).unwrap().lines().count()
    }

    #[test]
    fn rows_of_a_locked_report_are_written_once_it_is_unlocked() {
        let (_folder, path, writer) = writer();
        let other = locked(&path);
        for id in ["a", "b"] {
            pollster::block_on(writer.write(row(id))).unwrap();
        }
        assert_eq!(rows_in(&path), 0);
        drop(other);
        // Without another row: a service may wait for its next job for days.
        let deadline = Instant::now() + Duration::from_secs(60);
        while rows_in(&path) < 2 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(rows_in(&path), 2);
        pollster::block_on(writer.write(row("c"))).unwrap();
        assert_eq!(rows_in(&path), 3);
        pollster::block_on(writer.finish()).unwrap();
    }

    #[test]
    fn rows_that_cannot_be_written_at_the_end_are_counted() {
        let (_folder, path, writer) = writer();
        let _other = locked(&path);
        pollster::block_on(writer.write(row("a"))).unwrap();
        let sent = writer.send_blocking(row("b")).unwrap();
        let error = pollster::block_on(writer.finish()).unwrap_err();
        assert!(matches!(error, ReportError::Incomplete { rows: 2, .. }), "{error}");
        assert!(error.to_string().contains("rows that are not in the report: 2"), "{error}");
        drop(sent);
    }

    #[test]
    fn rows_that_are_kept_to_the_end_are_written_there() {
        let (_folder, path, writer) = writer();
        let other = locked(&path);
        pollster::block_on(writer.write(row("a"))).unwrap();
        drop(other);
        pollster::block_on(writer.finish()).unwrap();
        assert_eq!(rows_in(&path), 1);
    }

    #[test]
    fn a_locked_report_ends_the_run_once_too_many_rows_are_kept() {
        let (_folder, path, writer) = writer();
        let other = locked(&path);
        let mut long = row("a");
        long.message = Some("x".repeat(MOST_KEPT_BYTES / 2));
        pollster::block_on(writer.write(long.clone())).unwrap();
        let error = pollster::block_on(writer.write(long.clone())).unwrap_err();
        assert!(matches!(error, ReportError::Locked { .. }), "{error}");
        pollster::block_on(writer.write(long)).unwrap_err();
        drop(other);
        let error = pollster::block_on(writer.finish()).unwrap_err();
        assert!(
            matches!(error, ReportError::Incomplete { rows: 1, .. }),
            "the kept rows are written: {error}"
        );
        assert_eq!(rows_in(&path), 2);
    }

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
