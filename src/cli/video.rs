//! `ringlift video`: creates, lists, shows, changes and deletes videos of the account.

use std::collections::HashSet;

use ringlift::{Client, FetchedState, OneLine, Video, VideoPatch, VideoQuery};

use super::args::GlobalArgs;
use super::client;
use super::console::Console;
use super::events::{CommandEvent, CommandResult, ListEnd, Summary, error_event};
use super::exit::{CommandError, Exit};
use super::fetch::{self, Fetch};
use super::table::{Align, Table};
use super::video_args::{VideoCommand, VideoCreateArgs, VideoListArgs, VideoUpdateArgs};

pub(super) fn run(command: &VideoCommand, global: &GlobalArgs, console: &Console) -> CommandResult {
    // Checked before the API key, because these need no service.
    let patch = match command {
        VideoCommand::Update(args) => Some(patch(args)?),
        _ => None,
    };
    if let VideoCommand::Delete { video_id, yes: false } = command
        && !confirmed(video_id, console)?
    {
        console.note("nothing was deleted");
        return Ok(Some(Summary::default()));
    }
    let client = client::connect(global)?;
    let work = async {
        match command {
            VideoCommand::Create(args) => create(&client, args, console).await,
            VideoCommand::List(args) => list(&client, args, console).await,
            VideoCommand::Get { video_id } => get(&client, video_id, console).await,
            VideoCommand::Update(args) => {
                update(&client, &args.video_id, patch.unwrap_or_default(), console).await
            }
            VideoCommand::Delete { video_id, .. } => delete(&client, video_id, console).await,
        }
    };
    client::block_on(work).map(Some)
}

async fn create(client: &Client, args: &VideoCreateArgs, console: &Console) -> Result<Summary, CommandError> {
    let mut video = args.description.video();
    let Some(source) = &args.source else {
        if video.title.is_empty() {
            return Err(CommandError::usage("a new video needs a title: give one with --title"));
        }
        let video = client.create_video(video).await?;
        console.emit(&CommandEvent::Video { video: &video });
        console.result(&video.video_id);
        return Ok(Summary::of_video(video.video_id));
    };
    if video.title.is_empty() {
        video.title = fetch::title_of(source);
    }
    let until = match (args.no_wait, args.wait) {
        (true, _) => None,
        (false, None) => Some(FetchedState::Ingested),
        (false, Some(_)) => Some(FetchedState::Playable),
    };
    let fetch = Fetch { source: source.clone(), video, until, timeout: args.wait_timeout };
    fetch::run(client, &[fetch], 1, console).await
}

async fn list(client: &Client, args: &VideoListArgs, console: &Console) -> Result<Summary, CommandError> {
    let is_paged = !args.all && args.limit.is_none();
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut query = query(args);
    if !is_paged {
        // Whole pages take the fewest requests from the account's budget.
        query.current_page = Some(1);
        query.page_size = Some(LARGEST_PAGE);
    }
    let mut table = Table::new([("VIDEO", Align::Left), ("CREATED", Align::Left), ("TITLE", Align::Text)]);
    let (mut listed, mut end) = (HashSet::new(), ListEnd::default());
    for _ in 0..MOST_PAGES {
        let (page, listed_before) = (client.videos(query.clone()).await?, listed.len());
        end = ListEnd { next_page: page.next_page(), items_total: page.pagination.items_total, ..end };
        for video in &page.data {
            if listed.len() as u64 >= limit {
                end.more = true;
                break;
            }
            // A video that is created meanwhile shifts the others onto the next page, where they appear again.
            if listed.insert(video.video_id.clone()) {
                console.emit(&CommandEvent::Video { video });
                table.row(row(video));
            }
        }
        // A service that ignores the number of the page repeats the same videos for ever.
        let has_news = listed.len() > listed_before || page.unreadable > 0;
        let is_end = is_paged || end.more || !has_news;
        match end.next_page {
            // A reader such as head(1) has seen enough.
            Some(next) if !is_end && console.output().has_reader() => query.current_page = Some(next),
            _ => break,
        }
    }
    end.more |= end.next_page.is_some();
    end.listed = listed.len() as u64;
    console.result(table);
    console.emit(&CommandEvent::ListEnd(end));
    if let (Some(next), true) = (end.next_page, is_paged) {
        console.note(format_args!("more with --page {next}, or --all"));
    }
    Ok(Summary::default())
}

fn query(args: &VideoListArgs) -> VideoQuery {
    let mut query = VideoQuery::new();
    query.title = args.title.clone();
    query.description = args.description.clone();
    query.tags = args.tag.clone();
    query.metadata = args.metadata.clone();
    (query.sort_by, query.sort_order) = args.sort_by.unzip();
    query.current_page = Some(args.page.page.into());
    query.page_size = Some(args.page.page_size.into());
    query
}

fn row(video: &Video) -> [String; 3] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [video.video_id.clone(), or_dash(&video.created_at), or_dash(&video.title)]
}

async fn get(client: &Client, video_id: &str, console: &Console) -> Result<Summary, CommandError> {
    show(client.video(video_id).await?, console)
}

fn show(video: Video, console: &Console) -> Result<Summary, CommandError> {
    console.emit(&CommandEvent::Video { video: &video });
    console.result(describe(&video));
    Ok(Summary::of_video(video.video_id))
}

/// Returns the changes, or a usage error if there are none.
fn patch(args: &VideoUpdateArgs) -> Result<VideoPatch, CommandError> {
    let patch = args.patch();
    if patch == VideoPatch::new() {
        return Err(CommandError::usage("nothing to change: give a flag such as --title or --tag"));
    }
    Ok(patch)
}

async fn update(
    client: &Client,
    video_id: &str,
    patch: VideoPatch,
    console: &Console,
) -> Result<Summary, CommandError> {
    show(client.update_video(video_id, patch).await?, console)
}

/// Asks for the confirmation of a deletion, which is final.
fn confirmed(video_ids: &[String], console: &Console) -> Result<bool, CommandError> {
    let question = match video_ids {
        [only] => format!("delete video {only} and its content?"),
        several => format!("delete {} videos and their content?", several.len()),
    };
    console.confirm(question).ok_or_else(|| {
        CommandError::usage(
            "nothing was deleted, because there is no terminal for the confirmation: use --yes to delete",
        )
    })
}

/// Deletes each video, also after a failure.
async fn delete(client: &Client, video_ids: &[String], console: &Console) -> Result<Summary, CommandError> {
    let mut exits = Vec::new();
    for video_id in video_ids {
        match client.delete_video(video_id).await.map_err(CommandError::from) {
            Ok(()) => {
                console.emit(&CommandEvent::Deleted { video_id: Some(video_id) });
                console.note(format_args!("{video_id}: deleted"));
            }
            Err(failure) => {
                console.print_error(&failure);
                console.emit(&CommandEvent::Failed { error: error_event(&failure) });
                exits.push(failure.exit());
            }
        }
    }
    Ok(Summary::from(Exit::of_all(exits)))
}

fn describe(video: &Video) -> String {
    let metadata = video.metadata.iter().map(|pair| format!("{}={}", pair.key, pair.value));
    let assets = video.assets.clone().unwrap_or_default();
    let yes = |flag: Option<bool>| flag.map(|flag| if flag { "yes" } else { "no" }.to_owned());
    let lines = [
        ("video", Some(video.video_id.clone())),
        ("title", video.title.clone()),
        ("description", video.description.clone()),
        ("created", video.created_at.clone()),
        ("published", video.published_at.clone()),
        ("public", yes(video.public)),
        ("tags", (!video.tags.is_empty()).then(|| video.tags.join(", "))),
        ("metadata", (!video.metadata.is_empty()).then(|| metadata.collect::<Vec<_>>().join(", "))),
        ("player", assets.player),
        ("hls", assets.hls),
        ("mp4", assets.mp4),
    ];
    let shown = lines.into_iter().filter_map(|(name, text)| Some(format!("{name:<12} {}", OneLine(&text?))));
    shown.collect::<Vec<_>>().join("\n")
}

/// The service's largest page.
const LARGEST_PAGE: u64 = 100;

/// Bounds a list whose pages never end. Exceeds every account's videos.
const MOST_PAGES: usize = 100_000;
