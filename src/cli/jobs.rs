//! `ringlift jobs`: the jobs of a queue, a page at a time.

use ringlift::bulk::{
    Job, JobId, JobQuery, JobSource, JobState, JobStateName, JobStore, JobStoreError, StoreFuture,
};
use serde::Serialize;

use super::args::GlobalArgs;
use super::client;
use super::console::Console;
use super::escape::visible;
use super::events::{CommandResult, Summary, wall_clock};
use super::exit::CommandError;
use super::ingest::{account_of, open_store, queue_path, store_error};
use super::ingest_args::{JobIdsArgs, JobsCommand, QueueArgs};

/// A job as a JSON event.
#[derive(Debug, Serialize)]
struct JobEvent<'a> {
    event: &'static str,
    id: &'a str,
    state: &'static str,
    path: &'a str,
    size: Option<u64>,
    video_id: Option<&'a str>,
    message: Option<&'a str>,
}

pub(super) fn run(command: &JobsCommand, global: &GlobalArgs, console: &Console) -> CommandResult {
    match command {
        JobsCommand::List { state, queue } => list(state.as_deref(), queue, global, console),
        JobsCommand::Show(args) => {
            let store = open(&args.queue, global)?;
            for id in ids(args)? {
                match wait(store.get(&id))? {
                    Some(job) => show(&job, console),
                    None => return Err(store_error(&JobStoreError::NoSuchJob { id })),
                }
            }
            Ok(Some(Summary::default()))
        }
        JobsCommand::Retry(args) => {
            change(args, global, console, |store, id| wait(store.retry(id, wall_clock().into())).map(drop))
        }
        JobsCommand::Cancel(args) => {
            change(args, global, console, |store, id| wait(store.cancel(id, wall_clock().into())).map(drop))
        }
        JobsCommand::Forget(args) => {
            change(args, global, console, |store, id| wait(store.forget(id, wall_clock().into())).map(drop))
        }
    }
}

fn open(queue: &QueueArgs, global: &GlobalArgs) -> Result<std::sync::Arc<dyn JobStore>, CommandError> {
    let account = account_of(queue.account.as_deref(), global)?;
    open_store(queue_path(queue.queue.as_deref())?, account)
}

fn list(state: Option<&str>, queue: &QueueArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let mut query = JobQuery::default();
    query.state = state.map(state_named).transpose()?;
    let store = open(queue, global)?;
    loop {
        let page = wait(store.list(query.clone()))?;
        page.jobs.iter().for_each(|job| show(job, console));
        query.after = page.next;
        if query.after.is_none() {
            return Ok(Some(Summary::default()));
        }
    }
}

fn state_named(name: &str) -> Result<JobStateName, CommandError> {
    let known = JobStateName::ALL.into_iter().find(|state| state.as_str() == name);
    known.ok_or_else(|| {
        CommandError::usage("--state: use queued, running, done, failed, skipped or cancelled")
    })
}

fn change(
    args: &JobIdsArgs,
    global: &GlobalArgs,
    console: &Console,
    apply: impl Fn(&dyn JobStore, &JobId) -> Result<(), CommandError>,
) -> CommandResult {
    let store = open(&args.queue, global)?;
    for id in ids(args)? {
        apply(&*store, &id)?;
        if let Some(job) = wait(store.get(&id))? {
            show(&job, console);
        }
    }
    Ok(Some(Summary::default()))
}

fn ids(args: &JobIdsArgs) -> Result<Vec<JobId>, CommandError> {
    let id = |text: &String| JobId::new(text).map_err(|flaw| CommandError::usage(flaw.to_string()));
    args.ids.iter().map(id).collect()
}

fn show(job: &Job, console: &Console) {
    let path = match &job.spec.source {
        JobSource::File { path } => path.to_string_lossy().into_owned(),
        JobSource::Url { url } => url.clone(),
        _ => String::new(),
    };
    let (video_id, message) = match &job.record.state {
        JobState::Done(result) => (Some(result.video_id.as_str()), None),
        JobState::Failed(failure) => (failure.video_id.as_deref(), Some(failure.message.as_str())),
        _ => (None, job.record.last_failure.as_ref().map(|failure| failure.message.as_str())),
    };
    let event = JobEvent {
        event: "job",
        id: job.spec.id.as_str(),
        state: job.record.state.name().as_str(),
        path: &path,
        size: job.spec.stamp.map(|stamp| stamp.size),
        video_id,
        message,
    };
    console.emit(&event);
    let other = video_id.or(message).unwrap_or("-");
    console.result(format_args!("{}\t{}\t{}\t{other}", event.id, event.state, visible(&path)));
}

fn wait<T>(future: StoreFuture<'_, T>) -> Result<T, CommandError> {
    client::block_on(async { future.await.map_err(|error| store_error(&error)) })
}
