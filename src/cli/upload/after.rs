//! Checks after an upload: `--verify` and `--wait`.

use ringlift::{Client, Uploaded};

use crate::cli::console::Console;
use crate::cli::exit::CommandError;
use crate::cli::upload_args::{AfterArgs, Until};
use crate::cli::values::Size;

/// Verifies the size and waits for a playable video, as the flags request.
pub(super) async fn verify_and_wait(
    client: &Client,
    uploaded: &Uploaded,
    args: &AfterArgs,
    console: &Console,
) -> Result<(), CommandError> {
    if args.verify {
        client.verify(uploaded, args.wait_timeout).await?;
    }
    if let Some(Until::Playable) = args.wait {
        let Uploaded { video_id, bytes, .. } = uploaded;
        console.note(format_args!("{video_id}: {} uploaded; waiting for the first rendition", Size(*bytes)));
        client.wait_until_playable(video_id, args.wait_timeout).await?;
    }
    Ok(())
}
