//! `ringlift resume`: resumes the uploads in the journal.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlift::error::OneLine;
use ringlift::journal::{
    Comparison, Entry, EntryDestination, EntrySource, EntryState, SourceIdentity, TokenDigest, compare,
};
use ringlift::source::SourceFile;
use ringlift::wire::Addressing;
use ringlift::{ChunkSize, Credentials, Error, ErrorKind, Mode, Secret, Settings, UploadOptions};

use super::args::{GlobalArgs, ResumeArgs};
use super::client;
use super::console::{Console, UploadRemains};
use super::events::{CommandResult, ErrorEvent, JsonEvent, Summary};
use super::exit::{CommandError, Exit};
use super::journal::{self, ResumeCommand};
use super::upload::{self, IfNew, Job, JobOptions, KeepCompleted, RunOptions};

pub(super) fn run(args: &ResumeArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let journal = journal::path(args.journal.as_deref()).ok_or_else(journal::nowhere)?;
    let entries =
        if args.list { journal::listed(&journal)? } else { journal::entries(&mut journal::open(&journal)?)? };
    let mut settings = upload::upload_settings(&args.lanes, global)?;
    settings.journal = Some(journal);
    let (sessions, unknown) = select(entries, &args.files, &settings.endpoint_url);
    let mut left_out: Vec<Exit> = unknown.iter().map(|file| report_unknown(file, console)).collect();
    if args.list {
        journal::show(sessions.iter().map(|session| &session.entry), console);
        return Ok(Some(summed(Summary::default(), left_out)));
    }
    let token = upload::upload_token(&args.token, global)?;
    let mut jobs = Vec::new();
    for session in &sessions {
        match job(jobs.len(), session, &settings, token.as_ref()) {
            Ok(job) => jobs.push(job),
            Err(hindrance) => left_out.extend(report_left_out(session, hindrance, console)),
        }
    }
    if jobs.is_empty() {
        console.note("nothing to resume");
        return Ok(Some(summed(Summary::default(), left_out)));
    }
    upload::check_credentials(&settings, &args.after, token.as_ref())?;
    let resume = ResumeCommand::new(args.journal.as_deref(), global);
    let timetable = args.lanes.bwlimit.as_ref();
    let keep_completed = KeepCompleted::Always;
    let run_options = RunOptions { after: &args.after, grace: args.grace, resume, timetable, keep_completed };
    let client = client::open(settings.clone())?;
    let summary = upload::run_jobs(jobs, client, &settings, run_options, console)?;
    Ok(Some(summed(summary, left_out)))
}

/// A session selected by the command line.
struct SelectedSession {
    entry: Entry,
    /// Current path of its file; `None` for a stream.
    path: Option<PathBuf>,
    selected: Selected,
}

/// Reason for the selection of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    /// Its file was named on the command line.
    ByName,
    /// No file was named, which selects all sessions.
    ByDefault,
}

/// Returns the selected sessions, and the named files that have none.
fn select<'a>(
    entries: Vec<Entry>,
    files: &'a [PathBuf],
    endpoint: &str,
) -> (Vec<SelectedSession>, Vec<&'a Path>) {
    if files.is_empty() {
        let all = entries.into_iter().map(|entry| {
            let path = journal::file(&entry).map(Path::to_owned);
            SelectedSession { entry, path, selected: Selected::ByDefault }
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
            // A session that cannot be resumed is not reported if another session of the same file can be.
            Some(best) => {
                sessions.extend(about.into_iter().filter(|entry| is_wanted(entry) == best).map(|entry| {
                    SelectedSession { entry, path: Some(file.clone()), selected: Selected::ByName }
                }))
            }
        }
    }
    (sessions, unknown)
}

/// Index of sessions by file, because both the command line and the journal may be long.
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

    /// Removes and returns the sessions of a file. A moved file is found by its identity.
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

/// Reason why a session is not resumed.
enum SkipReason {
    /// The session does not belong to this command. Reported as an error only if its file was named.
    NotOurs(Exit, String),
    /// A required credential is missing, or the file has changed.
    Failed(CommandError),
}

/// Creates the job that resumes a session.
fn job(
    index: usize,
    session: &SelectedSession,
    settings: &Settings,
    token: Option<&Secret>,
) -> Result<Job, SkipReason> {
    let SelectedSession { entry, path, .. } = session;
    let not_ours = |exit, why: String| Err(SkipReason::NotOurs(exit, why));
    let (EntrySource::File { path: original_path, identity }, Some(path)) = (&entry.key.source, path) else {
        return not_ours(Exit::Failed, "standard input cannot be read again".to_owned());
    };
    match entry.state {
        EntryState::Interrupted => {}
        EntryState::Running { pid } => {
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            return not_ours(Exit::Temporary, format!("{who} is uploading the file already"));
        }
        EntryState::OutOfReach => {
            let why = "its lock file belongs to another user, such as root: remove the file in the folder beside the \
                       journal if no upload by that user is active";
            return not_ours(Exit::Failed, why.to_owned());
        }
        EntryState::Abandoned => {
            return not_ours(
                Exit::Failed,
                "the upload was abandoned: `ringlift clean` removes its video".to_owned(),
            );
        }
    }
    if !entry.is_at(&settings.endpoint_url) {
        let there = &entry.key.endpoint;
        return not_ours(
            Exit::Usage,
            format!("it is an upload to {there}: select that service with --endpoint-url"),
        );
    }
    let options = options(entry, settings, token).map_err(SkipReason::Failed)?;
    let is_same_path = std::path::absolute(path).is_ok_and(|path| path == *original_path);
    check_file(path, identity, is_same_path).map_err(SkipReason::Failed)?;
    Ok(Job::file(index, path, Rc::new(options)))
}

/// Returns the options with which the upload was started.
fn options(entry: &Entry, settings: &Settings, token: Option<&Secret>) -> Result<JobOptions, CommandError> {
    let (video_id, token) = match &entry.key.destination {
        EntryDestination::NewVideo => (None, key(settings)?),
        EntryDestination::Video { video_id } => (Some(video_id.clone()), key(settings)?),
        EntryDestination::Token(digest) => (None, Some(known(token, digest, entry)?)),
        EntryDestination::TokenAndVideo { token: digest, video_id } => {
            (Some(video_id.clone()), Some(known(token, digest, entry)?))
        }
    };
    let mut upload = started_with(entry)?;
    upload.video_id = video_id;
    upload.upload_token = token;
    if let Some(plan) = entry.plan {
        upload.mode = mode(plan.addressing());
        upload.chunk_size = ChunkSize::Bytes(plan.chunk_bytes());
    }
    Ok(JobOptions { upload, if_new: IfNew::Refuse, force: false })
}

/// Checks that the API key is present. Returns `None`, as no token is needed.
fn key(settings: &Settings) -> Result<Option<Secret>, CommandError> {
    match settings.credentials {
        Credentials::None => {
            Err(CommandError::usage("it needs the API key: set APIVIDEO_API_KEY or use --api-key-file"))
        }
        _ => Ok(None),
    }
}

/// Returns the token if it is the one with which the upload was started, or a permitted replacement.
fn known(token: Option<&Secret>, digest: &TokenDigest, entry: &Entry) -> Result<Secret, CommandError> {
    let original = "it needs the upload token with which it was started, in RINGLIFT_UPLOAD_TOKEN or --upload-token-file";
    match token {
        Some(token) if TokenDigest::of(token.reveal()) == *digest => Ok(token.clone()),
        Some(token) if entry.continues_with_any_token() => Ok(token.clone()),
        None if entry.continues_with_any_token() => Err(CommandError::usage(
            "it needs an upload token of the same account, in RINGLIFT_UPLOAD_TOKEN or --upload-token-file",
        )),
        Some(_) => Err(CommandError::usage(format!("{original}; the given token is a different one"))),
        None => Err(CommandError::usage(original)),
    }
}

/// Returns the options in the journal. Only a new video needs its metadata from there.
fn started_with(entry: &Entry) -> Result<UploadOptions, CommandError> {
    match (serde_json::from_str(&entry.arguments), &entry.key.destination) {
        (Ok(options), _) => Ok(options),
        (Err(_), EntryDestination::NewVideo) => {
            let why =
                "the journal does not contain the metadata of the video: resume it with `ringlift upload`";
            Err(CommandError::Other(Exit::Failed, why.to_owned()))
        }
        (Err(_), _) => Ok(UploadOptions::default()),
    }
}

fn mode(addressing: Addressing) -> Mode {
    match addressing {
        Addressing::Single => Mode::Single,
        Addressing::ByteRange => Mode::Bytes,
        Addressing::Part => Mode::Parts,
    }
}

/// Checks that the file is still the one whose chunks are stored. Chunks of two different files would make a
/// corrupt video.
fn check_file(path: &Path, original: &SourceIdentity, is_same_path: bool) -> Result<(), CommandError> {
    let now = identity_of(path).map_err(|error| match error.kind() {
        ErrorKind::NoSuchFile => {
            error.with_advice("if the file was moved, give its new path: `ringlift resume FILE`")
        }
        _ => error,
    })?;
    match compare(original, &now, is_same_path, true) {
        Comparison::Same | Comparison::Prove | Comparison::Anew => Ok(()),
        Comparison::Another => {
            Err(Error::new(ErrorKind::SourceChanged, format!("resume {}", path.display()))
                .because("the file is not the one whose upload was started, or it has changed since")
                .with_advice("`ringlift upload` starts again; `ringlift clean` removes the incomplete video")
                .into())
        }
    }
}

/// Reports why a session is not resumed. Returns the exit code if that is an error.
fn report_left_out(session: &SelectedSession, hindrance: SkipReason, console: &Console) -> Option<Exit> {
    let file = session.path.as_deref().map(Path::to_string_lossy);
    let name = file.as_deref().unwrap_or("standard input");
    let failure = match hindrance {
        SkipReason::Failed(failure) => failure,
        SkipReason::NotOurs(exit, why) if session.selected == Selected::ByName => {
            CommandError::Other(exit, why)
        }
        SkipReason::NotOurs(_, reason) => {
            console.note(format_args!("{}: not resumed: {reason}", OneLine(name)));
            let session = session.entry.id;
            console.emit(&JsonEvent::Skipped { session, file: file.as_deref(), reason });
            return None;
        }
    };
    report_failed(name, &failure, console);
    Some(failure.exit())
}

fn report_unknown(file: &Path, console: &Console) -> Exit {
    let (exit, why) = if file.exists() {
        (Exit::Failed, "the journal has no upload of this file: `ringlift upload` starts one")
    } else {
        (Exit::NoSuchFile, "no such file, and the journal has no upload of it")
    };
    report_failed(&file.to_string_lossy(), &CommandError::Other(exit, why.to_owned()), console);
    exit
}

fn report_failed(file: &str, failure: &CommandError, console: &Console) {
    let error = ErrorEvent::new(failure);
    console.emit(&JsonEvent::FileFailed { file, elapsed_ms: 0, resumable: false, error });
    console.print_file_error(file, failure, UploadRemains::Nothing);
}

fn summed(summary: Summary, left_out: Vec<Exit>) -> Summary {
    Summary {
        files_failed: summary.files_failed + left_out.len(),
        exit: Exit::of_all(left_out.into_iter().chain([summary.exit])),
        ..summary
    }
}
