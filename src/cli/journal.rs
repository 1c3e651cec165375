//! The journal as commands use it: where it is, which sessions it has, and the command that goes on.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etcetera::base_strategy::{BaseStrategy, choose_base_strategy};
use ringlift::Error;
use ringlift::journal::{
    ContainerState, Entry, EntryDestination, EntrySource, EntryState, Journal, JournalError,
};
use serde::Serialize;

use super::args::Global;
use super::events::{self, Event, odd_name};
use super::exit::Failure;
use super::names::{quoted, visible};
use super::screen::Screen;
use super::table::{Align, Table};

/// Where the journal is kept; nowhere for a user without a home.
pub(super) fn path(given: Option<&Path>) -> Option<PathBuf> {
    given.map(Path::to_owned).or_else(|| {
        let home = || choose_base_strategy().ok()?.state_dir();
        Some(state_dir(|name| std::env::var_os(name), home)?.join("ringlift/journal.db"))
    })
}

/// The folder for state: `XDG_STATE_HOME`, else the one in the home, else the first that systemd made for a service
/// (systemd.exec(5), "StateDirectory="). A relative path would be another folder for each command.
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

/// Says that nothing is written down, where that was not asked for.
pub(super) fn warn_of_none() {
    tracing::warn!(
        "no journal is kept, as there is no home to keep it in (HOME, XDG_STATE_HOME and STATE_DIRECTORY are unset): \
         an upload that is interrupted begins anew with another video; name a journal with --journal FILE"
    );
}

/// The journal that is there; `None` when nothing was ever written down. None is made.
pub(super) fn open(path: &Path) -> Result<Option<Journal>, Failure> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) | Err(_) => Journal::open(path).map(Some).map_err(unreadable),
    }
}

/// Every session that it has.
pub(super) fn entries(journal: &mut Option<Journal>) -> Result<Vec<Entry>, Failure> {
    journal.as_mut().map_or(Ok(Vec::new()), |journal| journal.entries().map_err(unreadable))
}

/// Every session of a journal that may be on a read-only file system.
pub(super) fn listed(path: &Path) -> Result<Vec<Entry>, Failure> {
    if matches!(path.try_exists(), Ok(false)) {
        return Ok(Vec::new());
    }
    match Journal::open(path).and_then(|mut journal| journal.entries()) {
        Err(JournalError::NotWritable { .. }) => Journal::read(path),
        entries => entries,
    }
    .map_err(unreadable)
}

pub(super) fn unreadable(error: JournalError) -> Failure {
    Error::from(error).doing("look into the journal").into()
}

pub(super) fn nowhere() -> Failure {
    Failure::usage("there is no home to keep a journal in: name the journal with --journal")
}

/// Shows sessions, to people as a table.
pub(super) fn show<'a>(entries: impl IntoIterator<Item = &'a Entry>, screen: &Screen) {
    show_with(entries.into_iter().map(|entry| (entry, None)), screen);
}

/// Shows sessions, some with the video that was found to be theirs.
pub(super) fn show_with<'a>(
    entries: impl IntoIterator<Item = (&'a Entry, Option<&'a str>)>,
    screen: &Screen,
) {
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_none() {
        return screen.note("the journal has no upload");
    }
    let mut table = Table::new([
        ("FILE", Align::Left),
        ("VIDEO", Align::Left),
        ("CHUNKS", Align::Right),
        ("STANDING", Align::Left),
        ("BEGAN", Align::Left),
        ("ENDPOINT", Align::Left),
    ]);
    for (entry, found) in entries {
        let mut session = SessionEvent::new(entry);
        session.video_id = session.video_id.or(found);
        table.row(session.cells());
        let _ = screen.event_about(file(entry).and_then(odd_name), &Event::Session(session));
    }
    screen.result(table);
}

/// A session, for machines.
#[derive(Debug, Serialize)]
pub(super) struct SessionEvent<'a> {
    session: i64,
    /// None of a stream.
    file: Option<Cow<'a, str>>,
    /// None while there is no container, or none whose id is known.
    video_id: Option<&'a str>,
    bytes: Option<u64>,
    mode: Option<&'static str>,
    chunks: Option<u32>,
    /// Acknowledged by the service.
    stored_chunks: u32,
    standing: &'static str,
    /// The process that is at it.
    pid: Option<u32>,
    /// Whether an upload token goes in place of the API key.
    delegated: bool,
    resumable: bool,
    began: String,
    endpoint_url: &'a str,
}

impl<'a> SessionEvent<'a> {
    fn new(entry: &'a Entry) -> SessionEvent<'a> {
        let (standing, pid) = match entry.state {
            EntryState::Running { pid } => ("running", pid),
            EntryState::Interrupted => ("left", None),
            EntryState::Abandoned => ("abandoned", None),
            EntryState::OutOfReach => ("out_of_reach", None),
        };
        SessionEvent {
            session: entry.id,
            file: file(entry).map(Path::to_string_lossy),
            video_id: video_id(entry),
            bytes: entry.plan.map(|plan| plan.len()),
            mode: entry.plan.map(|plan| events::mode(plan.addressing())),
            chunks: entry.plan.map(|plan| plan.chunks()),
            stored_chunks: entry.stored_chunks,
            standing,
            pid,
            delegated: is_delegated(&entry.key.destination),
            resumable: entry.is_resumable(),
            began: time(entry.began),
            endpoint_url: &entry.key.endpoint,
        }
    }

    fn cells(&self) -> [String; 6] {
        let or = |text: Option<&str>, other: &str| text.unwrap_or(other).to_owned();
        let chunks = self.chunks.map_or_else(|| "?".to_owned(), |chunks| chunks.to_string());
        let pid = self.pid.map(|pid| format!(" {pid}")).unwrap_or_default();
        [
            visible(self.file.as_deref().unwrap_or("standard input")).into_owned(),
            or(self.video_id, "-"),
            format!("{}/{chunks}", self.stored_chunks),
            format!("{}{pid}", self.standing),
            self.began.clone(),
            self.endpoint_url.to_owned(),
        ]
    }
}

/// The file of a session; `None` of a stream.
pub(super) fn file(entry: &Entry) -> Option<&Path> {
    match &entry.key.source {
        EntrySource::File { path, .. } => Some(path),
        EntrySource::Stream => None,
    }
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

/// `ringlift resume` with the flags that lead to the same journal and the same service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResumeCommand(String);

impl ResumeCommand {
    pub(super) fn new(journal: Option<&Path>, global: &Global) -> ResumeCommand {
        let ca_certs = global.ca_cert.iter().map(|path| ("--ca-cert", path.as_path()));
        let paths = [
            ("--journal", journal),
            ("--endpoint-url", global.endpoint_url.as_deref().map(Path::new)),
            ("--api-key-file", global.api_key_file.as_deref()),
            ("--config", global.config.as_deref()),
        ];
        let given = paths.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
        let mut command = "ringlift resume".to_owned();
        if global.sandbox {
            command += " --sandbox";
        }
        for (flag, value) in given.chain(ca_certs) {
            command += &format!(" {flag} {}", quoted(value));
        }
        ResumeCommand(command)
    }

    /// For this file alone.
    pub(super) fn of(&self, file: &Path) -> String {
        let dashes = if file.as_os_str().as_encoded_bytes().starts_with(b"-") { "-- " } else { "" };
        format!("{} {dashes}{}", self.0, quoted(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_for_state_is_the_given_one_then_that_of_the_home_then_that_of_the_service() {
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
