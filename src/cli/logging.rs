//! The log of the library, on standard error.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::GlobalArgs;
use super::console::Console;

/// Starts the log at the level that `-v` and `-q` select; warnings by default.
///
/// Lines on a terminal look like the other messages of the command. Lines in a file have a time and a level.
pub(super) fn start(global: &GlobalArgs, console: &Console) {
    let writer = console.clone();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let lines = if io::stderr().is_terminal() {
        lines.event_format(TerminalLine).boxed()
    } else {
        lines.with_target(global.verbose > 1).boxed()
    };
    tracing_subscriber::registry().with(lines).with(filter(global.quiet, global.verbose)).init();
}

/// Returns the filter of `-v` and `-q`. Other crates log warnings at most, and only with `-v`: the command reports in its
/// own words what fails, and a client of NATS logs each of its attempts to connect.
fn filter(quiet: bool, verbose: u8) -> Targets {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let others = if verbose == 0 { LevelFilter::OFF } else { level.min(LevelFilter::WARN) };
    Targets::new()
        .with_default(others)
        .with_target("ringlift", level)
        .with_target(SHOWN_BY_COMMAND, LevelFilter::OFF)
}

/// Format of a log line for people: the message, after its level unless it is an ordinary message.
struct TerminalLine;

impl<S, N> FormatEvent<S, N> for TerminalLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(prefix(*event.metadata().level()))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ringlift: ",
        Level::WARN => "ringlift: warning: ",
        Level::INFO => "",
        Level::DEBUG => "debug: ",
        Level::TRACE => "trace: ",
    }
}

/// The target of the events that the command shows in its own lines.
const SHOWN_BY_COMMAND: &str = "ringlift::followed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_applies_to_this_program_only() {
        for (quiet, verbose, ours, others) in [
            (true, 0, Level::ERROR, None),
            (true, 1, Level::ERROR, Some(Level::ERROR)),
            (false, 0, Level::WARN, None),
            (false, 1, Level::INFO, Some(Level::WARN)),
            (false, 2, Level::DEBUG, Some(Level::WARN)),
            (false, 9, Level::TRACE, Some(Level::WARN)),
        ] {
            let filter = filter(quiet, verbose);
            for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                assert_eq!(
                    filter.would_enable("ringlift::engine", &level),
                    level <= ours,
                    "{verbose} {level}"
                );
                let is_logged = others.is_some_and(|others| level <= others);
                assert_eq!(filter.would_enable("hyper::proto", &level), is_logged, "{verbose} {level}");
            }
        }
    }
}
