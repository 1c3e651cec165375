//! Console output: results on standard output, messages and the progress bar on standard error.

use std::env;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use ringlift::api::Redactor;

use super::args::{Global, ProgressWhen};
use super::bar;
use super::events::{Event, Line, Summary};
use super::exit::{Exit, Failure, Interrupt};
use super::names::visible;
use super::output::{Output, Stream, Ticket, Urgency};
use super::secrets;
use super::signals::Route;
use super::values::Size;

/// Output of a command. Clones share the streams.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    format: Format,
    voice: Voice,
    shown: Shown,
    bar: ProgressBar,
    output: Output,
    route: Route,
    redactor: Redactor,
    /// Set once the summary was written.
    is_over: Arc<AtomicBool>,
}

/// State of a failed upload at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leftover<'a> {
    Nothing,
    /// The upload can be resumed by the same command, or by the command in `resume`.
    Begun {
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
enum Voice {
    Quiet,
    Normal,
}

/// Progress display mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Bar,
    /// One line per interval, if standard error is not a terminal.
    Lines,
}

impl Screen {
    pub(super) fn new(global: &Global) -> Screen {
        Screen {
            format: if global.json { Format::Json } else { Format::People },
            voice: if global.quiet { Voice::Quiet } else { Voice::Normal },
            shown: Shown::choose(global, io::stderr().is_terminal()),
            ..Screen::silent(global.redactor.clone())
        }
    }

    /// Creates a console for errors that occur before the flags are parsed.
    pub(super) fn before_settings(json: bool, redactor: Redactor) -> Screen {
        let format = if json { Format::Json } else { Format::People };
        Screen { format, ..Screen::silent(redactor) }
    }

    fn silent(redactor: Redactor) -> Screen {
        Screen {
            format: Format::People,
            voice: Voice::Normal,
            shown: Shown::Nothing,
            bar: ProgressBar::hidden(),
            output: Output::new(),
            route: Route::default(),
            redactor,
            is_over: Arc::default(),
        }
    }

    /// Returns the destination of received signals.
    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// Returns the output queues.
    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Returns `true` if events are written, so that callers can skip work that only events need.
    pub(super) fn shows_events(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes an event if `--json` is set.
    pub(super) fn event(&self, event: &Event<'_>) {
        let _ = self.event_about(None, event);
    }

    /// Writes an event about a file. `name` is the file's name in bytes if it is not UTF-8. Returns a handle
    /// to wait for the write, or `None` without `--json`.
    pub(super) fn event_about(&self, name: Option<&[u8]>, event: &Event<'_>) -> Option<Ticket> {
        if !self.shows_events() {
            return None;
        }
        let line = serde_json::to_string(&Line::new(event, name)).ok()?;
        let line = format!("{}\n", secrets::for_machines(&self.redactor, &line));
        let urgency = if matches!(event, Event::Summary(_)) { Urgency::Last } else { Urgency::Line };
        Some(self.put(Stream::Out, line, urgency))
    }

    /// Writes a line of the result, unless `--json` is set.
    pub(super) fn result(&self, text: impl Display) {
        let _ = self.result_ticket(text);
    }

    /// Like [`Console::result`], and returns a handle to wait for the write.
    pub(super) fn result_ticket(&self, text: impl Display) -> Option<Ticket> {
        let line = || format!("{}\n", secrets::for_people(&self.redactor, &text.to_string()));
        (self.format == Format::People).then(|| self.put(Stream::Out, line(), Urgency::Line))
    }

    /// Writes a text that is the whole output of the command.
    pub(super) fn text(&self, text: &[u8]) {
        let _ = self.put(Stream::Out, String::from_utf8_lossy(text).into_owned(), Urgency::Line);
    }

    /// Waits until everything queued for standard output is written. Returns `false` if writing failed.
    pub(super) async fn is_told(&self) -> bool {
        self.output.last(Stream::Out).is_written().await
    }

    /// Prints an informational message, unless `--quiet` is set.
    pub(super) fn note(&self, text: impl Display) {
        if self.voice == Voice::Normal {
            self.say(&format!("{text}\n"));
        }
    }

    /// Asks the user a yes-or-no question. Returns `None` if standard input is not a terminal.
    pub(super) fn confirms(&self, question: impl Display) -> Option<bool> {
        if !io::stdin().is_terminal() {
            return None;
        }
        self.say(&format!("{question} [y/N] "));
        self.output.drain();
        let mut answer = String::new();
        // A closed terminal reads as an empty answer, which is a no.
        let _ = io::stdin().lock().read_line(&mut answer);
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Prints an error with its causes and the suggested action.
    pub(super) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::Clap(error) => self.say(&error.render().to_string()),
            failure => self.say(&explain(failure)),
        }
    }

    /// Prints the help or the version.
    pub(super) fn help(&self, error: &clap::Error) {
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
    pub(super) fn untold(&self, text: impl Display) {
        self.say(&format!("ringlift: {}\n", visible(&text.to_string())));
    }

    /// Prints the error of a file and the state of its upload at the service.
    pub(super) fn file_failure(&self, file: &str, failure: &Failure, leftover: Leftover<'_>) {
        let mut text = explain(failure);
        let file = visible(file);
        if !text.contains(&*file) {
            text = text.replacen("ringlift: ", &format!("ringlift: {file}: "), 1);
        }
        match leftover {
            Leftover::Nothing => {}
            Leftover::Begun { resume } => {
                text += &format!("  continue: the same command, or `{resume}`, sends the missing chunks\n");
            }
            Leftover::Incomplete(video_id) => {
                text += &format!("  left behind: video {video_id} is incomplete; ");
                text += &format!("`ringlift video delete {video_id}` removes it\n");
            }
            Leftover::Unknown(video_id) => {
                text += &format!("  left behind: video {video_id} in an unknown state; ");
                text += &format!("`ringlift status {video_id}` shows the state\n");
            }
        }
        self.say(&text);
    }

    /// Starts the progress display. `total_bytes` is `None` if the length is unknown.
    pub(super) fn begin(&self, total_bytes: Option<u64>) {
        if self.shown != Shown::Bar {
            return;
        }
        let is_utf8 = bar::is_utf8(|name| env::var(name).ok());
        if let Some(style) = bar::style(total_bytes.is_some(), is_utf8) {
            self.bar.set_style(style);
        }
        if let Some(total_bytes) = total_bytes {
            self.bar.set_length(total_bytes);
        }
        self.bar.set_draw_target(bar::target(&self.output));
    }

    /// Updates the progress bar.
    pub(super) fn advance(&self, bytes: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(bytes);
    }

    /// Prints a line of progress if there is no bar. Called once per interval.
    pub(super) fn advance_line(&self, bytes: u64, total_bytes: Option<u64>, elapsed: Duration) {
        if self.shown == Shown::Lines {
            let of = total_bytes.map(|total| format!(" of {}", Size(total))).unwrap_or_default();
            self.say(&format!("{}{of}, {}\n", Size(bytes), speed(bytes, elapsed)));
        }
    }

    /// Removes the progress bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Writes the summary at most once. It is the last line.
    pub(super) fn end(&self, summary: &Summary) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.event(&Event::Summary(summary));
        }
    }

    /// Writes the summary and exits the process. Called by the signal thread if the command does not react to
    /// a signal.
    pub(super) fn last_words(&self, interrupt: Interrupt) -> ! {
        let exit = Exit::Interrupted(interrupt);
        self.output.hurry();
        self.end(&Summary { exit, exit_code: exit.code(), ..Summary::default() });
        self.output.drain();
        process::exit(exit.code().into());
    }

    /// Writes to standard error, above the bar.
    fn say(&self, text: &str) {
        let _ = self.put(Stream::Err, secrets::for_people(&self.redactor, text), Urgency::Line);
    }

    /// Queues a text. All output except frames of the bar passes through this function.
    fn put(&self, stream: Stream, text: String, urgency: Urgency) -> Ticket {
        if urgency == Urgency::Line {
            // Waits before the bar is locked, because the thread that receives signals also locks the bar.
            self.output.wait_for_room(stream);
        }
        let push = || self.output.push(stream, text.into_bytes(), urgency);
        if self.shown == Shown::Bar { self.bar.suspend(push) } else { push() }
    }
}

/// Writes log lines above the bar. One call is one line.
impl io::Write for Screen {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(buf);
        // Redacted before escaping, which could hide a secret from the redactor.
        let text = self.redactor.redact(text.trim_end_matches('\n'));
        self.say(&format!("{}\n", visible(&text)));
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shown {
    fn choose(global: &Global, is_terminal: bool) -> Shown {
        match global.progress {
            ProgressWhen::Never => Shown::Nothing,
            ProgressWhen::Auto if global.quiet || !is_terminal => Shown::Nothing,
            ProgressWhen::Auto | ProgressWhen::Always if is_terminal => Shown::Bar,
            ProgressWhen::Auto | ProgressWhen::Always => Shown::Lines,
        }
    }
}

fn explain(failure: &Failure) -> String {
    let mut text = format!("ringlift: {}\n", shown(failure));
    for cause in failure.causes() {
        text += &format!("  because: {}\n", visible(&cause));
    }
    if let Some(meaning) = failure.meaning() {
        text += &format!("  means: {meaning}\n");
    }
    if let Some(advice) = failure.advice() {
        text += &format!("  advice: {advice}\n");
    }
    text
}

/// Escapes a library error to a single line, because file names in it may contain line feeds. Messages of
/// clap keep their lines.
fn shown(failure: &Failure) -> String {
    match failure {
        Failure::Library(error) => visible(&error.to_string()).into_owned(),
        failure => failure.to_string(),
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
