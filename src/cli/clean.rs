//! `ringlift clean`: removes what ended uploads left behind, at the service and in the journal.

use std::time::Duration;

use ringlift::api::{Received, ReceivedRange, VideoStatus};
use ringlift::error::OneLine;
use ringlift::journal::{
    ClaimedEntry, Comparison, Entry, EntrySource, EntryState, Journal, JournalError, SourceIdentity, compare,
};
use ringlift::session::event::STRAY_VIDEO;
use ringlift::source::SourceFile;
use ringlift::wire::Plan;
use ringlift::{Client, Error, ErrorKind};

use super::args::{CleanArgs, Global};
use super::events::{ErrorEvent, Event, Summary};
use super::exit::{Exit, Failure};
use super::journal;
use super::screen::Screen;
use super::{Ended, client};

pub(super) fn run(args: &CleanArgs, global: &Global, screen: &Screen) -> Ended {
    let path = journal::path(args.journal.as_deref()).ok_or_else(journal::nowhere)?;
    let mut journal = journal::open(&path)?;
    let entries = journal::entries(&mut journal)?;
    let (leftovers, kept): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| is_left_over(entry, args));
    tell_kept(&kept, screen);
    let endpoint = client::settings(global).endpoint_url;
    let leftovers = only_here(leftovers, &endpoint, screen);
    // Whoever has nothing to look for or to delete at the service needs no key.
    let client = leftovers.iter().any(is_at_service).then(|| client::connect(global)).transpose()?;
    let (leftovers, mut exits) = find(leftovers, client.as_ref(), screen);
    let Some(journal) = journal.as_mut().filter(|_| !leftovers.is_empty()) else {
        if exits.is_empty() {
            screen.note("nothing is left over");
        }
        return Ok(Some(Summary { exit: Exit::of_all(exits), ..Summary::default() }));
    };
    journal::show_with(
        leftovers.iter().map(|leftover| (&leftover.entry, leftover.video_id.as_deref())),
        screen,
    );
    if !args.yes && !confirmed(&leftovers, &endpoint, screen)? {
        screen.note("nothing was deleted");
        return Ok(Some(Summary { exit: Exit::of_all(exits), ..Summary::default() }));
    }
    exits.extend(leftovers.iter().filter_map(|leftover| {
        let removed = remove(journal, leftover, client.as_ref(), screen);
        removed.map_err(|failure| tell_failed(&failure, screen)).err()
    }));
    Ok(Some(Summary { exit: Exit::of_all(exits), ..Summary::default() }))
}

/// An upload with what it left at the service.
struct Leftover {
    entry: Entry,
    /// The video to delete: one that the upload made, named by an answer or found by its mark.
    video_id: Option<String>,
}

/// Whether it left a video at the service, or may have.
fn is_at_service(entry: &Entry) -> bool {
    entry.orphan().is_some() || entry.container.mark().is_some()
}

/// Looks for the videos of ended uploads. What could not be looked for stays for another time.
fn find(entries: Vec<Entry>, client: Option<&Client>, screen: &Screen) -> (Vec<Leftover>, Vec<Exit>) {
    let (mut leftovers, mut exits) = (Vec::new(), Vec::new());
    for entry in entries {
        let video_id = match client {
            Some(client) => client::block_on(to_delete(&entry, client, screen)),
            None => Ok(None),
        };
        match video_id {
            Ok(video_id) => leftovers.push(Leftover { entry, video_id }),
            Err(failure) => exits.push(tell_failed(&failure, screen)),
        }
    }
    (leftovers, exits)
}

/// The video that an upload left unfinished.
async fn to_delete(entry: &Entry, client: &Client, screen: &Screen) -> Result<Option<String>, Failure> {
    let video_id = match (entry.orphan(), entry.container.mark()) {
        (Some(video_id), _) => Some(video_id.to_owned()),
        (None, Some(mark)) => client.marked_video(mark).await?,
        (None, None) => None,
    };
    match video_id {
        // The upload may have ended after its last byte, before it could know, whatever the journal says.
        Some(video_id) if state(entry, client, &video_id).await? == VideoState::Complete => {
            note_complete(&video_id, screen);
            Ok(None)
        }
        video_id => Ok(video_id),
    }
}

/// The state of a video that an ended upload left, by the service's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VideoState {
    Complete,
    Incomplete,
    Gone,
}

/// Asks for the state of a video. A "no such video" is asked about twice: a replica may lag.
async fn state(entry: &Entry, client: &Client, video_id: &str) -> Result<VideoState, Error> {
    let is_unknown = |error: &Error| error.kind() == ErrorKind::NotFound;
    let mut status = client.video_status(video_id).await;
    if status.as_ref().is_err_and(is_unknown) {
        tokio::time::sleep(REPLICA_LAG).await;
        status = client.video_status(video_id).await;
    }
    match status {
        Ok(status) if is_complete(&status, entry.plan) => Ok(VideoState::Complete),
        Ok(_) => Ok(VideoState::Incomplete),
        Err(error) if is_unknown(&error) => Ok(VideoState::Gone),
        Err(error) => Err(error),
    }
}

/// Whether every byte has arrived, put together yet or not.
fn is_complete(status: &VideoStatus, plan: Option<Plan>) -> bool {
    match (status.received(), plan) {
        (Received::Everything, _) => true,
        (Received::Ranges(ranges), Some(plan)) => {
            let len = |range: &ReceivedRange| range.to.saturating_sub(range.from).saturating_add(1);
            ranges.iter().map(len).fold(0, u64::saturating_add) >= plan.len()
        }
        (Received::Parts(parts), Some(plan)) => parts.parts.len() as u64 >= u64::from(plan.chunks()),
        (Received::Nothing | Received::Ranges(_) | Received::Parts(_), _) => false,
    }
}

fn note_complete(video_id: &str, screen: &Screen) {
    screen.note(format_args!("video {video_id}: is complete, and stays"));
}

/// Whether nothing goes on with it; or with `--all`, whether nobody is at it.
fn is_left_over(entry: &Entry, args: &CleanArgs) -> bool {
    match (entry.state, &entry.key.source) {
        (EntryState::Running { .. } | EntryState::OutOfReach, _) => false,
        (EntryState::Abandoned, _) | (EntryState::Interrupted, EntrySource::Stream) => true,
        (EntryState::Interrupted, EntrySource::File { .. }) if args.all => true,
        // A file that is not there may come back: its disk may be mounted elsewhere, or not yet.
        (EntryState::Interrupted, EntrySource::File { path, identity }) => {
            let is_another = |now| compare(identity, &now, true, true) == Comparison::Another;
            SourceFile::open(path).is_ok_and(|file| is_another(SourceIdentity::from(&file)))
        }
    }
}

fn tell_kept(kept: &[Entry], screen: &Screen) {
    let resumable = kept.iter().filter(|entry| entry.is_resumable()).count();
    if resumable > 0 {
        let uploads = counted(resumable, "upload");
        screen.note(format_args!("kept, for `ringlift resume`: {uploads}; --all gives them up, too"));
    }
}

/// A video can be deleted only at the service that has it.
fn only_here(leftovers: Vec<Entry>, endpoint: &str, screen: &Screen) -> Vec<Entry> {
    let is_here = |entry: &Entry| !is_at_service(entry) || entry.is_at(endpoint);
    let (here, elsewhere): (Vec<_>, Vec<_>) = leftovers.into_iter().partition(is_here);
    for entry in &elsewhere {
        let there = &entry.key.endpoint;
        let reason = format!("it is at {there}: name that with --endpoint-url");
        let what = match entry.orphan() {
            Some(video_id) => format!("video {video_id}"),
            None => format!("session {}: its video", entry.id),
        };
        screen.note(format_args!("{what}: not deleted: {reason}"));
        let file = journal::file(entry).map(|file| file.to_string_lossy());
        screen.event(&Event::Skipped { session: entry.id, file: file.as_deref(), reason });
    }
    here
}

fn confirmed(leftovers: &[Leftover], endpoint: &str, screen: &Screen) -> Result<bool, Failure> {
    let videos = leftovers.iter().filter(|leftover| leftover.video_id.is_some()).count();
    let question = format!(
        "delete {} at {endpoint}, and forget {}?",
        counted(videos, "video"),
        counted(leftovers.len(), "upload"),
    );
    screen.confirms(question).ok_or_else(|| {
        Failure::usage("nothing was deleted, as nobody is at the terminal to ask: say --yes to delete it")
    })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Deletes the video unless it is complete, then forgets the upload: a video that could not be deleted, or whose
/// state could not be asked, is not forgotten.
fn remove(
    journal: &mut Journal,
    leftover: &Leftover,
    client: Option<&Client>,
    screen: &Screen,
) -> Result<(), Failure> {
    let entry = &leftover.entry;
    let Some(claimed) = still_left(journal, entry, screen)? else { return Ok(()) };
    match (client, leftover.video_id.as_deref()) {
        (Some(client), Some(video_id)) => {
            let state = client::block_on(async { Ok(state(entry, client, video_id).await) })?;
            // Another host may have gone on with the video since the list was shown.
            match state.map_err(|error| error.with_video_id(video_id))? {
                VideoState::Complete => note_complete(video_id, screen),
                VideoState::Gone => note_gone(video_id, screen),
                VideoState::Incomplete => delete(client, video_id, screen)?,
            }
        }
        _ if entry.may_have_untraced_video() => tell_strayed(entry, screen),
        _ => {}
    }
    journal.forget(claimed).map_err(journal::unreadable)?;
    screen.event(&Event::Forgotten { session: entry.id });
    Ok(())
}

fn delete(client: &Client, video_id: &str, screen: &Screen) -> Result<(), Failure> {
    match client::block_on(async { Ok(client.delete_video(video_id).await) })? {
        Ok(()) => {
            screen.note(format_args!("video {video_id}: deleted"));
            screen.event(&Event::Deleted { video_id: Some(video_id) });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => note_gone(video_id, screen),
        Err(error) => return Err(error.with_video_id(video_id).into()),
    }
    Ok(())
}

fn note_gone(video_id: &str, screen: &Screen) {
    screen.note(format_args!("video {video_id}: was gone already"));
    screen.event(&Event::Deleted { video_id: Some(video_id) });
}

/// No id leads to it and no mark: people have to look.
fn tell_strayed(entry: &Entry, screen: &Screen) {
    let file = journal::file(entry).map(|file| file.to_string_lossy()).unwrap_or_default();
    screen.note(format_args!("{}: {STRAY_VIDEO}", OneLine(&file)));
    screen.event(&Event::StrayVideo { file: &file, advice: STRAY_VIDEO });
}

/// The session, held against others; `None` when it is no longer what was shown.
fn still_left(
    journal: &mut Journal,
    entry: &Entry,
    screen: &Screen,
) -> Result<Option<ClaimedEntry>, Failure> {
    match journal.take(entry.id) {
        Ok(Some(claimed)) if *claimed.container() == entry.container => Ok(Some(claimed)),
        Ok(_) | Err(JournalError::Claimed { .. }) => {
            screen.note(format_args!("session {}: left alone: somebody has gone on with it", entry.id));
            Ok(None)
        }
        Err(error) => Err(journal::unreadable(error)),
    }
}

fn tell_failed(failure: &Failure, screen: &Screen) -> Exit {
    screen.failure(failure);
    screen.event(&Event::Failed { error: ErrorEvent::new(failure) });
    failure.exit()
}

/// Time for a replica of the service to learn of a video that another one has.
const REPLICA_LAG: Duration = Duration::from_secs(2);
