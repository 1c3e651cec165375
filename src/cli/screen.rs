//! What is shown: results on standard output, words and the bar on standard error.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringlift::api::Redactor;
use ringlift::error::OneLine;

use super::args::{Global, ProgressWhen};
use super::events::{Event, Line};
use super::exit::Failure;
use super::secrets;
use super::values::Size;

/// Where a command says what it has to say.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    format: Format,
    voice: Voice,
    shown: Shown,
    bar: ProgressBar,
    redactor: Redactor,
}

/// What a failed upload left at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leftover<'a> {
    Nothing,
    /// The same command, run again, goes on with it; so does this one.
    Begun {
        resume: String,
    },
    /// A video that was created and not filled.
    Video(&'a str),
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
            bar: ProgressBar::hidden(),
            redactor: global.redactor.clone(),
        }
    }

    /// For errors in what the settings come from.
    pub(super) fn before_settings(argv: &[OsString], redactor: Redactor) -> Screen {
        let json = argv.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
        let format = if json { Format::Json } else { Format::People };
        Screen { format, voice: Voice::Normal, shown: Shown::Nothing, bar: ProgressBar::hidden(), redactor }
    }

    /// Whether anybody sees events: what only they need can be left undone otherwise.
    pub(super) fn shows_events(&self) -> bool {
        self.format == Format::Json
    }

    /// Says what happened to a program that listens.
    pub(super) fn event(&self, event: &Event<'_>) {
        if self.shows_events()
            && let Ok(line) = serde_json::to_string(&Line::new(event))
        {
            self.print(&secrets::for_machines(&self.redactor, &line));
        }
    }

    /// A result, for people and simple scripts.
    pub(super) fn result(&self, text: impl Display) {
        if self.format == Format::People {
            self.print(&secrets::for_people(&self.redactor, &text.to_string()));
        }
    }

    /// A text that is what the command is for.
    pub(super) fn text(&self, text: &[u8]) {
        let mut stdout = io::stdout().lock();
        // Whoever closed it does not want it.
        let _ = stdout.write_all(text).and_then(|()| stdout.flush());
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

    /// What failed about a file, and what is left of it at the service.
    pub(super) fn file_failure(&self, file: &str, failure: &Failure, leftover: Leftover<'_>) {
        let mut text = explain(failure);
        let file = OneLine(file).to_string();
        if !text.contains(&file) {
            text = text.replacen("ringlift: ", &format!("ringlift: {file}: "), 1);
        }
        match leftover {
            Leftover::Nothing => {}
            Leftover::Begun { resume } => {
                text += &format!("  continue: the same command, or `{resume}`, sends what is missing\n");
            }
            Leftover::Video(video_id) => {
                text += &format!("  left behind: video {video_id} is not filled; ");
                text += &format!("`ringlift video delete {video_id}` removes it\n");
            }
        }
        self.say(&text);
    }

    /// Begins to show how far an upload is; `None` where nobody knows how far it goes.
    pub(super) fn begin(&self, total_bytes: Option<u64>) {
        if self.shown != Shown::Bar {
            return;
        }
        let template = match total_bytes {
            Some(_) => {
                "{bar:30} {percent:>3}% {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} to go{msg}"
            }
            None => "{spinner} {binary_bytes}, {binary_bytes_per_sec}, {elapsed}{msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if let Some(total_bytes) = total_bytes {
            self.bar.set_length(total_bytes);
        }
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
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

    /// Writes to standard error, beside the bar.
    fn say(&self, text: &str) {
        let text = secrets::for_people(&self.redactor, text);
        // Without a standard error there is nobody to tell that.
        self.bar.suspend(|| {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        });
    }

    /// Writes a line to standard output. Whoever closed it does not want it.
    fn print(&self, line: &str) {
        self.bar.suspend(|| {
            let mut stdout = io::stdout().lock();
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        });
    }
}

/// Log lines go beside the bar as well.
impl io::Write for Screen {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().lock().write(buf))
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
    let mut text = format!("ringlift: {failure}\n");
    for cause in failure.causes() {
        text += &format!("  because: {}\n", OneLine(&cause));
    }
    if let Some(meaning) = failure.meaning() {
        text += &format!("  means: {meaning}\n");
    }
    if let Some(advice) = failure.advice() {
        text += &format!("  advice: {advice}\n");
    }
    text
}

/// `1.20 GiB/s`
pub(super) fn speed(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    match seconds > 0.0 {
        true => format!("{}/s", Size((bytes as f64 / seconds) as u64)),
        false => "at once".to_owned(),
    }
}
