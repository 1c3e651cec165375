//! The command: turns the command line into calls of the library.
//!
//! Results go to standard output, as text or as JSON events (`--json`); everything else goes to standard
//! error. Uses only the public names of the library.

mod args;
mod bandwidth;
mod clean;
mod client;
mod command_tree;
mod completion;
mod config;
mod config_file;
mod console;
mod demo;
mod demo_result;
mod display_width;
mod escape;
mod events;
mod exit;
mod fetch;
#[cfg_attr(not(feature = "fleet"), path = "fleet_queue_left_out.rs")]
mod fleet_queue;
mod help;
mod hints;
mod ingest;
mod ingest_args;
mod jobs;
mod jobs_args;
mod journal;
mod lane_watch;
mod logging;
mod man;
mod media;
mod memory;
mod notices;
mod output;
mod page_args;
mod progress_bar;
mod progress_view;
mod proxy;
mod queue;
mod resume;
mod secrets;
mod serve;
mod service_args;
mod service_manager;
mod signal_route;
mod signals;
mod status;
mod store_error;
mod submit;
mod suggest;
mod table;
mod token;
mod tune;
mod tune_args;
mod tune_events;
mod upload;
mod upload_args;
mod validate;
mod values;
mod video;
mod video_args;
mod watch_args;
mod work;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

use ringlift::bulk::RunSummary;
use ringlift::bulk::event::millis;

use args::{Cli, CliCommand};
use console::Console;
use events::{CommandEvent, CommandResult, Summary, error_event};
use exit::{CommandError, Exit};

/// Runs the command line and returns the exit code.
pub(crate) fn run() -> ExitCode {
    let started = Instant::now();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let environment = |name: &str| std::env::var_os(name);
    let redactor = secrets::known(&argv, |name| environment(name)?.into_string().ok());
    match config::parse(&argv, environment) {
        Ok(mut cli) => {
            cli.global.redactor = redactor;
            let console = Console::new(&cli.global);
            logging::start(&cli.global, &console);
            show_panics(&console);
            let ended = signals::start(&console).and_then(|()| unless_it_panics(|| dispatch(&cli, &console)));
            end(ended, &console, started)
        }
        // clap returns the texts of `--help` and `--version` as errors for standard output.
        Err(CommandError::Clap(error)) if !error.use_stderr() => {
            let console = Console::before_settings(false, redactor);
            console.help(&error);
            leave(Exit::Done, &console)
        }
        Err(failure) => {
            let console = Console::before_settings(config::wants_json(&argv, environment), redactor);
            end(Err(failure), &console, started)
        }
    }
}

/// Sends panic messages through the output queue, so that they are redacted and never block.
fn show_panics(console: &Console) {
    let console = console.clone();
    panic::set_hook(Box::new(move |panic| console.alert(format_args!("a thread {panic}"))));
}

/// Turns a panic of the command into an error, so that the summary is still written.
fn unless_it_panics(command: impl FnOnce() -> CommandResult) -> CommandResult {
    panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let why = "the command panicked: this is a bug, please report it with this message";
        Err(CommandError::Other(Exit::Failed, why.to_owned()))
    })
}

fn dispatch(cli: &Cli, console: &Console) -> CommandResult {
    let global = &cli.global;
    match &cli.command {
        CliCommand::Upload(args) => upload::run(args, global, console),
        CliCommand::Ingest(args) => ingest::run(args, global, console),
        CliCommand::Submit(args) => submit::run(args, global, console),
        CliCommand::Work(args) => work::run(args, global, console),
        CliCommand::Jobs(command) => jobs::run(command, global, console),
        CliCommand::Resume(args) => resume::run(args, global, console),
        CliCommand::Clean(args) => clean::run(args, global, console),
        CliCommand::Demo(args) => demo::run(args, console),
        CliCommand::Serve(args) => serve::run(args, global, console),
        CliCommand::Tune(args) => tune::run(args, global, console),
        CliCommand::Status(args) => status::run(args, global, console),
        CliCommand::Video(command) => video::run(command, global, console),
        CliCommand::Token(command) => token::run(command, global, console),
        CliCommand::Completion(args) => completion::run(args, console),
        CliCommand::Man(args) => man::run(args, console),
    }
}

/// Reports the error if there is one, writes the summary and returns the exit code.
fn end(ended: CommandResult, console: &Console, started: Instant) -> ExitCode {
    // A command that failed or panicked may have left the progress display.
    console.clear_progress();
    let mut summary = match ended {
        Ok(None) => return leave(Exit::Done, console),
        Ok(Some(summary)) => summary,
        Err(failure) => {
            console.print_error(&failure);
            console.emit(&CommandEvent::Failed { error: error_event(&failure) });
            Summary::from(failure.exit())
        }
    };
    let (exit, client) = (summary.exit, summary.client.take());
    let elapsed_ms = millis(started.elapsed());
    console.write_summary(&RunSummary { exit_code: exit.code(), elapsed_ms, ..summary.totals });
    // Dropped after the summary: joining the engine may have to wait for a thread that is blocked in the
    // kernel.
    drop(client);
    leave(exit, console)
}

/// Waits until the output is written and returns the exit code. A write error turns success into failure.
fn leave(exit: Exit, console: &Console) -> ExitCode {
    console.output().drain();
    match console.output().failure() {
        Some(_) if exit == Exit::Done => Exit::Failed.into(),
        _ => exit.into(),
    }
}
