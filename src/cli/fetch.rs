//! Videos that the service fetches from a URL, without a byte passing through this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use percent_encoding::percent_decode_str;
use ringlift::bulk::event::millis;
use ringlift::bulk::{JsonEvent, RunSummary};
use ringlift::{Client, FetchedState, NewVideo};

use super::args::GlobalArgs;
use super::client;
use super::console::{Console, UploadRemains};
use super::events::{CommandEvent, CommandResult, Summary, error_event};
use super::exit::{CommandError, Exit};
use super::upload::VideoTemplates;
use super::upload_args::UploadArgs;

/// A video to create from a source that the service fetches or copies.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    /// A URL, or the id of a video to copy.
    pub(super) source: String,
    /// The properties of the video; the source is added to them.
    pub(super) video: NewVideo,
    /// State that ends the wait; `None` if the service has only to accept the source.
    pub(super) until: Option<FetchedState>,
    /// Longest wait after the creation.
    pub(super) timeout: Duration,
}

/// Returns `true` for a file of the command line that is an http or https URL.
pub(super) fn is_url(file: &OsStr) -> bool {
    let scheme = file.to_str().and_then(|text| text.split_once("://"));
    // RFC 3986, section 3.1: schemes have no case.
    scheme.is_some_and(|(scheme, _)| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

/// Returns the title of a video from a URL: the last step of its path, else its host.
pub(super) fn title_of(url: &str) -> String {
    let (path, _) = url.split_once(['?', '#']).unwrap_or((url, ""));
    let steps = path.split_once("://").map_or(path, |(_, rest)| rest);
    let (host, steps) = steps.split_once('/').unwrap_or((steps, ""));
    let last = steps.rsplit('/').find(|step| !step.is_empty());
    // A title must not show a password.
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    percent_decode_str(last.unwrap_or(host)).decode_utf8_lossy().into_owned()
}

/// Returns the URL without user, password and query, which may contain secrets. An omitted query is shown as such.
fn shown(source: &str) -> String {
    let query = if source.contains(['?', '#']) { "?..." } else { "" };
    plain(source) + query
}

/// Returns the URL without user, password, query and fragment.
fn plain(source: &str) -> String {
    let path = source.split(['?', '#']).next().unwrap_or_default();
    match path.split_once("://") {
        Some((scheme, rest)) => {
            let (host, steps) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{steps}")
        }
        None => path.to_owned(),
    }
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
    let fetches = fetches(args)?;
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

/// Returns the fetches of the URLs of the command line.
fn fetches(args: &UploadArgs) -> Result<Vec<Fetch>, CommandError> {
    let until = Some(if args.after.wait.is_some() { FetchedState::Playable } else { FetchedState::Ingested });
    let templates = VideoTemplates::of(&args.description)?;
    let fetches = args.files.iter().enumerate().map(|(index, url)| {
        let source = url.to_string_lossy().into_owned();
        let path = plain(&source);
        let path = percent_decode_str(&path).decode_utf8_lossy();
        let mut video = templates.video(Path::new(path.as_ref()), index);
        if video.title.is_empty() {
            video.title = title_of(&source);
        }
        Fetch { source, video, until, timeout: args.after.wait_timeout }
    });
    Ok(fetches.collect())
}

/// Creates the videos and waits for them, `transfers` at a time. A failure does not end the others.
pub(super) async fn run(
    client: &Client,
    fetches: &[Fetch],
    transfers: usize,
    console: &Console,
) -> Result<Summary, CommandError> {
    let jobs = stream::iter(fetches).map(|fetch| async move { one(client, fetch, console).await });
    // Unordered, so that a slow fetch keeps no place that another could take. With 0 places nothing would start.
    let ends: Vec<Result<String, CommandError>> = jobs.buffer_unordered(transfers.max(1)).collect().await;
    let files_done = ends.iter().filter(|end| end.is_ok()).count();
    let video_id = match ends.as_slice() {
        [Ok(video_id)] => Some(video_id.clone()),
        _ => None,
    };
    let exit = Exit::of_all(ends.iter().filter_map(|end| end.as_ref().err()).map(CommandError::exit));
    let files_failed = ends.len() - files_done;
    let totals = RunSummary { video_id, files_done, files_failed, ..RunSummary::default() };
    Ok(Summary { exit, totals, ..Summary::default() })
}

/// Creates one video, waits for it and reports the result. Returns its id.
async fn one(client: &Client, fetch: &Fetch, console: &Console) -> Result<String, CommandError> {
    let (file, started) = (shown(&fetch.source), Instant::now());
    let ended = create_and_wait(client, fetch, &file, console).await;
    let elapsed_ms = millis(started.elapsed());
    match &ended {
        Ok(video_id) => {
            console.emit(&CommandEvent::Fetched { file: &file, video_id, elapsed_ms });
            console.result(video_id);
        }
        Err(failure) => {
            let error = error_event(failure);
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
    // Before the wait: the id is known even if the command is killed meanwhile.
    console.emit(&JsonEvent::Created { file, video_id: &video_id });
    if let Some(state) = fetch.until {
        console.note(format_args!("{file}: the service is fetching it into video {video_id}"));
        client.wait_until_fetched(&video_id, state, fetch.timeout).await?;
    }
    Ok(video_id)
}

#[cfg(test)]
mod tests {
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
    fn a_template_sees_a_url_without_secrets() {
        let url = "https://me:secret@a.example/films/b.mp4?sig=1#t";
        assert_eq!(plain(url), "https://a.example/films/b.mp4");
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(shown("https://me:secret@a/b.mp4?token=x"), "https://a/b.mp4?...");
        assert_eq!(shown("https://a/b@c.mp4"), "https://a/b@c.mp4");
        assert_eq!(shown("vi1"), "vi1");
    }
}
