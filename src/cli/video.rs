//! `ringlift video`: lists, shows and deletes videos of the account.

use ringlift::error::OneLine;
use ringlift::{Client, Video, VideoQuery};

use super::args::{GlobalArgs, VideoCommand, VideoListArgs};
use super::client;
use super::console::Console;
use super::events::{CommandEvent, CommandResult, Summary};
use super::exit::{CommandError, Exit};
use super::table::{Align, Table};

pub(super) fn run(command: &VideoCommand, global: &GlobalArgs, console: &Console) -> CommandResult {
    let client = client::connect(global)?;
    let work = async {
        match command {
            VideoCommand::List(args) => list(&client, args, console).await,
            VideoCommand::Get { video_id } => get(&client, video_id, console).await,
            VideoCommand::Delete { video_id } => delete(&client, video_id, console).await,
        }
    };
    client::block_on(work).map(Some)
}

async fn list(client: &Client, args: &VideoListArgs, console: &Console) -> Result<Summary, CommandError> {
    let mut query = VideoQuery::new();
    query.title = args.title.clone();
    query.tags = args.tag.clone();
    query.metadata = args.metadata.clone();
    query.current_page = Some(args.page.page.into());
    query.page_size = Some(args.page.page_size.into());
    let page = client.videos(query).await?;
    let mut table = Table::new([("VIDEO", Align::Left), ("CREATED", Align::Left), ("TITLE", Align::Left)]);
    for video in &page.data {
        console.emit(&CommandEvent::Video { video });
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row([video.video_id.clone(), or_dash(&video.created_at), or_dash(&video.title)]);
    }
    console.result(table);
    if let Some(next) = page.next_page() {
        console.note(format_args!("more with --page {next}"));
    }
    Ok(Summary::default())
}

async fn get(client: &Client, video_id: &str, console: &Console) -> Result<Summary, CommandError> {
    let video = client.video(video_id).await?;
    console.emit(&CommandEvent::Video { video: &video });
    console.result(describe(&video));
    Ok(Summary::of_video(video.video_id))
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
                console.emit(&CommandEvent::Failed { error: super::events::error_event(&failure) });
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
