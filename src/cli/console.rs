//! Console output: results on standard output, messages and the progress bar on standard error.

use std::env;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringlift::Redactor;
use ringlift::bulk::totals::Totals;
use ringlift::bulk::{JsonEvent, RunSummary};
use serde::Serialize;

use super::args::{GlobalArgs, ProgressWhen};
use super::escape::visible;
use super::events::json_line;
use super::exit::{CommandError, Exit, Interrupt};
use super::output::{Output, PendingWrite, Stream, Urgency};
use super::progress_bar::{self, ProgressBar};
use super::progress_view;
use super::secrets;
use super::signal_route::SignalRoute;
use super::values::Size;

/// Output of a command. Clones share the streams.
#[derive(Clone, Debug)]
pub(super) struct Console {
    format: Format,
    verbosity: Verbosity,
    progress_mode: ProgressMode,
    bar: ProgressBar,
    is_stdout_terminal: bool,
    output: Output,
    route: SignalRoute,
    redactor: Redactor,
    /// Set once the summary was written.
    has_summary: Arc<AtomicBool>,
}

/// State of a failed upload at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UploadRemains<'a> {
    Nothing,
    /// The upload can be resumed by the same command, or by the command in `resume`.
    Resumable {
        resume: String,
    },
    /// A created video that is certainly incomplete.
    Incomplete(&'a str),
    /// A created video that may be complete.
    Unknown(&'a str),
}

/// Format of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    People,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verbosity {
    Quiet,
    Normal,
}

/// Progress display mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProgressMode {
    Nothing,
    /// A display at the bottom of the terminal.
    Bar,
    /// One line per interval.
    Lines(Duration),
}

impl Console {
    pub(super) fn new(global: &GlobalArgs) -> Console {
        Console {
            format: if global.json { Format::Json } else { Format::People },
            verbosity: if global.quiet { Verbosity::Quiet } else { Verbosity::Normal },
            progress_mode: ProgressMode::choose(global, is_capable_terminal()),
            ..Console::silent(global.redactor.clone())
        }
    }

    /// Creates a console for errors that occur before the flags are parsed.
    pub(super) fn before_settings(json: bool, redactor: Redactor) -> Console {
        let format = if json { Format::Json } else { Format::People };
        Console { format, ..Console::silent(redactor) }
    }

    fn silent(redactor: Redactor) -> Console {
        let output = Output::new();
        Console {
            format: Format::People,
            verbosity: Verbosity::Normal,
            progress_mode: ProgressMode::Nothing,
            bar: ProgressBar::new(output.clone()),
            is_stdout_terminal: io::stdout().is_terminal(),
            output,
            route: SignalRoute::default(),
            redactor,
            has_summary: Arc::default(),
        }
    }

    /// Returns the destination of received signals.
    pub(super) fn route(&self) -> &SignalRoute {
        &self.route
    }

    /// Returns the output queues.
    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Returns `true` if events are written, so that callers can skip work that only events need.
    pub(super) fn writes_events(&self) -> bool {
        self.format == Format::Json
    }

    /// Returns `true` if results are read on a terminal.
    pub(super) fn shows_tables(&self) -> bool {
        self.is_stdout_terminal && self.format == Format::People
    }

    /// Writes an event if `--json` is set.
    pub(super) fn emit(&self, event: &impl Serialize) {
        let _ = self.emit_for_file(None, event);
    }

    /// Writes an event about a file. `name` is the file's name in bytes if it is not UTF-8. Returns a handle
    /// to wait for the write, or `None` without `--json`.
    pub(super) fn emit_for_file(&self, name: Option<&[u8]>, event: &impl Serialize) -> Option<PendingWrite> {
        self.emit_with(name, event, Urgency::Line)
    }

    fn emit_with(
        &self,
        name: Option<&[u8]>,
        event: &impl Serialize,
        urgency: Urgency,
    ) -> Option<PendingWrite> {
        if !self.writes_events() {
            return None;
        }
        let line = json_line(event, name)?;
        let line = format!("{}\n", secrets::for_machines(&self.redactor, &line));
        Some(self.enqueue(Stream::Out, line, urgency))
    }

    /// Writes a line of the result, unless `--json` is set.
    pub(super) fn result(&self, text: impl Display) {
        let _ = self.pending_result(text);
    }

    /// Like [`Console::result`], and returns a handle to wait for the write.
    pub(super) fn pending_result(&self, text: impl Display) -> Option<PendingWrite> {
        let line = || format!("{}\n", secrets::for_people(&self.redactor, &text.to_string()));
        (self.format == Format::People).then(|| self.enqueue(Stream::Out, line(), Urgency::Line))
    }

    /// Writes a text that is the whole output of the command.
    pub(super) fn text(&self, text: &[u8]) {
        let _ = self.enqueue(Stream::Out, String::from_utf8_lossy(text).into_owned(), Urgency::Line);
    }

    /// Waits until everything queued for standard output is written. Returns `false` if writing failed.
    pub(super) async fn is_written(&self) -> bool {
        self.output.last(Stream::Out).is_written().await
    }

    /// Prints an informational message, unless `--quiet` is set.
    pub(super) fn note(&self, text: impl Display) {
        if self.verbosity == Verbosity::Normal {
            self.write_stderr(&format!("{text}\n"));
        }
    }

    /// Asks the user a yes-or-no question. Returns `None` if standard input is not a terminal.
    pub(super) fn confirm(&self, question: impl Display) -> Option<bool> {
        if !io::stdin().is_terminal() {
            return None;
        }
        self.write_stderr(&format!("{question} [y/N] "));
        // The question has to be on the screen before the answer is read.
        self.output.drain();
        let mut answer = String::new();
        // A closed terminal reads as an empty answer, which is a no.
        let _ = io::stdin().lock().read_line(&mut answer);
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Prints an error with its causes and the suggested action.
    pub(super) fn print_error(&self, failure: &CommandError) {
        match failure {
            CommandError::Clap(error) => self.write_stderr(&error.render().to_string()),
            failure => self.write_stderr(&explain(failure)),
        }
    }

    /// Prints the help or the version.
    pub(super) fn help(&self, error: &clap::Error) {
        // <https://no-color.org>: an empty value does not count.
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let text = if io::stdout().is_terminal() && !is_plain {
            error.render().ansi().to_string()
        } else {
            error.render().to_string()
        };
        self.text(text.as_bytes());
    }

    /// Prints a message regardless of `--quiet`, such as an id that could not be written to standard output.
    pub(super) fn alert(&self, text: impl Display) {
        self.write_stderr(&format!("ringlift: {}\n", visible(&text.to_string())));
    }

    /// Prints the error of a file and the state of its upload at the service.
    pub(super) fn print_file_error(&self, file: &str, failure: &CommandError, remains: UploadRemains<'_>) {
        let mut text = explain(failure);
        let file = visible(file);
        // Most errors name their file already.
        if !text.contains(&*file) {
            text = text.replacen("ringlift: ", &format!("ringlift: {file}: "), 1);
        }
        match remains {
            UploadRemains::Nothing => {}
            UploadRemains::Resumable { resume } => {
                text += &format!("  to resume, run the same command again, or `{resume}`\n");
            }
            UploadRemains::Incomplete(video_id) => {
                text += &format!("  video {video_id} is incomplete; ");
                text += &format!("delete it with: ringlift video delete {video_id}\n");
            }
            UploadRemains::Unknown(video_id) => {
                text += &format!("  video {video_id} may be incomplete; ");
                text += &format!("check it with: ringlift status {video_id}\n");
            }
        }
        self.write_stderr(&text);
    }

    /// Starts the progress display.
    pub(super) fn start_progress(&self) {
        if self.progress_mode == ProgressMode::Bar {
            self.bar.start(progress_bar::is_utf8(|name| env::var(name).ok()), Instant::now());
        }
    }

    /// Updates the progress display.
    pub(super) fn draw_progress(&self, totals: &Totals, now: Instant) {
        if let Some(screen) = self.bar.due_frame(now) {
            self.bar.draw(progress_view::render(totals, screen, now), now);
        }
    }

    /// Returns the interval between lines of progress; `None` if no lines are printed.
    pub(super) fn stats_interval(&self) -> Option<Duration> {
        match self.progress_mode {
            ProgressMode::Lines(interval) => Some(interval),
            ProgressMode::Nothing | ProgressMode::Bar => None,
        }
    }

    /// Prints a line of progress.
    pub(super) fn print_stats(&self, totals: &Totals, now: Instant) {
        self.write_stderr(&format!("{}\n", progress_view::stats_line(totals, now)));
    }

    /// Removes the progress display.
    pub(super) fn clear_progress(&self) {
        self.bar.clear();
    }

    /// Writes the summary at most once. It is the last line.
    pub(super) fn write_summary(&self, summary: &RunSummary) {
        // The signal thread and the command may both end the process.
        if !self.has_summary.swap(true, Ordering::Relaxed) {
            let _ = self.emit_with(None, &JsonEvent::Summary(summary), Urgency::Last);
        }
    }

    /// Writes the summary and exits the process. Called by the signal thread if the command does not react to
    /// a signal.
    pub(super) fn exit_on_signal(&self, interrupt: Interrupt) -> ! {
        let exit = Exit::Interrupted(interrupt);
        // First: waits for a reader become short.
        self.output.hurry();
        self.clear_progress();
        self.write_summary(&RunSummary { exit_code: exit.code(), ..RunSummary::default() });
        self.output.drain();
        // Without joining threads: one that waits for a disk in the kernel may never end.
        process::exit(exit.code().into());
    }

    /// Writes to standard error, above the progress display.
    fn write_stderr(&self, text: &str) {
        let _ = self.enqueue(Stream::Err, secrets::for_people(&self.redactor, text), Urgency::Line);
    }

    /// Queues a text. All output except frames of the progress display passes through this function.
    fn enqueue(&self, stream: Stream, text: String, urgency: Urgency) -> PendingWrite {
        if urgency == Urgency::Line {
            // Waits before the display is locked, because the thread that receives signals also locks it.
            self.output.wait_for_room(stream);
        }
        let shares_terminal = stream == Stream::Err || self.is_stdout_terminal;
        self.bar.write(stream, text, urgency, shares_terminal)
    }
}

/// Writes log lines above the progress display. One call is one line.
impl io::Write for Console {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(buf);
        // Redacted before escaping, which could hide a secret from the redactor.
        let text = self.redactor.redact(text.trim_end_matches('\n'));
        self.write_stderr(&format!("{}\n", visible(&text)));
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ProgressMode {
    fn choose(global: &GlobalArgs, is_terminal: bool) -> ProgressMode {
        let lines = |usual| match global.stats.or(usual) {
            None | Some(Duration::ZERO) => ProgressMode::Nothing,
            Some(interval) => ProgressMode::Lines(interval),
        };
        match global.progress {
            ProgressWhen::Auto if global.quiet => lines(None),
            ProgressWhen::Auto | ProgressWhen::Always if is_terminal => ProgressMode::Bar,
            ProgressWhen::Always => lines(Some(USUAL_STATS_INTERVAL)),
            ProgressWhen::Auto | ProgressWhen::Never => lines(None),
        }
    }
}

/// Returns `true` if standard error is a terminal that can move its cursor.
fn is_capable_terminal() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

fn explain(failure: &CommandError) -> String {
    let mut text = format!("ringlift: {}\n", shown(failure));
    for cause in failure.causes() {
        text += &format!("  because: {}\n", visible(&cause));
    }
    if let Some(meaning) = failure.meaning() {
        text += &format!("  reason: {meaning}\n");
    }
    if let Some(advice) = failure.advice() {
        text += &format!("  advice: {advice}\n");
    }
    text
}

/// Escapes a library error to a single line, because file names in it may contain line feeds. Messages of
/// clap keep their lines.
fn shown(failure: &CommandError) -> String {
    match failure {
        CommandError::Library(error) => visible(&error.to_string()).into_owned(),
        failure => failure.to_string(),
    }
}

/// Returns a count with its noun: `1 file`, `2 files`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Returns a duration such as `13 ms`, `2.5 s` or `3m20s`.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..100 => format!("{:.1} s", time.as_secs_f64()),
        _ => progress_view::compact(time),
    }
}

/// Returns the mean speed, such as `1.20 GiB/s`.
pub(super) fn speed(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        format!("{}/s", Size((bytes as f64 / seconds) as u64))
    } else {
        "in no time".to_owned()
    }
}

/// The interval between lines of progress that were asked for without an interval: a night of uploads gives some
/// hundred lines.
const USUAL_STATS_INTERVAL: Duration = Duration::from_secs(60);
