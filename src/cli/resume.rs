//! `ringlift resume`: goes on with what earlier uploads left.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlift::error::OneLine;
use ringlift::journal::{
    Comparison, Entry, EntryDestination, EntrySource, EntryState, SourceIdentity, TokenDigest, compare,
};
use ringlift::source::SourceFile;
use ringlift::wire::Addressing;
use ringlift::{ChunkSize, Credentials, Error, ErrorKind, Mode, NewVideo, OnChange, Secret, Settings};

use super::args::{Global, ResumeArgs};
use super::events::{ErrorEvent, Event, Summary};
use super::exit::{Exit, Failure};
use super::journal::{self, ResumeCommand};
use super::screen::{Leftover, Screen};
use super::upload::{self, Errand, Item, Memory, Rules, Unbegun};
use super::{Ended, client};

pub(super) fn run(args: &ResumeArgs, global: &Global, screen: &Screen) -> Ended {
    let journal = journal::path(args.journal.as_deref()).ok_or_else(journal::nowhere)?;
    let entries = match args.list {
        true => journal::listed(&journal)?,
        false => journal::entries(&mut journal::open(&journal)?)?,
    };
    let mut settings = upload::settings(&args.lanes, global)?;
    settings.journal = Some(journal);
    let (sessions, unknown) = select(entries, &args.files, &settings.endpoint_url);
    let mut left_out: Vec<Exit> = unknown.iter().map(|file| tell_unknown(file, screen)).collect();
    if args.list {
        journal::show(sessions.iter().map(|session| &session.entry), screen);
        return Ok(Some(summed(Summary::default(), left_out)));
    }
    let token = upload::upload_token(&args.token, global)?;
    let mut items = Vec::new();
    for session in &sessions {
        match item(items.len(), session, &settings, token.as_ref()) {
            Ok(item) => items.push(item),
            Err(hindrance) => left_out.extend(tell_left_out(session, hindrance, screen)),
        }
    }
    if items.is_empty() {
        screen.note("nothing is continued");
        return Ok(Some(summed(Summary::default(), left_out)));
    }
    upload::check_credentials(&settings, &args.after, token.as_ref())?;
    let resume = ResumeCommand::new(args.journal.as_deref(), global);
    let timetable = args.lanes.bwlimit.as_ref();
    let memory = Memory::Kept;
    let rules = Rules { after: &args.after, grace: args.grace, resume, timetable, memory };
    let client = client::open(settings.clone())?;
    let summary = upload::carry_out(items, client, &settings, rules, screen)?;
    Ok(Some(summed(summary, left_out)))
}

/// A session that the command is about.
struct Session {
    entry: Entry,
    /// Where its file is now, as far as that is known.
    path: Option<PathBuf>,
    naming: Naming,
}

/// How a session came to be among those to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// Its file stands on the command line.
    Named,
    /// No file does, so that all are meant.
    AmongAll,
}

/// The sessions of the files, or all of them; and the files that have none.
fn select<'a>(entries: Vec<Entry>, files: &'a [PathBuf], endpoint: &str) -> (Vec<Session>, Vec<&'a Path>) {
    if files.is_empty() {
        let all = entries.into_iter().map(|entry| {
            let path = journal::file(&entry).map(Path::to_owned);
            Session { entry, path, naming: Naming::AmongAll }
        });
        return (all.collect(), Vec::new());
    }
    let (mut sessions, mut unknown) = (Vec::new(), Vec::new());
    let mut entries = Entries::new(entries);
    for file in files {
        let about = entries.take_about(file);
        let is_wanted = |entry: &Entry| (entry.is_resumable(), entry.is_at(endpoint));
        match about.iter().map(is_wanted).max() {
            None => unknown.push(file.as_path()),
            // What hinders one is not worth a word where another can go on.
            Some(best) => sessions.extend(
                about.into_iter().filter(|entry| is_wanted(entry) == best).map(|entry| Session {
                    entry,
                    path: Some(file.clone()),
                    naming: Naming::Named,
                }),
            ),
        }
    }
    (sessions, unknown)
}

/// Sessions, to be found by their files: many files may be named, and the journal may have many sessions.
struct Entries {
    entries: Vec<Option<Entry>>,
    by_path: HashMap<PathBuf, Vec<usize>>,
    by_device_and_len: HashMap<(u64, u64), Vec<usize>>,
}

impl Entries {
    fn new(entries: Vec<Entry>) -> Entries {
        let (mut by_path, mut by_device_and_len) = (HashMap::new(), HashMap::new());
        for (index, entry) in entries.iter().enumerate() {
            if let EntrySource::File { path, identity } = &entry.key.source {
                by_path.entry(path.clone()).or_insert_with(Vec::new).push(index);
                let key = (identity.device, identity.len);
                by_device_and_len.entry(key).or_insert_with(Vec::new).push(index);
            }
        }
        Entries { entries: entries.into_iter().map(Some).collect(), by_path, by_device_and_len }
    }

    /// Those of a file, which is found by its path, and when it was moved, by what it is.
    fn take_about(&mut self, file: &Path) -> Vec<Entry> {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let mut found: Vec<usize> =
            [file, &absolute].iter().filter_map(|path| self.by_path.get(*path)).flatten().copied().collect();
        if let Ok(now) = identity_of(file) {
            let alike = self.by_device_and_len.get(&(now.device, now.len)).into_iter().flatten().copied();
            let is_it = |entry: &Entry| match &entry.key.source {
                EntrySource::File { identity, .. } => {
                    compare(identity, &now, false, true) != Comparison::Another
                }
                EntrySource::Stream => false,
            };
            found.extend(alike.filter(|&index| self.entries[index].as_ref().is_some_and(is_it)));
        }
        found.sort_unstable();
        found.into_iter().filter_map(|index| self.entries[index].take()).collect()
    }
}

fn identity_of(file: &Path) -> Result<SourceIdentity, Error> {
    Ok(SourceIdentity::from(&SourceFile::open(file)?))
}

/// Why a session is not continued.
enum Hindrance {
    /// It is not the command's to continue.
    NotOurs(Exit, String),
    /// The command lacks something, or the file does.
    Failed(Failure),
}

/// The upload that continues the session.
fn item(
    index: usize,
    session: &Session,
    settings: &Settings,
    token: Option<&Secret>,
) -> Result<Item, Hindrance> {
    let Session { entry, path, .. } = session;
    let not_ours = |exit, why: String| Err(Hindrance::NotOurs(exit, why));
    let (EntrySource::File { path: begun_at, identity }, Some(path)) = (&entry.key.source, path) else {
        return not_ours(Exit::Failed, "standard input cannot be read again".to_owned());
    };
    match entry.state {
        EntryState::Interrupted => {}
        EntryState::Running { pid } => {
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            return not_ours(Exit::Temporary, format!("{who} is at it"));
        }
        EntryState::OutOfReach => {
            let why = "its lock file belongs to another user, as a run by root leaves it: remove the file in the \
                       folder beside the journal when no such run is under way";
            return not_ours(Exit::Failed, why.to_owned());
        }
        EntryState::Abandoned => {
            return not_ours(
                Exit::Failed,
                "it was given up; `ringlift clean` removes what is left".to_owned(),
            );
        }
    }
    if !entry.is_at(&settings.endpoint_url) {
        let there = &entry.key.endpoint;
        return not_ours(Exit::Usage, format!("it goes to {there}: name that with --endpoint-url"));
    }
    let errand = errand(entry, settings, token).map_err(Hindrance::Failed)?;
    let is_same_path = std::path::absolute(path).is_ok_and(|path| path == *begun_at);
    check_file(path, identity, is_same_path).map_err(Hindrance::Failed)?;
    Ok(Item::file(index, path, Rc::new(errand)))
}

/// As the upload was begun.
fn errand(entry: &Entry, settings: &Settings, token: Option<&Secret>) -> Result<Errand, Failure> {
    let (video_id, token) = match &entry.key.destination {
        EntryDestination::NewVideo => (None, key(settings)?),
        EntryDestination::Video { video_id } => (Some(video_id.clone()), key(settings)?),
        EntryDestination::Token(digest) => (None, Some(known(token, digest, entry)?)),
        EntryDestination::TokenAndVideo { token: digest, video_id } => {
            (Some(video_id.clone()), Some(known(token, digest, entry)?))
        }
    };
    let (mode, chunk_size) = match entry.plan {
        Some(plan) => (mode(plan.addressing()), ChunkSize::Bytes(plan.chunk_bytes())),
        None => (Mode::Auto, ChunkSize::Auto),
    };
    let (on_change, unbegun) = (OnChange::Fail, Unbegun::Refuse);
    let video = video(entry)?;
    Ok(Errand {
        video,
        video_id,
        token,
        mode,
        chunk_size,
        expected_bytes: None,
        on_change,
        unbegun,
        force: false,
    })
}

/// No token is needed where there is a key.
fn key(settings: &Settings) -> Result<Option<Secret>, Failure> {
    match settings.credentials {
        Credentials::None => Err(Failure::usage(
            "it needs the API key: set APIVIDEO_API_KEY or name its file with --api-key-file",
        )),
        _ => Ok(None),
    }
}

/// The token, if it is the one that the upload was begun with, or may go on in its place.
fn known(token: Option<&Secret>, digest: &TokenDigest, entry: &Entry) -> Result<Secret, Failure> {
    let begun_with =
        "it needs the upload token that it was begun with, in RINGLIFT_UPLOAD_TOKEN or --upload-token-file";
    match token {
        Some(token) if TokenDigest::of(token.reveal()) == *digest => Ok(token.clone()),
        Some(token) if entry.continues_with_any_token() => Ok(token.clone()),
        None if entry.continues_with_any_token() => Err(Failure::usage(
            "it needs an upload token, the one that it was begun with or another of the account, in \
             RINGLIFT_UPLOAD_TOKEN or --upload-token-file",
        )),
        Some(_) => Err(Failure::usage(format!("{begun_with}; the one that is there is another"))),
        None => Err(Failure::usage(begun_with)),
    }
}

/// The video that the upload was to create.
fn video(entry: &Entry) -> Result<NewVideo, Failure> {
    match entry.key.destination {
        EntryDestination::NewVideo => serde_json::from_str(&entry.arguments).map_err(|_| {
            let why =
                "the journal does not say how the video was described: `ringlift upload` goes on with it";
            Failure::Other(Exit::Failed, why.to_owned())
        }),
        _ => Ok(NewVideo::default()),
    }
}

fn mode(addressing: Addressing) -> Mode {
    match addressing {
        Addressing::Single => Mode::Single,
        Addressing::ByteRange => Mode::Bytes,
        Addressing::Part => Mode::Parts,
    }
}

/// Half of one file and half of another is no video.
fn check_file(path: &Path, begun: &SourceIdentity, is_same_path: bool) -> Result<(), Failure> {
    let now = identity_of(path).map_err(|error| match error.kind() {
        ErrorKind::NoSuchFile => error.with_advice("where it was moved, name it: `ringlift resume FILE`"),
        _ => error,
    })?;
    match compare(begun, &now, is_same_path, true) {
        Comparison::Same | Comparison::Prove | Comparison::Anew => Ok(()),
        Comparison::Another => {
            Err(Error::new(ErrorKind::SourceChanged, format!("continue {}", path.display()))
                .because("the file is not the one that was begun, or has changed since")
                .with_advice("`ringlift upload` sends it anew; `ringlift clean` removes what was begun")
                .into())
        }
    }
}

/// Says why a session is not continued; gives the exit code if that is a failure.
fn tell_left_out(session: &Session, hindrance: Hindrance, screen: &Screen) -> Option<Exit> {
    let file = session.path.as_deref().map(Path::to_string_lossy);
    let name = file.as_deref().unwrap_or("standard input");
    let failure = match hindrance {
        Hindrance::Failed(failure) => failure,
        Hindrance::NotOurs(exit, why) if session.naming == Naming::Named => Failure::Other(exit, why),
        Hindrance::NotOurs(_, reason) => {
            screen.note(format_args!("{}: not continued: {reason}", OneLine(name)));
            let session = session.entry.id;
            screen.event(&Event::Skipped { session, file: file.as_deref(), reason });
            return None;
        }
    };
    tell_failed(name, &failure, screen);
    Some(failure.exit())
}

fn tell_unknown(file: &Path, screen: &Screen) -> Exit {
    let (exit, why) = match file.exists() {
        true => (Exit::Failed, "the journal has no upload of it: `ringlift upload` begins one"),
        false => (Exit::NoSuchFile, "no such file, and the journal has no upload of it"),
    };
    tell_failed(&file.to_string_lossy(), &Failure::Other(exit, why.to_owned()), screen);
    exit
}

fn tell_failed(file: &str, failure: &Failure, screen: &Screen) {
    let error = ErrorEvent::new(failure);
    screen.event(&Event::FileFailed { file, elapsed_ms: 0, resumable: false, error });
    screen.file_failure(file, failure, Leftover::Nothing);
}

fn summed(summary: Summary, left_out: Vec<Exit>) -> Summary {
    Summary {
        files_failed: summary.files_failed + left_out.len(),
        exit: Exit::of_all(left_out.into_iter().chain([summary.exit])),
        ..summary
    }
}
