//! The log of the library, on standard error.

use std::io::{self, Write};

use ringlift::api::Redactor;
use tracing_subscriber::EnvFilter;

use super::args::Global;
use super::screen::Screen;
use super::secrets;

/// Starts the log at the level that `-v` and `-q` select; warnings by default.
pub(super) fn start(global: &Global, screen: &Screen) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let lines = Lines { screen: screen.clone(), redactor: global.redactor.clone() };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("warn,ringlift={level}")))
        .with_ansi(false)
        .with_target(global.verbose > 1)
        .with_writer(move || lines.clone())
        .init();
}

/// Writer of log lines. Removes secrets and terminal control characters.
#[derive(Clone)]
struct Lines {
    screen: Screen,
    redactor: Redactor,
}

/// The subscriber writes each line with a single call.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text =
            secrets::for_people(&self.redactor, &text.trim_end_matches('\n').replace('\n', "\u{fffd}"));
        self.screen.write_all(format!("{text}\n").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.screen.flush()
    }
}
