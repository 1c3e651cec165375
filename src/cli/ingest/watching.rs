//! The start of a watch.

use ringlift::bulk::{AfterAction, Watch, WatchError, WatchOptions};

use super::setup;
use crate::cli::events::wall_clock;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::ingest_args::IngestArgs;
use crate::cli::queue::QueuePlace;

/// Starts the watch on the sources, with a lock beside the queue.
pub(super) fn start(
    args: &IngestArgs,
    after: &AfterAction,
    queue: &QueuePlace,
) -> Result<Watch, CommandError> {
    let mut options = WatchOptions::default();
    options.settle = args.watch.settle;
    options.done_suffix.clone_from(&args.watch.done_suffix);
    options.rescan = args.watch.rescan;
    options.walk = setup::walk_options(&args.inputs, after)?;
    options.clock = Some(wall_clock);
    options.lock_beside = queue.lock_place();
    Watch::start(&args.inputs.sources, options).map_err(|error| match &error {
        // The other watch may end: the same command can succeed later.
        WatchError::Locked { .. } => CommandError::Other(Exit::Temporary, error.to_string()),
        WatchError::Folder { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            CommandError::Other(Exit::NoSuchFile, error.to_string())
        }
        WatchError::NoFolder
        | WatchError::NotAFolder { .. }
        | WatchError::Nested { .. }
        | WatchError::DoneSuffix => CommandError::usage(error.to_string()),
        _ => CommandError::Other(Exit::Failed, error.to_string()),
    })
}
