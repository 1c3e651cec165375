//! What is shown: results on standard output, words and the bar on standard error.

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
use super::names::{visible, visible_lines};
use super::output::{Output, Stream, Ticket, Urgency};
use super::secrets;
use super::signals::Route;
use super::values::Size;

/// Where a command says what it has to say.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    format: Format,
    voice: Voice,
    shown: Shown,
    bar: ProgressBar,
    output: Output,
    route: Route,
    redactor: Redactor,
    /// Whether the last line was said.
    is_over: Arc<AtomicBool>,
}

/// What a failed upload left at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leftover<'a> {
    Nothing,
    /// The same command, run again, goes on with it; so does this one.
    Begun {
        resume: String,
    },
    /// A video that was created and certainly lacks bytes.
    Incomplete(&'a str),
    /// A video that was created, and may be complete.
    Unknown(&'a str),
}

/// What standard output is for.
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

/// How it is shown how far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Bar,
    /// One line now and then, for where a bar cannot be drawn.
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

    /// For errors in what the settings come from.
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

    /// Where the signals of this process go.
    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// The queues behind it.
    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Whether anybody sees events: what only they need can be left undone otherwise.
    pub(super) fn shows_events(&self) -> bool {
        self.format == Format::Json
    }

    /// Says what happened to a program that listens.
    pub(super) fn event(&self, event: &Event<'_>) {
        let _ = self.event_about(None, event);
    }

    /// The same of a file, whose name is given in bytes where it is not UTF-8. The ticket tells whether the
    /// line was written; there is none where no program listens.
    pub(super) fn event_about(&self, name: Option<&[u8]>, event: &Event<'_>) -> Option<Ticket> {
        if !self.shows_events() {
            return None;
        }
        let line = serde_json::to_string(&Line::new(event, name)).ok()?;
        let line = format!("{}\n", secrets::for_machines(&self.redactor, &line));
        let urgency = if matches!(event, Event::Summary(_)) { Urgency::Last } else { Urgency::Line };
        Some(self.put(Stream::Out, line, urgency))
    }

    /// A result, for people and simple scripts.
    pub(super) fn result(&self, text: impl Display) {
        let _ = self.result_ticket(text);
    }

    /// The same, with a ticket that tells whether it was written.
    pub(super) fn result_ticket(&self, text: impl Display) -> Option<Ticket> {
        let line = || format!("{}\n", self.for_people(&text.to_string()));
        (self.format == Format::People).then(|| self.put(Stream::Out, line(), Urgency::Line))
    }

    /// A text that is what the command is for.
    pub(super) fn text(&self, text: &[u8]) {
        let _ = self.put(Stream::Out, String::from_utf8_lossy(text).into_owned(), Urgency::Line);
    }

    /// Waits until standard output has all that was said so far; false when it could not be written.
    pub(super) async fn is_told(&self) -> bool {
        self.output.last(Stream::Out).is_written().await
    }

    /// Something that is good to know, for people only.
    pub(super) fn note(&self, text: impl Display) {
        if self.voice == Voice::Normal {
            self.say(&format!("{text}\n"));
        }
    }

    /// Asks whoever sits at the terminal; `None` when nobody does. Everything but yes is no.
    pub(super) fn confirms(&self, question: impl Display) -> Option<bool> {
        if !io::stdin().is_terminal() {
            return None;
        }
        self.say(&format!("{question} [y/N] "));
        self.output.drain();
        let mut answer = String::new();
        // Who closes the terminal has not said yes.
        let _ = io::stdin().lock().read_line(&mut answer);
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// What failed, why, and the way out.
    pub(super) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::Clap(error) => self.say(&error.render().to_string()),
            failure => self.say(&explain(failure)),
        }
    }

    /// The help and the version: what clap has to say when nothing is wrong.
    pub(super) fn help(&self, error: &clap::Error) {
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let text = match io::stdout().is_terminal() && !is_plain {
            true => error.render().ansi().to_string(),
            false => error.render().to_string(),
        };
        self.text(text.as_bytes());
    }

    /// Says that an id, or another result, was lost with standard output.
    pub(super) fn untold(&self, text: impl Display) {
        self.say(&format!("ringlift: {}\n", visible(&text.to_string())));
    }

    /// What failed about a file, and what is left of it at the service.
    pub(super) fn file_failure(&self, file: &str, failure: &Failure, leftover: Leftover<'_>) {
        let mut text = explain(failure);
        let file = visible(file);
        if !text.contains(&*file) {
            text = text.replacen("ringlift: ", &format!("ringlift: {file}: "), 1);
        }
        match leftover {
            Leftover::Nothing => {}
            Leftover::Begun { resume } => {
                text += &format!("  continue: the same command, or `{resume}`, sends what is missing\n");
            }
            Leftover::Incomplete(video_id) => {
                text += &format!("  left behind: video {video_id} is not filled; ");
                text += &format!("`ringlift video delete {video_id}` removes it\n");
            }
            Leftover::Unknown(video_id) => {
                text += &format!("  left behind: video {video_id}; its state is not known: ");
                text += &format!("`ringlift status {video_id}` shows it\n");
            }
        }
        self.say(&text);
    }

    /// Begins to show how far an upload is; `None` where nobody knows how far it goes.
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

    /// Shows how far it is now.
    pub(super) fn advance(&self, bytes: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(bytes);
    }

    /// Shows how far it is where there is no bar; to be called now and then.
    pub(super) fn advance_line(&self, bytes: u64, total_bytes: Option<u64>, elapsed: Duration) {
        if self.shown == Shown::Lines {
            let of = total_bytes.map(|total| format!(" of {}", Size(total))).unwrap_or_default();
            self.say(&format!("{}{of}, {}\n", Size(bytes), speed(bytes, elapsed)));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// The summary, which is the last line, whatever else is said.
    pub(super) fn end(&self, summary: &Summary) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.event(&Event::Summary(summary));
        }
    }

    /// Ends the process from outside of the command, which does not act on a signal or cannot.
    pub(super) fn last_words(&self, interrupt: Interrupt) -> ! {
        let exit = Exit::Interrupted(interrupt);
        self.output.hurry();
        self.end(&Summary { exit, exit_code: exit.code(), ..Summary::default() });
        self.output.drain();
        process::exit(exit.code().into());
    }

    /// Writes to standard error, beside the bar.
    fn say(&self, text: &str) {
        let _ = self.put(Stream::Err, self.for_people(text), Urgency::Line);
    }

    /// The text without secrets, and without what steers a terminal.
    fn for_people(&self, text: &str) -> String {
        visible_lines(&self.redactor.redact(text)).into_owned()
    }

    /// Queues a text. All that is printed passes here, except pictures of the bar: what must not be shown is
    /// to be hidden here.
    fn put(&self, stream: Stream, text: String, urgency: Urgency) -> Ticket {
        if urgency == Urgency::Line {
            // Before the bar is locked: the thread that hears signals draws it.
            self.output.wait_for_room(stream);
        }
        let push = || self.output.push(stream, text.into_bytes(), urgency);
        if self.shown == Shown::Bar { self.bar.suspend(push) } else { push() }
    }
}

/// Log lines go beside the bar as well. One call is one line.
impl io::Write for Screen {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(buf);
        self.say(&format!("{}\n", visible(text.trim_end_matches('\n'))));
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

/// The library's errors are one line, in which names of files may have line feeds; others have lines of their own.
fn shown(failure: &Failure) -> String {
    match failure {
        Failure::Library(error) => visible(&error.to_string()).into_owned(),
        failure => failure.to_string(),
    }
}

/// `1.20 GiB/s`
pub(super) fn speed(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    match seconds > 0.0 {
        true => format!("{}/s", Size((bytes as f64 / seconds) as u64)),
        false => "at once".to_owned(),
    }
}
