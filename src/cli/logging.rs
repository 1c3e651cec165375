//! The log of the library, on standard error.

use tracing_subscriber::EnvFilter;

use super::args::GlobalArgs;
use super::console::Console;

/// Starts the log at the level that `-v` and `-q` select; warnings by default.
pub(super) fn start(global: &GlobalArgs, console: &Console) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let writer = console.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("warn,ringlift={level},{SHOWN_BY_COMMAND}=off")))
        .with_ansi(false)
        .with_target(global.verbose > 1)
        .with_writer(move || writer.clone())
        .init();
}

/// The target of the events that the command shows in its own lines.
const SHOWN_BY_COMMAND: &str = "ringlift::followed";
