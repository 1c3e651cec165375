//! The command: what was typed becomes settings, settings become calls of the library.
//!
//! Results go to standard output, as text or, with `--json`, as events; everything else that is for
//! people goes to standard error. Does not know: anything of the library but its public names.

mod agreement;
mod args;
mod bandwidth;
mod bar;
mod clean;
mod client;
mod completion;
mod demo;
mod digest;
mod events;
mod exit;
mod hints;
mod journal;
mod logging;
mod man;
mod memory;
mod names;
mod output;
mod proxy;
mod resume;
mod screen;
mod secrets;
mod serve;
mod settings;
mod signals;
mod status;
mod table;
mod token;
mod upload;
mod upload_args;
mod usage;
mod values;
mod video;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

use args::{Cli, Command};
use events::{ErrorEvent, Event, Summary};
use exit::{Exit, Failure};
use screen::Screen;

/// Does what the command line says, and ends with what became of it.
pub(crate) fn run() -> ExitCode {
    let started = Instant::now();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let environment = |name: &str| std::env::var_os(name);
    let redactor = secrets::known(&argv, |name| environment(name)?.into_string().ok());
    match settings::parse(&argv, environment) {
        Ok(mut cli) => {
            cli.global.redactor = redactor;
            let screen = Screen::new(&cli.global);
            logging::start(&cli.global, &screen);
            show_panics(&screen);
            let ended = signals::start(&screen).and_then(|()| unless_it_panics(|| dispatch(&cli, &screen)));
            end(ended, &screen, started)
        }
        Err(Failure::Clap(error)) if !error.use_stderr() => {
            let screen = Screen::before_settings(false, redactor);
            screen.help(&error);
            leave(Exit::Done, &screen)
        }
        Err(failure) => {
            let screen = Screen::before_settings(settings::wants_json(&argv, environment), redactor);
            end(Err(failure), &screen, started)
        }
    }
}

/// A panic's message goes where all others go, so that it waits for no reader and shows no secret.
fn show_panics(screen: &Screen) {
    let screen = screen.clone();
    panic::set_hook(Box::new(move |panic| screen.untold(format_args!("a thread {panic}"))));
}

/// A panic of the command is a failure like others: the summary follows.
fn unless_it_panics(command: impl FnOnce() -> Ended) -> Ended {
    panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let why = "the command panicked: this is a defect, please report it with this message";
        Err(Failure::Other(Exit::Failed, why.to_owned()))
    })
}

/// What a command came to: a summary, or nothing where its output is a text for other programs.
type Ended = Result<Option<Summary>, Failure>;

fn dispatch(cli: &Cli, screen: &Screen) -> Ended {
    let global = &cli.global;
    match &cli.command {
        Command::Upload(args) => upload::run(args, global, screen),
        Command::Resume(args) => resume::run(args, global, screen),
        Command::Clean(args) => clean::run(args, global, screen),
        Command::Demo(args) => demo::run(args, screen),
        Command::Serve(args) => serve::run(args, global, screen),
        Command::Status(args) => status::run(args, global, screen),
        Command::Video(command) => video::run(command, global, screen),
        Command::Token(command) => token::run(command, global, screen),
        Command::Completion(args) => completion::run(args, screen),
        Command::Man(args) => man::run(args, screen),
    }
}

/// The last words, and the exit code that goes with them.
fn end(ended: Ended, screen: &Screen, started: Instant) -> ExitCode {
    let mut summary = match ended {
        Ok(None) => return leave(Exit::Done, screen),
        Ok(Some(summary)) => summary,
        Err(failure) => {
            screen.failure(&failure);
            screen.event(&Event::Failed { error: ErrorEvent::new(&failure) });
            Summary { exit: failure.exit(), ..Summary::default() }
        }
    };
    let (exit, client) = (summary.exit, summary.client.take());
    let elapsed_ms = events::millis(started.elapsed());
    let summary = Summary { exit_code: exit.code(), elapsed_ms, ..summary };
    screen.end(&summary);
    // After the last line: its end may have to wait for a thread that the kernel holds.
    drop(client);
    leave(exit, screen)
}

/// Waits for the output, and gives the exit code. What could not be written is a failure of its own.
fn leave(exit: Exit, screen: &Screen) -> ExitCode {
    screen.output().drain();
    match screen.output().failure() {
        Some(_) if exit == Exit::Done => Exit::Failed.into(),
        _ => exit.into(),
    }
}
