//! `ringlift resume`: resumes the uploads in the journal.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlift::bulk::{JsonEvent, RunSummary};
use ringlift::internals::SourceFile;
use ringlift::journal::{Comparison, Entry, EntrySource, SourceIdentity, compare};
use ringlift::{OneLine, Secret, Settings, SkipReason, SourceError};

use super::args::{GlobalArgs, ResumeArgs};
use super::client;
use super::console::{Console, UploadRemains};
use super::events::{CommandEvent, CommandResult, Summary, error_event};
use super::exit::{CommandError, Exit};
use super::journal::{self, ResumeCommand};
use super::upload::{self, IfNew, JobOptions, KeepCompleted, RunOptions, UploadJob};

pub(super) fn run(args: &ResumeArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let journal = journal::path(args.journal.as_deref()).ok_or_else(journal::nowhere)?;
    // A list needs no write access to the journal.
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
            Err(reason) => left_out.extend(report_left_out(session, reason.into(), console)),
        }
    }
    if jobs.is_empty() {
        console.note("nothing to resume");
        note_unbegun(args, console);
        return Ok(Some(summed(Summary::default(), left_out)));
    }
    // Only now: a list, or a run with nothing to resume, needs no credentials.
    upload::check_credentials(&settings, &args.after, token.as_ref())?;
    let resume = ResumeCommand::new(args.journal.as_deref(), global);
    let timetable = args.lanes.bwlimit.as_ref();
    let keep_completed = KeepCompleted::Always;
    let run_options = RunOptions { after: &args.after, grace: args.grace, resume, timetable, keep_completed };
    let client = client::open(settings.clone())?;
    let summary = upload::run_jobs(jobs, client, &settings, run_options, console)?;
    note_unbegun(args, console);
    Ok(Some(summed(summary, left_out)))
}

/// Points out that the journal has no files that were never begun, unless the user names the files.
fn note_unbegun(args: &ResumeArgs, console: &Console) {
    if args.files.is_empty() {
        console.note(
            "files that an interrupted `ringlift upload` had not begun are not in the journal: the same command \
             uploads them, and skips the others",
        );
    }
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
            let path = entry.file().map(Path::to_owned);
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
        // Fails in a working directory that was deleted: the name as given may still match.
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
        // An entry that was found twice is taken once.
        found.sort_unstable();
        found.into_iter().filter_map(|index| self.entries[index].take()).collect()
    }
}

fn identity_of(file: &Path) -> Result<SourceIdentity, SourceError> {
    Ok(SourceIdentity::from(&SourceFile::open(file)?))
}

/// Creates the job that resumes a session.
fn job(
    index: usize,
    session: &SelectedSession,
    settings: &Settings,
    token: Option<&Secret>,
) -> Result<UploadJob, SkipReason> {
    let path = session.path.as_deref().ok_or(SkipReason::Stream)?;
    let upload = session.entry.resumability(path, settings, token)?;
    Ok(UploadJob::file(index, path, Rc::new(JobOptions { upload, if_new: IfNew::Refuse, force: false })))
}

/// Reason why a session is not resumed, as the command reports it.
enum Obstacle {
    /// The session does not belong to this command. Reported as an error only if its file was named.
    NotOurs(Exit, String),
    /// A required credential is missing, or the file has changed.
    Failed(CommandError),
}

impl From<SkipReason> for Obstacle {
    fn from(reason: SkipReason) -> Obstacle {
        let because = reason.to_string();
        let usage = |advice: &str| Obstacle::Failed(CommandError::usage(format!("{because}{advice}")));
        match reason {
            SkipReason::Stream => {
                Obstacle::NotOurs(Exit::Failed, "standard input cannot be read again".to_owned())
            }
            SkipReason::Running { .. } => Obstacle::NotOurs(Exit::Temporary, because),
            SkipReason::OutOfReach => {
                let advice = ", such as root: remove the file in the folder beside the journal if no upload by that \
                              user is active";
                Obstacle::NotOurs(Exit::Failed, because + advice)
            }
            SkipReason::Abandoned => {
                Obstacle::NotOurs(Exit::Failed, because + ": `ringlift clean` removes its video")
            }
            SkipReason::OtherEndpoint { .. } => {
                Obstacle::NotOurs(Exit::Usage, because + ": select that service with --endpoint-url")
            }
            SkipReason::NoKey => usage(": set APIVIDEO_API_KEY or use --api-key-file"),
            SkipReason::NoToken { .. } => usage(", in RINGLIFT_UPLOAD_TOKEN or --upload-token-file"),
            SkipReason::OtherToken => usage(" (RINGLIFT_UPLOAD_TOKEN, --upload-token-file)"),
            SkipReason::NoMetadata => {
                let why = because + ": resume it with `ringlift upload`";
                Obstacle::Failed(CommandError::Other(Exit::Failed, why))
            }
            SkipReason::File(error) => Obstacle::Failed(error.into()),
            // The library's enum may grow.
            _ => Obstacle::Failed(CommandError::Other(Exit::Failed, because)),
        }
    }
}

/// Reports why a session is not resumed. Returns the exit code if that is an error.
fn report_left_out(session: &SelectedSession, obstacle: Obstacle, console: &Console) -> Option<Exit> {
    let file = session.path.as_deref().map(Path::to_string_lossy);
    let name = file.as_deref().unwrap_or("standard input");
    let failure = match obstacle {
        Obstacle::Failed(failure) => failure,
        Obstacle::NotOurs(exit, why) if session.selected == Selected::ByName => {
            CommandError::Other(exit, why)
        }
        Obstacle::NotOurs(_, reason) => {
            console.note(format_args!("{}: not resumed: {reason}", OneLine(name)));
            let session = session.entry.id;
            console.emit(&CommandEvent::Skipped { session, file: file.as_deref(), reason });
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
    let error = error_event(failure);
    console.emit(&JsonEvent::FileFailed { file, elapsed_ms: 0, resumable: false, error });
    console.print_file_error(file, failure, UploadRemains::Nothing);
}

fn summed(summary: Summary, left_out: Vec<Exit>) -> Summary {
    Summary {
        totals: RunSummary { files_failed: summary.totals.files_failed + left_out.len(), ..summary.totals },
        exit: Exit::of_all(left_out.into_iter().chain([summary.exit])),
        ..summary
    }
}
