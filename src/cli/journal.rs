//! Journal access for commands: its path, its sessions and the command that resumes them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etcetera::base_strategy::{BaseStrategy, choose_base_strategy};
use ringlift::Error;
use ringlift::bulk::event::{mode, odd_name};
use ringlift::journal::{ContainerState, Entry, EntryDestination, EntryState, Journal, JournalError};

use super::args::GlobalArgs;
use super::console::Console;
use super::escape::{quoted, visible};
use super::events::{CommandEvent, SessionEvent};
use super::exit::CommandError;
use super::table::{Align, Table};

/// Returns the path of the journal, or `None` if neither a path was given nor a state directory exists.
pub(super) fn path(given: Option<&Path>) -> Option<PathBuf> {
    given.map(Path::to_owned).or_else(|| {
        let home = || choose_base_strategy().ok()?.state_dir();
        Some(state_dir(|name| std::env::var_os(name), home)?.join("ringlift/journal.db"))
    })
}

/// Returns the state directory: `XDG_STATE_HOME`, else the one in the home directory, else the first that
/// systemd created for a service (systemd.exec(5), "StateDirectory="). Relative paths are ignored, because
/// they depend on the working directory.
fn state_dir(
    environment: impl Fn(&str) -> Option<OsString>,
    in_home: impl Fn() -> Option<PathBuf>,
) -> Option<PathBuf> {
    let folder = |path: PathBuf| path.is_absolute().then_some(path);
    let of_service = || {
        let folders = environment("STATE_DIRECTORY")?;
        std::env::split_paths(&folders).next()
    };
    let given = || environment("XDG_STATE_HOME").map(PathBuf::from);
    given().and_then(folder).or_else(|| in_home().and_then(folder)).or_else(|| of_service().and_then(folder))
}

/// Warns that no journal is kept although none was declined.
pub(super) fn warn_that_no_journal_is_kept() {
    tracing::warn!(
        "no journal is kept, because there is no state directory (HOME, XDG_STATE_HOME and STATE_DIRECTORY are \
         unset): an interrupted upload will start again with a new video; give a journal with --journal FILE"
    );
}

/// Opens an existing journal. Returns `None` if there is none, and creates none.
pub(super) fn open(path: &Path) -> Result<Option<Journal>, CommandError> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        // On an error the opening names what is wrong.
        Ok(true) | Err(_) => Journal::open(path).map(Some).map_err(unreadable),
    }
}

/// Returns all sessions.
pub(super) fn entries(journal: &mut Option<Journal>) -> Result<Vec<Entry>, CommandError> {
    journal.as_mut().map_or(Ok(Vec::new()), |journal| journal.entries().map_err(unreadable))
}

/// Returns all sessions of a journal that may be on a read-only file system.
pub(super) fn listed(path: &Path) -> Result<Vec<Entry>, CommandError> {
    if matches!(path.try_exists(), Ok(false)) {
        return Ok(Vec::new());
    }
    match Journal::open(path).and_then(|mut journal| journal.entries()) {
        Err(JournalError::NotWritable { .. }) => Journal::read(path),
        entries => entries,
    }
    .map_err(unreadable)
}

pub(super) fn unreadable(error: JournalError) -> CommandError {
    Error::from(error).doing("read the journal").into()
}

pub(super) fn nowhere() -> CommandError {
    CommandError::usage("there is no state directory for the journal: give a journal with --journal")
}

/// Prints sessions as a table, or as JSON events.
pub(super) fn show<'a>(entries: impl IntoIterator<Item = &'a Entry>, console: &Console) {
    show_with(entries.into_iter().map(|entry| (entry, None)), console);
}

/// Prints sessions, some of them with the id of a video that was found by its mark.
pub(super) fn show_with<'a>(
    entries: impl IntoIterator<Item = (&'a Entry, Option<&'a str>)>,
    console: &Console,
) {
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_none() {
        return console.note("the journal is empty");
    }
    let mut table = Table::new([
        ("FILE", Align::Path),
        ("VIDEO", Align::Left),
        ("CHUNKS", Align::Right),
        ("STATE", Align::Left),
        ("STARTED", Align::Left),
        ("ENDPOINT", Align::Spare),
    ]);
    for (entry, found) in entries {
        let mut session = session_event(entry);
        session.video_id = session.video_id.or(found);
        table.row(cells(&session));
        let _ = console.emit_for_file(entry.file().and_then(odd_name), &CommandEvent::Session(session));
    }
    console.result(table);
}

/// Describes a session.
fn session_event(entry: &Entry) -> SessionEvent<'_> {
    let (state, pid) = match entry.state {
        EntryState::Running { pid } => ("running", pid),
        EntryState::Interrupted => ("left", None),
        EntryState::Abandoned => ("abandoned", None),
        EntryState::OutOfReach => ("out_of_reach", None),
    };
    SessionEvent {
        session: entry.id,
        file: entry.file().map(Path::to_string_lossy),
        video_id: video_id(entry),
        bytes: entry.plan.map(|plan| plan.len()),
        mode: entry.plan.map(|plan| mode(plan.addressing())),
        chunks: entry.plan.map(|plan| plan.chunks()),
        stored_chunks: entry.stored_chunks,
        standing: state,
        pid,
        delegated: is_delegated(&entry.key.destination),
        resumable: entry.is_resumable(),
        began: time(entry.began),
        endpoint_url: &entry.key.endpoint,
    }
}

/// Returns the cells of the table of sessions.
fn cells(session: &SessionEvent<'_>) -> [String; 6] {
    let or = |text: Option<&str>, other: &str| text.unwrap_or(other).to_owned();
    let chunks = session.chunks.map_or_else(|| "?".to_owned(), |chunks| chunks.to_string());
    let pid = session.pid.map(|pid| format!(" {pid}")).unwrap_or_default();
    [
        visible(session.file.as_deref().unwrap_or("standard input")).into_owned(),
        or(session.video_id, "-"),
        format!("{}/{chunks}", session.stored_chunks),
        format!("{}{pid}", session.standing),
        session.began.clone(),
        session.endpoint_url.to_owned(),
    ]
}

fn video_id(entry: &Entry) -> Option<&str> {
    match (&entry.container, &entry.key.destination) {
        (ContainerState::Known { video_id, .. }, _) => Some(video_id),
        (_, EntryDestination::Video { video_id } | EntryDestination::TokenAndVideo { video_id, .. }) => {
            Some(video_id)
        }
        (
            ContainerState::None | ContainerState::Intended { .. },
            EntryDestination::NewVideo | EntryDestination::Token(_),
        ) => None,
    }
}

fn is_delegated(destination: &EntryDestination) -> bool {
    match destination {
        EntryDestination::Token(_) | EntryDestination::TokenAndVideo { .. } => true,
        EntryDestination::NewVideo | EntryDestination::Video { .. } => false,
    }
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A `ringlift resume` command line with the flags that select the same journal and service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResumeCommand(String);

impl ResumeCommand {
    pub(super) fn new(journal: Option<&Path>, global: &GlobalArgs) -> ResumeCommand {
        let ca_certs = global.service.ca_cert.iter().map(|path| ("--ca-cert", path.as_path()));
        let paths = [
            ("--journal", journal),
            ("--endpoint-url", global.service.endpoint_url.as_deref().map(Path::new)),
            ("--api-key-file", global.service.api_key_file.as_deref()),
            ("--config", global.config.as_deref()),
            ("--profile", global.profile.as_deref().map(Path::new)),
        ];
        let given = paths.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
        let mut command = "ringlift resume".to_owned();
        if global.service.sandbox {
            command += " --sandbox";
        }
        for (flag, value) in given.chain(ca_certs) {
            command += &format!(" {flag} {}", quoted(value));
        }
        ResumeCommand(command)
    }

    /// Returns the command line for one file.
    pub(super) fn of(&self, file: &Path) -> String {
        // A name that begins with `-` would be taken for a flag.
        let dashes = if file.as_os_str().as_encoded_bytes().starts_with(b"-") { "-- " } else { "" };
        format!("{} {dashes}{}", self.0, quoted(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_is_xdg_then_home_then_systemd() {
        let folder = |given: &[(&str, &str)], home: Option<&str>| {
            let value =
                |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            state_dir(value, || home.map(PathBuf::from))
        };
        let service = ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
        let xdg = ("XDG_STATE_HOME", "/state");
        assert_eq!(folder(&[xdg, service], Some("/home/u")), Some("/state".into()));
        assert_eq!(folder(&[xdg], None), Some("/state".into()));
        assert_eq!(folder(&[service], Some("/home/u")), Some("/home/u".into()));
        assert_eq!(folder(&[service], None), Some("/var/lib/a".into()));
        assert_eq!(folder(&[("XDG_STATE_HOME", "state"), ("STATE_DIRECTORY", "")], None), None);
    }

    #[test]
    fn a_shell_reads_the_file_as_it_is_named() {
        let command = ResumeCommand("ringlift resume".to_owned());
        assert_eq!(command.of(Path::new("/films/a-1.mp4")), "ringlift resume /films/a-1.mp4");
        assert_eq!(command.of(Path::new("it's a film")), r"ringlift resume 'it'\''s a film'");
        assert_eq!(command.of(Path::new("-v")), "ringlift resume -- -v");
    }
}
