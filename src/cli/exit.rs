//! Errors of a command and its exit codes, which are rclone's.

use std::fmt;
use std::io;
use std::process::ExitCode;

use ringlift::{Error, ErrorKind, SourceError};
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::hints;

/// Result of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Exit {
    /// Success.
    #[default]
    Done,
    /// A permanent failure.
    Failed,
    /// An invalid command line.
    Usage,
    /// The service has no such video or upload token.
    NoSuchVideo,
    /// No such file on this machine.
    NoSuchFile,
    /// A temporary failure: the same command may succeed later.
    Temporary,
    /// The file or the video is not in the expected state.
    StateMismatch,
    /// The request is not permitted.
    NotAllowed,
    /// The limit of bytes ended the run.
    MaxTransfer,
    /// The limit of time ended the run.
    MaxDuration,
    /// A signal ended the command.
    Interrupted(Interrupt),
}

/// A signal that ends the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGTERM: a service manager, or a shutdown.
    Term,
    /// SIGHUP: the terminal was closed.
    Hup,
}

impl Exit {
    /// Returns the exit code: rclone's code, or 128 plus the number of the signal.
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoSuchVideo => 3,
            Exit::NoSuchFile => 4,
            Exit::Temporary => 5,
            Exit::StateMismatch => 6,
            Exit::NotAllowed => 7,
            Exit::MaxTransfer => 8,
            Exit::MaxDuration => 10,
            Exit::Interrupted(Interrupt::Hup) => 129,
            Exit::Interrupted(Interrupt::Int) => 130,
            Exit::Interrupted(Interrupt::Term) => 143,
        }
    }

    /// Combines the results of several jobs into one. A signal comes first, then a refused permission, then a
    /// temporary failure.
    pub(super) fn of_all(ends: impl IntoIterator<Item = Exit>) -> Exit {
        let failed: Vec<Exit> = ends.into_iter().filter(|end| *end != Exit::Done).collect();
        let interrupted = failed.iter().find(|end| matches!(end, Exit::Interrupted(_)));
        // A refusal comes before a temporary failure: callers would repeat the command, and be refused again.
        let foremost = interrupted
            .or_else(|| [Exit::NotAllowed, Exit::Temporary].iter().find(|end| failed.contains(end)));
        match (foremost, failed.first()) {
            (Some(end), _) => *end,
            (None, Some(first)) if failed.iter().all(|end| end == first) => *first,
            (None, Some(_)) => Exit::Failed,
            (None, None) => Exit::Done,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Exit {
        match kind {
            ErrorKind::InvalidInput => Exit::Usage,
            ErrorKind::NotFound => Exit::NoSuchVideo,
            ErrorKind::NoSuchFile => Exit::NoSuchFile,
            ErrorKind::RateLimited
            | ErrorKind::Unavailable
            | ErrorKind::Connect
            | ErrorKind::Stalled
            | ErrorKind::Busy
            // At the first byte and in the middle alike: what is stored stays, and the same command goes on.
            | ErrorKind::SourceUnreadable => Exit::Temporary,
            ErrorKind::SourceChanged | ErrorKind::AlreadyFilled | ErrorKind::AlreadySent => {
                Exit::StateMismatch
            }
            ErrorKind::NotAuthorized | ErrorKind::Untrusted => Exit::NotAllowed,
            ErrorKind::PlanImpossible
            | ErrorKind::Refused
            | ErrorKind::MalformedAnswer
            | ErrorKind::WrongProtocol
            | ErrorKind::Mismatch
            | ErrorKind::Journal
            | ErrorKind::Cancelled
            | ErrorKind::Internal => Exit::Failed,
            // The library's enum may grow.
            _ => Exit::Failed,
        }
    }
}

/// Error of a command, or of one of its files.
#[derive(Debug)]
pub(super) enum CommandError {
    /// A message of clap, including help and version.
    Clap(clap::Error),
    /// An invalid flag, variable or config file.
    Usage(String),
    /// An error of the library.
    Library(Error),
    /// An I/O error. The text names the action in the infinitive.
    Io(String, io::Error),
    /// A message with an exit code.
    Other(Exit, String),
    /// A signal was received.
    Interrupted(Interrupt),
}

impl CommandError {
    pub(super) fn usage(why: impl Into<String>) -> CommandError {
        CommandError::Usage(why.into())
    }

    pub(super) fn io(doing: impl Into<String>, error: io::Error) -> CommandError {
        CommandError::Io(doing.into(), error)
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            CommandError::Clap(error) if !error.use_stderr() => Exit::Done,
            CommandError::Clap(_) | CommandError::Usage(_) => Exit::Usage,
            CommandError::Library(error) => error.kind().into(),
            CommandError::Io(_, error) if error.kind() == io::ErrorKind::NotFound => Exit::NoSuchFile,
            CommandError::Io(..) => Exit::Failed,
            CommandError::Other(exit, _) => *exit,
            CommandError::Interrupted(interrupt) => Exit::Interrupted(*interrupt),
        }
    }

    /// Returns the stable name of the kind for JSON output.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            CommandError::Clap(_) | CommandError::Usage(_) => "usage",
            CommandError::Library(error) => error.kind().name(),
            CommandError::Io(..) => "io",
            CommandError::Other(..) => "failed",
            CommandError::Interrupted(_) => "interrupted",
        }
    }

    /// Returns the chain of causes, nearest first, without a cause whose text ends the one above it.
    pub(super) fn causes(&self) -> Vec<String> {
        match self {
            CommandError::Library(error) => error.causes(),
            _ => Vec::new(),
        }
    }

    /// Returns the explanation of the service's refusal.
    pub(super) fn meaning(&self) -> Option<&str> {
        match self {
            CommandError::Library(error) => error.meaning(),
            _ => None,
        }
    }

    /// Returns the suggested action.
    pub(super) fn advice(&self) -> Option<&str> {
        match self {
            CommandError::Library(error) => error.hint().map(hints::advice).or_else(|| error.advice()),
            _ => None,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Clap(error) => error.fmt(f),
            CommandError::Usage(why) | CommandError::Other(_, why) => f.write_str(why),
            CommandError::Library(error) => error.fmt(f),
            CommandError::Io(doing, error) => write!(f, "could not {doing}: {error}"),
            CommandError::Interrupted(interrupt) => write!(f, "interrupted by {}", interrupt.name()),
        }
    }
}

impl Interrupt {
    /// Returns the signal with this number (signal(7)).
    pub(super) fn of(signal: i32) -> Interrupt {
        match signal {
            SIGHUP => Interrupt::Hup,
            SIGTERM => Interrupt::Term,
            _ => Interrupt::Int,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Interrupt::Hup => "SIGHUP",
            Interrupt::Int => "SIGINT",
            Interrupt::Term => "SIGTERM",
        }
    }
}

impl From<clap::Error> for CommandError {
    fn from(error: clap::Error) -> CommandError {
        CommandError::Clap(error)
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> CommandError {
        CommandError::Library(error)
    }
}

impl From<SourceError> for CommandError {
    fn from(error: SourceError) -> CommandError {
        CommandError::Library(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_and_permanent_failures_have_different_exit_codes() {
        for (kind, code) in [
            (ErrorKind::InvalidInput, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::NoSuchFile, 4),
            (ErrorKind::RateLimited, 5),
            (ErrorKind::Connect, 5),
            (ErrorKind::SourceUnreadable, 5),
            (ErrorKind::SourceChanged, 6),
            (ErrorKind::PlanImpossible, 1),
            (ErrorKind::NotAuthorized, 7),
            (ErrorKind::Refused, 1),
        ] {
            assert_eq!(Exit::from(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn every_temporary_failure_is_exit_code_5_and_no_other_is() {
        for kind in ErrorKind::ALL {
            assert_eq!(kind.is_temporary(), Exit::from(kind) == Exit::Temporary, "{kind:?}");
        }
    }

    #[test]
    fn combined_exit_code_follows_the_precedence() {
        let interrupted = Exit::Interrupted(Interrupt::Term);
        assert_eq!(Exit::of_all([]), Exit::Done);
        assert_eq!(Exit::of_all([Exit::Done, Exit::NoSuchFile]), Exit::NoSuchFile);
        assert_eq!(Exit::of_all([Exit::NoSuchFile, Exit::Failed]), Exit::Failed);
        assert_eq!(Exit::of_all([Exit::NoSuchFile, Exit::Temporary]), Exit::Temporary);
        assert_eq!(Exit::of_all([Exit::Temporary, Exit::NotAllowed]), Exit::NotAllowed);
        assert_eq!(Exit::of_all([Exit::NotAllowed, interrupted]), interrupted);
        assert_eq!(interrupted.code(), 143);
        assert_eq!(Exit::Interrupted(Interrupt::Int).code(), 130);
        assert_eq!(Exit::Interrupted(Interrupt::Hup).code(), 129);
    }
}
