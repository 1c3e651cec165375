//! Videos that the service fetches from a URL, without a byte passing through this machine.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use percent_encoding::percent_decode_str;
use ringlift::api::{IngestStatus, QualityStatus};
use ringlift::{Client, Error, ErrorKind, NewVideo, VideoStatus};
use tokio::time::sleep;

use super::args::GlobalArgs;
use super::client;
use super::console::{Console, UploadRemains};
use super::events::{self, CommandResult, ErrorEvent, JsonEvent, Summary};
use super::exit::{CommandError, Exit};
use super::upload_args::UploadArgs;

/// A video to create from a source that the service fetches or copies.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    /// A URL, or the id of a video to copy.
    pub(super) source: String,
    /// The properties of the video; the source is added to them.
    pub(super) video: NewVideo,
    pub(super) until: WaitUntil,
    /// Longest wait after the creation.
    pub(super) timeout: Duration,
}

/// State of the created video that ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitUntil {
    /// The service has accepted the source.
    Accepted,
    /// The service has received and inspected the content.
    Ingested,
    /// The first rendition is ready.
    Playable,
}

/// Returns `true` for a file of the command line that is an http or https URL.
pub(super) fn is_url(file: &OsStr) -> bool {
    let scheme = file.to_str().and_then(|text| text.split_once("://"));
    scheme.is_some_and(|(scheme, _)| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

/// Returns the title of a video from a URL: the last step of its path, else its host.
pub(super) fn title_of(url: &str) -> String {
    let (path, _) = url.split_once(['?', '#']).unwrap_or((url, ""));
    let steps = path.split_once("://").map_or(path, |(_, rest)| rest);
    let (host, steps) = steps.split_once('/').unwrap_or((steps, ""));
    let last = steps.rsplit('/').find(|step| !step.is_empty());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    percent_decode_str(last.unwrap_or(host)).decode_utf8_lossy().into_owned()
}

/// Returns the URL without user, password and query, which may contain secrets.
fn shown(source: &str) -> String {
    let (path, query) = source.split_once(['?', '#']).map_or((source, ""), |(path, _)| (path, "?..."));
    let without_user = match path.split_once("://") {
        Some((scheme, rest)) => {
            let (host, steps) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{steps}")
        }
        None => path.to_owned(),
    };
    without_user + query
}

/// Lets the service fetch the URLs of `ringlift upload`. Returns `None` if the files are not URLs.
pub(super) fn urls(args: &UploadArgs, global: &GlobalArgs, console: &Console) -> Option<CommandResult> {
    let is_url = |file: &PathBuf| is_url(file.as_os_str());
    if !args.files.iter().any(is_url) {
        return None;
    }
    Some(if args.files.iter().all(is_url) {
        fetch_urls(args, global, console)
    } else {
        Err(CommandError::usage("files and URLs cannot be mixed: use one command for each"))
    })
}

fn fetch_urls(args: &UploadArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let until = if args.after.wait.is_some() { WaitUntil::Playable } else { WaitUntil::Ingested };
    let fetches: Vec<Fetch> = args
        .files
        .iter()
        .map(|url| {
            let source = url.to_string_lossy().into_owned();
            let mut video = args.description.video();
            if video.title.is_empty() {
                video.title = title_of(&source);
            }
            Fetch { source, video, until, timeout: args.after.wait_timeout }
        })
        .collect();
    if args.dry_run {
        for fetch in &fetches {
            console.result(format_args!("{}: fetched by the service", shown(&fetch.source)));
        }
        return Ok(Some(Summary::default()));
    }
    let client = client::connect(global)?;
    let transfers = usize::from(args.transfer.lanes.transfers);
    client::block_on(run(&client, &fetches, transfers, console)).map(Some)
}

/// Creates the videos and waits for them, `transfers` at a time. A failure does not end the others.
pub(super) async fn run(
    client: &Client,
    fetches: &[Fetch],
    transfers: usize,
    console: &Console,
) -> Result<Summary, CommandError> {
    let jobs = stream::iter(fetches).map(|fetch| async move { one(client, fetch, console).await });
    let ends: Vec<Result<String, CommandError>> = jobs.buffered(transfers.max(1)).collect().await;
    let files_done = ends.iter().filter(|end| end.is_ok()).count();
    let video_id = match ends.as_slice() {
        [Ok(video_id)] => Some(video_id.clone()),
        _ => None,
    };
    let exit = Exit::of_all(ends.iter().filter_map(|end| end.as_ref().err()).map(CommandError::exit));
    Ok(Summary { exit, video_id, files_done, files_failed: ends.len() - files_done, ..Summary::default() })
}

/// Creates one video, waits for it and reports the result. Returns its id.
async fn one(client: &Client, fetch: &Fetch, console: &Console) -> Result<String, CommandError> {
    let (file, started) = (shown(&fetch.source), Instant::now());
    let ended = create_and_wait(client, fetch, &file, console).await;
    let elapsed_ms = events::millis(started.elapsed());
    match &ended {
        Ok(video_id) => {
            console.emit(&JsonEvent::Fetched { file: &file, video_id, elapsed_ms });
            console.result(video_id);
        }
        Err(failure) => {
            let error = ErrorEvent::new(failure);
            console.emit(&JsonEvent::FileFailed { file: &file, elapsed_ms, resumable: false, error });
            console.print_file_error(&file, failure, UploadRemains::Nothing);
        }
    }
    ended
}

async fn create_and_wait(
    client: &Client,
    fetch: &Fetch,
    file: &str,
    console: &Console,
) -> Result<String, CommandError> {
    let video = client.create_video(fetch.video.clone().source(&fetch.source)).await?;
    let video_id = video.video_id;
    console.emit(&JsonEvent::Created { file, video_id: &video_id });
    if fetch.until != WaitUntil::Accepted {
        console.note(format_args!("{file}: the service is fetching it into video {video_id}"));
        wait(client, &video_id, fetch).await.map_err(|error| error.with_video_id(&video_id))?;
    }
    Ok(video_id)
}

/// Polls the status at growing intervals, until the video is in the requested state or has failed.
async fn wait(client: &Client, video_id: &str, fetch: &Fetch) -> Result<(), Error> {
    let started = Instant::now();
    let doing = || format!("wait for the service to fetch {}", shown(&fetch.source));
    let mut pause = FIRST_PAUSE;
    loop {
        match client.video_status(video_id).await {
            Ok(status) => match progress(&status, fetch.until) {
                FetchProgress::Reached => return Ok(()),
                FetchProgress::Failed(why) => {
                    let error = Error::new(ErrorKind::Refused, doing()).because(why);
                    return Err(error.with_advice("check that the URL is public and leads to a video file"));
                }
                FetchProgress::Pending => {}
            },
            // A replica that lags behind the creation does not know the video yet.
            Err(error) if error.kind() == ErrorKind::NotFound && started.elapsed() < REPLICA_LAG => {}
            Err(error) if error.is_from_intermediary() && error.kind() == ErrorKind::Refused => {}
            Err(error) => return Err(error),
        }
        let left = fetch.timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            let waited = humantime::format_duration(fetch.timeout);
            let error = Error::new(ErrorKind::Stalled, doing())
                .because(format!("the service has not finished after {waited}"));
            return Err(error.with_advice(LATER));
        }
        sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// State of a fetch according to the service.
#[derive(Debug, PartialEq, Eq)]
enum FetchProgress {
    Pending,
    Reached,
    Failed(String),
}

fn progress(status: &VideoStatus, until: WaitUntil) -> FetchProgress {
    let ingest = status.ingest.as_ref().and_then(|ingest| ingest.status.as_ref());
    let qualities = status.encoding.as_ref().map_or(&[][..], |encoding| &encoding.qualities);
    let all_failed = !qualities.is_empty()
        && qualities.iter().all(|quality| quality.status == Some(QualityStatus::Failed));
    match ingest {
        _ if status.is_playable() => FetchProgress::Reached,
        // The documented states have no failure. A service that reports one uses a word that contains it.
        Some(IngestStatus::Unknown(word))
            if ["fail", "error"].iter().any(|bad| word.to_lowercase().contains(bad)) =>
        {
            FetchProgress::Failed(format!("the service reports the ingest status `{word}`"))
        }
        _ if all_failed => FetchProgress::Failed("every rendition failed to encode".to_owned()),
        Some(IngestStatus::Ingested) if until == WaitUntil::Ingested => FetchProgress::Reached,
        _ => FetchProgress::Pending,
    }
}

const LATER: &str =
    "`ringlift status` with the video's id shows the progress; --wait-timeout extends the wait";
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bounds the requests that polling takes from the account's limit.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time for a replica of the service to learn of a new video.
const REPLICA_LAG: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_http_urls_are_urls() {
        for url in ["http://a/b.mp4", "HTTPS://a"] {
            assert!(is_url(OsStr::new(url)), "{url}");
        }
        for file in ["a.mp4", "-", "./http://a", "ftp://a/b", "http:/a", "https"] {
            assert!(!is_url(OsStr::new(file)), "{file}");
        }
    }

    #[test]
    fn the_title_is_the_last_step_of_the_path() {
        for (url, title) in [
            ("https://a.example/films/summer%20sun.mp4?sig=1#t", "summer sun.mp4"),
            ("https://a.example/films/", "films"),
            ("https://me:secret@a.example", "a.example"),
            ("vi4k0jvEUuaTdRAEjQ4Jfrgz", "vi4k0jvEUuaTdRAEjQ4Jfrgz"),
        ] {
            assert_eq!(title_of(url), title);
        }
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(shown("https://me:secret@a/b.mp4?token=x"), "https://a/b.mp4?...");
        assert_eq!(shown("https://a/b@c.mp4"), "https://a/b@c.mp4");
        assert_eq!(shown("vi1"), "vi1");
    }

    #[test]
    fn the_wait_ends_in_the_requested_state_or_with_a_failure() {
        let progress = |status: Value, until| progress(&serde_json::from_value(status).unwrap(), until);
        let ingest = |word: &str| json!({"ingest": {"status": word}});
        assert_eq!(progress(json!({}), WaitUntil::Ingested), FetchProgress::Pending);
        assert_eq!(progress(ingest("ingesting"), WaitUntil::Ingested), FetchProgress::Pending);
        assert_eq!(progress(ingest("ingested"), WaitUntil::Ingested), FetchProgress::Reached);
        assert_eq!(progress(ingest("ingested"), WaitUntil::Playable), FetchProgress::Pending);
        assert!(matches!(progress(ingest("failed"), WaitUntil::Ingested), FetchProgress::Failed(_)));
        assert!(matches!(progress(ingest("ingestError"), WaitUntil::Playable), FetchProgress::Failed(_)));
        let encoding = |playable: bool, status: &str| json!({"encoding": {"playable": playable, "qualities": [{"quality": "720p", "status": status}]}});
        assert_eq!(progress(encoding(true, "encoded"), WaitUntil::Playable), FetchProgress::Reached);
        assert!(matches!(progress(encoding(false, "failed"), WaitUntil::Playable), FetchProgress::Failed(_)));
    }
}
