//! `ringlift clean`: removes what ended uploads left behind, at the service and in the journal.

use ringlift::source::SourceFile;
use ringlift::upload::journal::{Entry, Identity, Journal, JournalError, Source, Standing, Ticket};
use ringlift::{Client, ErrorKind};

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
    let Some(journal) = journal.as_mut().filter(|_| !leftovers.is_empty()) else {
        screen.note("nothing is left over");
        return Ok(Some(Summary::default()));
    };
    journal::show(&leftovers, screen);
    if !args.yes && !confirmed(&leftovers, &endpoint, screen)? {
        screen.note("nothing was deleted");
        return Ok(Some(Summary::default()));
    }
    // Whoever has nothing to delete at the service needs no key.
    let needs_client = leftovers.iter().any(|entry| entry.orphan().is_some());
    let client = needs_client.then(|| client::connect(global)).transpose()?;
    let exits = leftovers.into_iter().filter_map(|entry| {
        let removed = remove(journal, &entry, client.as_ref(), screen);
        removed.map_err(|failure| tell_failed(&failure, screen)).err()
    });
    Ok(Some(Summary { exit: Exit::of_all(exits), ..Summary::default() }))
}

/// Whether nothing goes on with it; or with `--all`, whether nobody is at it.
fn is_left_over(entry: &Entry, args: &CleanArgs) -> bool {
    match (entry.standing, &entry.key.source) {
        (Standing::Running { .. }, _) => false,
        (Standing::Abandoned, _) | (Standing::Left, Source::Stream) => true,
        (Standing::Left, Source::File { .. }) if args.all => true,
        // A file that is not there may come back: its disk may be mounted elsewhere, or not yet.
        (Standing::Left, Source::File { path, identity }) => {
            SourceFile::open(path).is_ok_and(|file| !Identity::from(file.identity()).has_same_bytes(identity))
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
    let is_here = |entry: &Entry| entry.orphan().is_none() || entry.key.endpoint == endpoint;
    let (here, elsewhere): (Vec<_>, Vec<_>) = leftovers.into_iter().partition(is_here);
    for entry in &elsewhere {
        let (video_id, there) = (entry.orphan().unwrap_or_default(), &entry.key.endpoint);
        let reason = format!("it is at {there}: name that with --endpoint-url");
        screen.note(format_args!("video {video_id}: not deleted: {reason}"));
        let file = journal::file(entry).map(|file| file.to_string_lossy());
        screen.event(&Event::Skipped { session: entry.id, file: file.as_deref(), reason });
    }
    here
}

fn confirmed(leftovers: &[Entry], endpoint: &str, screen: &Screen) -> Result<bool, Failure> {
    let videos = leftovers.iter().filter(|entry| entry.orphan().is_some()).count();
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

/// Deletes the video and then forgets the upload, in that order: what could not be deleted is not forgotten.
fn remove(
    journal: &mut Journal,
    entry: &Entry,
    client: Option<&Client>,
    screen: &Screen,
) -> Result<(), Failure> {
    let Some(ticket) = still_left(journal, entry, screen)? else { return Ok(()) };
    if let (Some(client), Some(video_id)) = (client, ticket.container().ours()) {
        match client::block_on(async { Ok(client.delete_video(video_id).await) })? {
            Ok(()) => screen.note(format_args!("video {video_id}: deleted")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                screen.note(format_args!("video {video_id}: was gone already"));
            }
            Err(error) => return Err(error.with_video_id(video_id).into()),
        }
        screen.event(&Event::Deleted { video_id: Some(video_id) });
    }
    journal.forget(ticket).map_err(journal::unreadable)?;
    screen.event(&Event::Forgotten { session: entry.id });
    Ok(())
}

/// The session, held against others; `None` when it is no longer what was shown.
fn still_left(journal: &mut Journal, entry: &Entry, screen: &Screen) -> Result<Option<Ticket>, Failure> {
    match journal.take(entry.id) {
        Ok(Some(ticket)) if *ticket.container() == entry.container => Ok(Some(ticket)),
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
