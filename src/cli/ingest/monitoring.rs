//! The monitor and the file of metrics of a run.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::monitor::{MetricsFile, MetricsFileError, Monitor, MonitorError, MonitorOptions, RunSource};

use super::live::LiveRun;
use crate::cli::console::Console;
use crate::cli::events::CommandEvent;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::ingest_args::RunArgs;

/// The monitor and the file of metrics of a run, as far as they are requested.
pub(super) struct Monitoring {
    run: Arc<LiveRun>,
    monitor: Option<Monitor>,
    /// Disconnected to end the thread that writes the file, which reports its end.
    metrics: Option<(Sender<()>, Receiver<()>)>,
}

impl Monitoring {
    /// Starts what the flags request. Nothing was sent to the service yet, so that a port in use costs nothing.
    pub(super) fn start(args: &RunArgs, run: LiveRun, console: &Console) -> Result<Monitoring, CommandError> {
        let run = Arc::new(run);
        let metrics = args.metrics_file.as_deref().map(|path| write_metrics(path, run.clone(), console));
        let metrics = metrics.transpose()?;
        let source = run.clone() as Arc<dyn RunSource>;
        let start = |address| Monitor::start(MonitorOptions::new(address), source);
        let monitor = args.monitor.map(start).transpose()?;
        if let Some(monitor) = &monitor {
            console.emit(&CommandEvent::Monitor { url: &monitor.url() });
            if monitor.token().is_some() {
                // Not a message that quiet output omits: without the token the page is out of reach.
                console.alert(format_args!("the monitor is at {}", monitor.login_url()));
            } else {
                console.note(format_args!("the monitor is at {}", monitor.url()));
            }
        }
        Ok(Monitoring { run, monitor, metrics })
    }

    /// Publishes the exit code, and ends. Takes some seconds at most.
    pub(super) fn end(self, exit: Exit) {
        self.run.numbers.lock().exit_code = Some(exit.code());
        if let Some((stop, ended)) = self.metrics {
            drop(stop);
            // A disk that does not respond must not keep the process.
            let _ = ended.recv_timeout(LAST_WRITE);
        }
        if let Some(monitor) = self.monitor {
            monitor.stop();
        }
    }
}

/// Starts the thread that writes the metrics: a write waits for the disk.
fn write_metrics(
    path: &Path,
    run: Arc<LiveRun>,
    console: &Console,
) -> Result<(Sender<()>, Receiver<()>), CommandError> {
    let mut file = MetricsFile::new(path)?;
    let ((stop, stopped), (end, ended)) = (channel::<()>(), channel::<()>());
    let console = console.clone();
    let write = move || {
        // Dropped when the thread ends, also by a panic: the end of the run waits for it.
        let _end = end;
        let mut last_warning = String::new();
        loop {
            let is_last = stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Disconnected);
            let written = if is_last {
                file.write(run.view())
            } else {
                file.update(|| run.view(), Instant::now()).map(drop)
            };
            let warning = written.err().map(|error| error.to_string()).unwrap_or_default();
            // A full disk is reported once, not every second.
            if !warning.is_empty() && warning != last_warning {
                console.alert(&warning);
            }
            last_warning = warning;
            if is_last {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("ringlift-metrics".to_owned()).spawn(write);
    thread.map_err(|error| CommandError::io("start a thread for the metrics", error))?;
    Ok((stop, ended))
}

impl From<MonitorError> for CommandError {
    fn from(error: MonitorError) -> CommandError {
        let exit = match error {
            MonitorError::ForeignAddress { .. } => Exit::Usage,
            // As of `serve`: the port may be free later.
            MonitorError::PortInUse { .. } => Exit::Temporary,
            _ => Exit::Failed,
        };
        CommandError::Other(exit, format!("--monitor: {error}"))
    }
}

impl From<MetricsFileError> for CommandError {
    fn from(error: MetricsFileError) -> CommandError {
        let exit = match error {
            MetricsFileError::SymbolicLink { .. } | MetricsFileError::NotAFile { .. } => Exit::Usage,
            MetricsFileError::NoFolder { .. } => Exit::NoSuchFile,
            _ => Exit::Failed,
        };
        CommandError::Other(exit, format!("--metrics-file: {error}"))
    }
}

/// The time between two looks at the end of the run.
const TICK: Duration = Duration::from_millis(250);

/// The time for the last write of the metrics.
const LAST_WRITE: Duration = Duration::from_secs(5);
