//! `ringlift clean`: removes uploads that cannot be resumed, from the service and from the journal.

use ringlift::bulk::JsonEvent;
use ringlift::journal::{ClaimedEntry, Entry, EntryState, Journal, JournalError};
use ringlift::{Client, Error, ErrorKind, LeftoverState, OneLine, STRAY_VIDEO};

use super::args::{CleanArgs, GlobalArgs};
use super::client;
use super::console::{Console, counted};
use super::events::{CommandEvent, CommandResult, Summary, error_event};
use super::exit::{CommandError, Exit};
use super::journal;
use super::tune::leftovers;

pub(super) fn run(args: &CleanArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    if args.tune {
        return leftovers::clean(args.yes, args.data.as_deref(), global, console);
    }
    let path = journal::path(args.journal.as_deref()).ok_or_else(journal::nowhere)?;
    let mut journal = journal::open(&path)?;
    let entries = journal::entries(&mut journal)?;
    let (leftovers, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| is_selected(entry, args));
    report_kept(&kept, console);
    let endpoint = client::client_settings(global).endpoint_url;
    let leftovers = only_here(leftovers, &endpoint, console);
    // Without a video to find or to delete, the command works without an API key.
    let client = leftovers.iter().any(Entry::may_have_video).then(|| client::connect(global)).transpose()?;
    let wanted = leftovers.len();
    let (leftovers, mut exits, is_given_up) = find(leftovers, client.as_ref(), console);
    if is_given_up {
        let counted = counted(wanted as u64, "upload");
        console.note(format_args!("nothing was deleted, because the service did not answer: {counted} kept"));
        return Ok(Some(Summary::from(Exit::of_all(exits))));
    }
    let Some(journal) = journal.as_mut().filter(|_| !leftovers.is_empty()) else {
        if exits.is_empty() {
            console.note("nothing to clean");
        }
        return Ok(Some(Summary::from(Exit::of_all(exits))));
    };
    journal::show_with(
        leftovers.iter().map(|leftover| (&leftover.entry, leftover.video_id.as_deref())),
        console,
    );
    if !args.yes && !confirmed(&leftovers, &endpoint, console)? {
        console.note("nothing was deleted");
        return Ok(Some(Summary::from(Exit::of_all(exits))));
    }
    exits.extend(remove_all(journal, &leftovers, client.as_ref(), console));
    Ok(Some(Summary::from(Exit::of_all(exits))))
}

/// Removes the uploads. Returns the exit codes of those that are left.
fn remove_all(
    journal: &mut Journal,
    leftovers: &[LeftoverUpload],
    client: Option<&Client>,
    console: &Console,
) -> Vec<Exit> {
    let mut exits = Vec::new();
    for leftover in leftovers {
        if let Err(failure) = remove(journal, leftover, client, console) {
            exits.push(report_failed(&failure, console));
            // The next deletions would fail in the same way, each after all its retries.
            if concerns_service(&failure) {
                break;
            }
        }
    }
    exits
}

/// An upload that is not resumed, and its video at the service.
struct LeftoverUpload {
    entry: Entry,
    /// Id of the video to delete: one that this upload created, known from the response or found by its mark.
    video_id: Option<String>,
}

/// Looks up the video of each upload. An upload whose look-up fails stays in the journal for the next run. Returns
/// `true` if the service does not answer: each further look-up would take all its retries, too.
fn find(
    entries: Vec<Entry>,
    client: Option<&Client>,
    console: &Console,
) -> (Vec<LeftoverUpload>, Vec<Exit>, bool) {
    let (mut leftovers, mut exits) = (Vec::new(), Vec::new());
    for entry in entries {
        let video_id = match client {
            Some(client) => client::block_on(async { Ok(to_delete(&entry, client, console).await?) }),
            None => Ok(None),
        };
        match video_id {
            Ok(video_id) => leftovers.push(LeftoverUpload { entry, video_id }),
            Err(failure) => {
                exits.push(report_failed(&failure, console));
                if concerns_service(&failure) {
                    return (leftovers, exits, true);
                }
            }
        }
    }
    (leftovers, exits, false)
}

/// Returns `true` if a request about another video would fail in the same way.
fn concerns_service(failure: &CommandError) -> bool {
    use ErrorKind::{MalformedAnswer, NotAuthorized, Untrusted, WrongProtocol};

    match failure {
        CommandError::Library(error) => {
            let kind = error.kind();
            kind.is_temporary() || matches!(kind, NotAuthorized | Untrusted | WrongProtocol | MalformedAnswer)
        }
        _ => false,
    }
}

/// Returns the id of the incomplete video of an upload.
async fn to_delete(entry: &Entry, client: &Client, console: &Console) -> Result<Option<String>, Error> {
    match client.leftover_video(entry).await? {
        // The process may have died after the last byte was stored and before the journal recorded it.
        Some(video_id) if client.leftover_state(entry, &video_id).await? == LeftoverState::Complete => {
            note_complete(&video_id, console);
            Ok(None)
        }
        video_id => Ok(video_id),
    }
}

fn note_complete(video_id: &str, console: &Console) {
    console.note(format_args!("video {video_id} is complete; keeping it"));
}

/// Returns `true` if the upload cannot be resumed, or with `--all`, if no process is working on it.
fn is_selected(entry: &Entry, args: &CleanArgs) -> bool {
    args.all && entry.state == EntryState::Interrupted || entry.is_left_over()
}

fn report_kept(kept: &[Entry], console: &Console) {
    let resumable = kept.iter().filter(|entry| entry.is_resumable()).count();
    if resumable > 0 {
        let uploads = counted(resumable as u64, "upload");
        console.note(format_args!("kept for `ringlift resume`: {uploads}; --all removes them too"));
    }
}

/// Returns the uploads whose video is at `endpoint`, and reports the others. A video can be deleted only at
/// its own service.
fn only_here(leftovers: Vec<Entry>, endpoint: &str, console: &Console) -> Vec<Entry> {
    // An entry without a video can go, whatever its service.
    let is_here = |entry: &Entry| !entry.may_have_video() || entry.is_at(endpoint);
    let (here, elsewhere): (Vec<_>, Vec<_>) = leftovers.into_iter().partition(is_here);
    for entry in &elsewhere {
        let there = &entry.key.endpoint;
        let reason = format!("it is at {there}: select that service with --endpoint-url");
        let what = match entry.orphan() {
            Some(video_id) => format!("video {video_id}"),
            None => format!("session {}: its video", entry.id),
        };
        console.note(format_args!("{what}: not deleted: {reason}"));
        let file = entry.file().map(|file| file.to_string_lossy());
        console.emit(&CommandEvent::Skipped { session: entry.id, file: file.as_deref(), reason });
    }
    here
}

fn confirmed(leftovers: &[LeftoverUpload], endpoint: &str, console: &Console) -> Result<bool, CommandError> {
    let videos = leftovers.iter().filter(|leftover| leftover.video_id.is_some()).count();
    let question = format!(
        "delete {} at {endpoint}, and remove {} from the journal?",
        counted(videos as u64, "video"),
        counted(leftovers.len() as u64, "upload"),
    );
    console.confirm(question).ok_or_else(|| {
        CommandError::usage(
            "nothing was deleted, because there is no terminal for the confirmation: use --yes to delete",
        )
    })
}

/// Deletes the video unless it is complete, then removes the upload from the journal. The journal keeps the
/// upload if the deletion or the status request fails.
fn remove(
    journal: &mut Journal,
    leftover: &LeftoverUpload,
    client: Option<&Client>,
    console: &Console,
) -> Result<(), CommandError> {
    let entry = &leftover.entry;
    // Claimed first, so that no process resumes the upload while its video is deleted.
    let Some(ticket) = still_left(journal, entry, console)? else { return Ok(()) };
    match (client, leftover.video_id.as_deref()) {
        (Some(client), Some(video_id)) => {
            let deletion = client.delete_leftover(entry, video_id);
            match client::block_on(async { Ok(deletion.await?) })? {
                LeftoverState::Complete => note_complete(video_id, console),
                LeftoverState::Gone => note_gone(video_id, console),
                _ => note_deleted(video_id, console),
            }
        }
        _ if entry.may_have_untraced_video() => report_strayed(entry, console),
        _ => {}
    }
    // Last: until the video is gone, the entry is its only trace.
    journal.forget(ticket).map_err(journal::unreadable)?;
    console.emit(&CommandEvent::Forgotten { session: entry.id });
    Ok(())
}

fn note_deleted(video_id: &str, console: &Console) {
    console.note(format_args!("video {video_id}: deleted"));
    console.emit(&CommandEvent::Deleted { video_id: Some(video_id) });
}

fn note_gone(video_id: &str, console: &Console) {
    console.note(format_args!("video {video_id}: was gone already"));
    console.emit(&CommandEvent::Deleted { video_id: Some(video_id) });
}

/// Reports a video that may exist without a known id or mark, so that the user can look for it.
fn report_strayed(entry: &Entry, console: &Console) {
    let file = entry.file().map(|file| file.to_string_lossy()).unwrap_or_default();
    console.note(format_args!("{}: {STRAY_VIDEO}", OneLine(&file)));
    console.emit(&JsonEvent::StrayVideo { file: &file, advice: STRAY_VIDEO });
}

/// Claims the journal entry. Returns `None` if the entry has changed since it was shown.
fn still_left(
    journal: &mut Journal,
    entry: &Entry,
    console: &Console,
) -> Result<Option<ClaimedEntry>, CommandError> {
    match journal.take(entry.id) {
        // With another container the upload has been resumed since it was shown.
        Ok(Some(claimed)) if *claimed.container() == entry.container => Ok(Some(claimed)),
        Ok(_) | Err(JournalError::Claimed { .. }) => {
            console.note(format_args!(
                "session {}: skipped, because it has been resumed in the meantime",
                entry.id
            ));
            Ok(None)
        }
        Err(error) => Err(journal::unreadable(error)),
    }
}

fn report_failed(failure: &CommandError, console: &Console) -> Exit {
    console.print_error(failure);
    console.emit(&CommandEvent::Failed { error: error_event(failure) });
    failure.exit()
}
