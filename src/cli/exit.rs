//! How a command ends: what failed, and the exit code that says so. The codes are rclone's.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::ExitCode;

use ringlift::journal::JournalError;
use ringlift::transport::TransportError;
use ringlift::{Error, ErrorKind};
use signal_hook::consts::{SIGHUP, SIGTERM};

/// How the process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything was done.
    #[default]
    Done,
    /// Something failed for good.
    Failed,
    /// The command line cannot be used.
    Usage,
    /// There is no such video, or upload token, at the service.
    NoSuchVideo,
    /// There is no such file here.
    NoSuchFile,
    /// The same command may succeed later.
    Temporary,
    /// The file, or the video, is not as it has to be.
    Unsuited,
    /// Neither this command nor another will be allowed.
    NotAllowed,
    /// A signal asked for the end.
    Interrupted(Interrupt),
}

/// A signal that asks for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGTERM: a service manager, or a shutdown.
    Term,
    /// SIGHUP: the terminal is gone.
    Hup,
}

impl Exit {
    /// What rclone's documentation, and the shell's habit of 128 and the signal, call this end.
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoSuchVideo => 3,
            Exit::NoSuchFile => 4,
            Exit::Temporary => 5,
            Exit::Unsuited => 6,
            Exit::NotAllowed => 7,
            Exit::Interrupted(Interrupt::Hup) => 129,
            Exit::Interrupted(Interrupt::Int) => 130,
            Exit::Interrupted(Interrupt::Term) => 143,
        }
    }

    /// The end of a run that had several: the one that matters most to who decides what to do next.
    pub(super) fn of_all(ends: impl IntoIterator<Item = Exit>) -> Exit {
        let failed: Vec<Exit> = ends.into_iter().filter(|end| *end != Exit::Done).collect();
        let interrupted = failed.iter().find(|end| matches!(end, Exit::Interrupted(_)));
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
            | ErrorKind::Busy => Exit::Temporary,
            ErrorKind::SourceChanged
            | ErrorKind::PlanImpossible
            | ErrorKind::AlreadyFilled
            | ErrorKind::AlreadySent => Exit::Unsuited,
            ErrorKind::NotAuthorized | ErrorKind::Untrusted => Exit::NotAllowed,
            ErrorKind::SourceUnreadable
            | ErrorKind::Refused
            | ErrorKind::MalformedAnswer
            | ErrorKind::WrongProtocol
            | ErrorKind::Mismatch
            | ErrorKind::Journal
            | ErrorKind::Cancelled
            | ErrorKind::Internal => Exit::Failed,
            // The library may learn to fail in new ways.
            _ => Exit::Failed,
        }
    }
}

/// Why a command, or its part for one file, did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// Clap's own words, help and version among them.
    Clap(clap::Error),
    /// A flag, a variable or a file of defaults cannot be used.
    Usage(String),
    /// The library says why.
    Library(Error),
    /// The system says why, while doing what the text says in the infinitive.
    Io(String, io::Error),
    /// The text says it all.
    Other(Exit, String),
    /// A signal came.
    Interrupted(Interrupt),
}

impl Failure {
    pub(super) fn usage(why: impl Into<String>) -> Failure {
        Failure::Usage(why.into())
    }

    pub(super) fn io(doing: impl Into<String>, error: io::Error) -> Failure {
        Failure::Io(doing.into(), error)
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Clap(error) if !error.use_stderr() => Exit::Done,
            Failure::Clap(_) | Failure::Usage(_) => Exit::Usage,
            Failure::Library(error) => error.kind().into(),
            Failure::Io(_, error) if error.kind() == io::ErrorKind::NotFound => Exit::NoSuchFile,
            Failure::Io(..) => Exit::Failed,
            Failure::Other(exit, _) => *exit,
            Failure::Interrupted(interrupt) => Exit::Interrupted(*interrupt),
        }
    }

    /// A stable name, for machines.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Failure::Clap(_) | Failure::Usage(_) => "usage",
            Failure::Library(error) => error.kind().name(),
            Failure::Io(..) => "io",
            Failure::Other(..) => "failed",
            Failure::Interrupted(_) => "interrupted",
        }
    }

    /// The causes, the nearest first, without those that repeat the one before.
    pub(super) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut above = self.to_string();
        let mut next = match self {
            Failure::Library(error) => error.source(),
            _ => None,
        };
        while let Some(cause) = next {
            let text = cause.to_string();
            if !above.ends_with(&text) {
                causes.push(text.clone());
            }
            above = text;
            next = cause.source();
        }
        causes
    }

    /// What it means here.
    pub(super) fn meaning(&self) -> Option<&str> {
        match self {
            Failure::Library(error) => error.meaning(),
            _ => None,
        }
    }

    /// What to do about it.
    pub(super) fn advice(&self) -> Option<&str> {
        match self {
            Failure::Library(error) if error.kind() == ErrorKind::Untrusted && !is_tls_refused(error) => {
                Some(UNTRUSTED)
            }
            Failure::Library(error) => journal_advice(error).or_else(|| error.advice()),
            _ => None,
        }
    }
}

/// Whether the server refused the connection for another reason than its own certificate.
fn is_tls_refused(error: &Error) -> bool {
    let refused = error.source().and_then(|cause| cause.downcast_ref());
    matches!(refused, Some(TransportError::TlsRefused { .. }))
}

/// Returns the advice for an error of the journal, in terms of flags and commands.
fn journal_advice(error: &Error) -> Option<&'static str> {
    match error.source()?.downcast_ref()? {
        JournalError::Foreign { .. } => Some("name another file with --journal"),
        JournalError::Newer { .. } => Some("update ringlift, or name another file with --journal"),
        JournalError::Older { .. } => {
            Some("finish its uploads with that version, or name another file with --journal")
        }
        JournalError::Damaged { .. } => {
            Some("move it away to begin a new one, and look for unfinished videos with `ringlift video list`")
        }
        JournalError::NotWritable { .. } => {
            Some("check its permissions, or name another file with --journal")
        }
        JournalError::Full { .. } => Some("make room, or name a file on another disk with --journal"),
        JournalError::OutOfReach { .. } => Some(
            "remove the lock file when no run of that user is under way, or name another file with --journal",
        ),
        JournalError::NoSharedMemory { .. } | JournalError::NoLocks { .. } => {
            Some("name a file on another disk with --journal")
        }
        JournalError::Replaced { .. } => Some("run the command again"),
        error => error.advice(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Clap(error) => error.fmt(f),
            Failure::Usage(why) | Failure::Other(_, why) => f.write_str(why),
            Failure::Library(error) => error.fmt(f),
            Failure::Io(doing, error) => write!(f, "could not {doing}: {error}"),
            Failure::Interrupted(interrupt) => write!(f, "ended by {}", interrupt.name()),
        }
    }
}

impl Interrupt {
    /// The signal of this number (signal(7)).
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

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Failure {
        Failure::Clap(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Library(error)
    }
}

const UNTRUSTED: &str =
    "check the URL and the clock; for a service of your own, name its authority's certificate with --ca-cert";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_tell_later_from_never() {
        for (kind, code) in [
            (ErrorKind::InvalidInput, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::NoSuchFile, 4),
            (ErrorKind::RateLimited, 5),
            (ErrorKind::Connect, 5),
            (ErrorKind::SourceChanged, 6),
            (ErrorKind::NotAuthorized, 7),
            (ErrorKind::Refused, 1),
        ] {
            assert_eq!(Exit::from(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn every_temporary_failure_is_exit_code_5_and_no_other_is() {
        use ErrorKind::*;
        let all = [
            InvalidInput,
            NoSuchFile,
            SourceUnreadable,
            SourceChanged,
            PlanImpossible,
            NotAuthorized,
            NotFound,
            AlreadyFilled,
            AlreadySent,
            Refused,
            RateLimited,
            Unavailable,
            Connect,
            Untrusted,
            Stalled,
            MalformedAnswer,
            WrongProtocol,
            Mismatch,
            Journal,
            Busy,
            Cancelled,
            Internal,
        ];
        for kind in all {
            assert_eq!(kind.is_temporary(), Exit::from(kind) == Exit::Temporary, "{kind:?}");
        }
    }

    #[test]
    fn of_several_ends_the_one_that_decides_what_to_do_next_counts() {
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

    #[test]
    fn causes_that_repeat_what_was_said_are_left_out() {
        let inner = Error::new(ErrorKind::Connect, "reach it").with_source(io::Error::other("refused"));
        let failure = Failure::from(Error::new(ErrorKind::Connect, "create the video").with_source(inner));
        assert_eq!(failure.causes(), ["could not reach it: the service cannot be reached", "refused"]);
    }
}
