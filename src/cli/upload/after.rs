//! Checks after an upload: `--verify` and `--wait`.

use std::time::{Duration, Instant};

use ringlift::api::QualityStatus;
use ringlift::{Client, Error, ErrorKind, Uploaded, VideoStatus};
use tokio::time::sleep;

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
    let video_id = &uploaded.video_id;
    if args.verify {
        let ingested =
            ask_until(client, video_id, args, "compare the ingested bytes", ingested_bytes).await?;
        if ingested != uploaded.bytes {
            let reason = format!("{} bytes were sent, but the service has {ingested}", uploaded.bytes);
            return Err(failed(ErrorKind::Mismatch, "compare the ingested bytes", reason, video_id));
        }
    }
    match args.wait {
        Some(Until::Playable) => {
            console.note(format_args!(
                "{video_id}: {} uploaded; waiting for the first rendition",
                Size(uploaded.bytes)
            ));
            let playable = ask_until(client, video_id, args, WAITING, playable).await?;
            match playable {
                Playable::Yes => Ok(()),
                Playable::Never => {
                    let reason = "every rendition failed to encode: the file may not be a video".to_owned();
                    Err(failed(ErrorKind::Mismatch, WAITING, reason, video_id))
                }
            }
        }
        None => Ok(()),
    }
}

enum Playable {
    Yes,
    Never,
}

fn ingested_bytes(status: &VideoStatus) -> Option<u64> {
    status.ingest.as_ref()?.filesize
}

/// Returns `None` while the video may still become playable.
fn playable(status: &VideoStatus) -> Option<Playable> {
    if status.is_playable() {
        return Some(Playable::Yes);
    }
    let qualities = &status.encoding.as_ref()?.qualities;
    let failed = |quality: &ringlift::api::Quality| quality.status == Some(QualityStatus::Failed);
    (!qualities.is_empty() && qualities.iter().all(failed)).then_some(Playable::Never)
}

/// Polls the status at growing intervals until `answer` returns `Some`.
async fn ask_until<T>(
    client: &Client,
    video_id: &str,
    args: &AfterArgs,
    doing: &str,
    answer: impl Fn(&VideoStatus) -> Option<T>,
) -> Result<T, CommandError> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match client.video_status(video_id).await {
            Ok(status) => {
                if let Some(found) = answer(&status) {
                    return Ok(found);
                }
            }
            // The upload is complete: an error of a gateway or a lagging replica does not question that.
            Err(error) if is_passing(&error, started.elapsed()) => {}
            Err(error) => return Err(error.with_video_id(video_id).into()),
        }
        if started.elapsed() >= args.wait_timeout {
            let waited = humantime::format_duration(args.wait_timeout);
            let reason = format!("the file is uploaded, but the service has not finished after {waited}");
            let error = Error::new(ErrorKind::Stalled, doing).because(reason).with_video_id(video_id);
            return Err(error.with_advice(LATER).into());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns `true` if a later request may succeed, `waited` after the first one.
fn is_passing(error: &Error, waited: Duration) -> bool {
    let is_unknown = error.kind() == ErrorKind::NotFound && waited < REPLICA_LAG;
    is_unknown || error.is_from_intermediary() && error.kind() == ErrorKind::Refused
}

fn failed(kind: ErrorKind, doing: &str, reason: String, video_id: &str) -> CommandError {
    CommandError::Library(Error::new(kind, doing).because(reason).with_video_id(video_id))
}

const LATER: &str = "do not upload the file again: `ringlift status` with the video's id shows its progress, and \
     --wait-timeout extends the wait";
const WAITING: &str = "wait for the video to be playable";
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bounds the requests that polling takes from the account's limit.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time for a replica of the service to learn of a new video.
const REPLICA_LAG: Duration = Duration::from_secs(10);
