//! The videos that interrupted measurements have left at the service, and their temporary directories.

use std::path::Path;

use ringlift::tune::tuned_videos;
use ringlift::{Error, ErrorKind};

use super::workplace;
use crate::cli::args::GlobalArgs;
use crate::cli::client;
use crate::cli::console::Console;
use crate::cli::events::{CommandEvent, CommandResult, Summary, error_event};
use crate::cli::exit::{CommandError, Exit};

/// Deletes the videos, after a confirmation unless `is_confirmed`. Removes the directories in `data` and in the
/// directory for temporary files without one, because they hold only samples and the data of a server that has ended.
pub(in crate::cli) fn clean(
    is_confirmed: bool,
    data: Option<&Path>,
    global: &GlobalArgs,
    console: &Console,
) -> CommandResult {
    let removed = data.map(|data| workplace::remove_abandoned(Some(data))).unwrap_or_default();
    for path in removed.into_iter().chain(workplace::remove_abandoned(None)) {
        console.note(format_args!("removed {}", path.display()));
    }
    let client = client::connect(global)?;
    let ids = client::block_on(async { Ok(tuned_videos(&client).await?) })?;
    if ids.is_empty() {
        console.note("nothing to clean");
        return Ok(Some(Summary::from(Exit::Done)));
    }
    let endpoint = client::client_settings(global).endpoint_url;
    let count = if ids.len() == 1 { "1 video".to_owned() } else { format!("{} videos", ids.len()) };
    let question = format!("delete {count} of measurements at {endpoint}?");
    let confirmed = if is_confirmed { Some(true) } else { console.confirm(question) };
    match confirmed {
        Some(true) => {}
        Some(false) => {
            console.note("nothing was deleted");
            return Ok(Some(Summary::from(Exit::Done)));
        }
        None => {
            return Err(CommandError::usage(
                "nothing was deleted, because there is no terminal for the confirmation: use --yes to delete",
            ));
        }
    }
    let mut exits = Vec::new();
    for id in &ids {
        let deleted = client::block_on(async { Ok(client.delete_video(id).await) })?;
        exits.push(report(id, deleted, console));
    }
    Ok(Some(Summary::from(Exit::of_all(exits))))
}

fn report(id: &str, deleted: Result<(), Error>, console: &Console) -> Exit {
    match deleted {
        // Not found: deleted by an earlier attempt whose answer was lost, or by another command.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let failure = CommandError::from(error);
            console.print_error(&failure);
            console.emit(&CommandEvent::Failed { error: error_event(&failure) });
            failure.exit()
        }
        _ => {
            console.note(format_args!("video {id}: deleted"));
            console.emit(&CommandEvent::Deleted { video_id: Some(id) });
            Exit::Done
        }
    }
}
