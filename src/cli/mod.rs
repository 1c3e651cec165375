//! The command: what was typed becomes settings, settings become calls of the library.
//!
//! Results go to standard output, as text or, with `--json`, as events; everything else that is for
//! people goes to standard error. Does not know: anything of the library but its public names.

mod agreement;
mod args;
mod bandwidth;
mod clean;
mod client;
mod completion;
mod demo;
mod digest;
mod events;
mod exit;
mod journal;
mod logging;
mod man;
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
    let redactor = secrets::known(&argv, |name| std::env::var(name).ok());
    match settings::parse(&argv, |name| std::env::var(name).ok()) {
        Ok(mut cli) => {
            cli.global.redactor = redactor;
            let screen = Screen::new(&cli.global);
            logging::start(&cli.global, &screen);
            let ended = dispatch(&cli, &screen);
            end(ended, &screen, started).into()
        }
        Err(Failure::Clap(error)) if !error.use_stderr() => {
            // Nobody reads the help any more when its pipe is closed.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(failure) => end(Err(failure), &Screen::before_settings(&argv, redactor), started).into(),
    }
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
fn end(ended: Ended, screen: &Screen, started: Instant) -> Exit {
    let (summary, exit) = match ended {
        Ok(None) => return Exit::Done,
        Ok(Some(summary)) => (summary.clone(), summary.exit),
        Err(failure) => {
            screen.failure(&failure);
            screen.event(&Event::Failed { error: ErrorEvent::new(&failure) });
            (Summary::default(), failure.exit())
        }
    };
    let elapsed_ms = events::millis(started.elapsed());
    screen.event(&Event::Summary(&Summary { exit, exit_code: exit.code(), elapsed_ms, ..summary }));
    exit
}
