//! `ringlift jobs`: lists and changes the jobs of a queue.

mod event;
mod list;
mod report;

use std::sync::Arc;

use ringlift::Credentials;
use ringlift::bulk::{Job, JobId, JobQuery, JobStore, JobStoreError, StoreFuture};

use super::args::GlobalArgs;
use super::console::Console;
use super::events::{CommandEvent, CommandResult, Summary, error_event, wall_clock};
use super::exit::{CommandError, Exit};
use super::jobs_args::{JobIdsArgs, JobPoolArgs, JobsCommand, StoreAccessArgs};
use super::queue::{self, QueuePlace};
use super::store_error::store_error;
use super::{client, upload};
pub(super) use event::JobEvent;
pub(super) use list::note_other_accounts;

pub(super) fn run(command: &JobsCommand, global: &GlobalArgs, console: &Console) -> CommandResult {
    let now = || wall_clock().into();
    match command {
        JobsCommand::List(args) => list::run(args, global, console),
        JobsCommand::Report(args) => report::run(args, global, console),
        JobsCommand::Show(args) => each(args, global, console, |_, _| Ok(()), list::describe),
        JobsCommand::Retry(args) => {
            each(args, global, console, |store, id| wait(store.retry(id, now())).map(drop), show)
        }
        JobsCommand::Cancel(args) => {
            each(args, global, console, |store, id| wait(store.cancel(id, now())).map(drop), show)
        }
        JobsCommand::Forget(args) => each(
            args,
            global,
            console,
            |store, id| wait(store.forget(id, now())).map(drop),
            |job, console| {
                console.emit(&CommandEvent::ForgottenJob { id: job.spec.id.as_str() });
                console.note(format_args!("{}: forgotten", job.spec.id));
            },
        ),
        JobsCommand::Pause(args) => set_paused(args, true, global, console),
        JobsCommand::Resume(args) => set_paused(args, false, global, console),
    }
}

/// Opens the queue of the account that the credentials name.
fn open(
    args: &StoreAccessArgs,
    global: &GlobalArgs,
) -> Result<(QueuePlace, Arc<dyn JobStore>), CommandError> {
    let token = upload::upload_token(&args.token, global)?;
    let mut settings = client::client_settings(global);
    if let Some(key) = client::key(global)? {
        settings.credentials = Credentials::ApiKey(key);
    }
    let account = queue::account(args.store.account.as_deref(), &settings, token.as_ref())?;
    let queue = QueuePlace::of(&args.store, &settings.trust)?;
    let store = queue.open_existing(account)?;
    Ok((queue, store))
}

/// Applies a change to each job and shows the job, also after a failure. A job that is deleted is shown as it was.
fn each(
    args: &JobIdsArgs,
    global: &GlobalArgs,
    console: &Console,
    change: impl Fn(&dyn JobStore, &JobId) -> Result<(), CommandError>,
    show: impl Fn(&Job, &Console),
) -> CommandResult {
    let (_, store) = open(&args.access, global)?;
    let one = |text: &str| {
        let before = find(&*store, text)?;
        change(&*store, &before.spec.id)?;
        let after = wait(store.get(&before.spec.id))?;
        show(&after.unwrap_or(before), console);
        Ok(())
    };
    let mut exits = Vec::new();
    for text in &args.ids {
        if let Err(failure) = one(text) {
            let failure: CommandError = failure;
            console.print_error(&failure);
            console.emit(&CommandEvent::Failed { error: error_event(&failure) });
            exits.push(failure.exit());
        }
    }
    Ok(Some(Summary::from(Exit::of_all(exits))))
}

fn show(job: &Job, console: &Console) {
    JobEvent::of(job).show(&job.spec.source, console);
}

/// Returns the job with this id, or the only one whose id begins so.
fn find(store: &dyn JobStore, text: &str) -> Result<Job, CommandError> {
    let id = JobId::new(text).map_err(|flaw| CommandError::usage(flaw.to_string()))?;
    if let Some(job) = wait(store.get(&id))? {
        return Ok(job);
    }
    let found = if text.len() >= SHORTEST_PREFIX { find_by_prefix(store, text)? } else { None };
    found.ok_or_else(|| {
        let error = store_error(&JobStoreError::NoSuchJob { id });
        CommandError::Other(error.exit(), format!("{error}: `ringlift jobs list` lists them"))
    })
}

/// Returns the only job whose id begins so. Several such jobs are a usage error.
fn find_by_prefix(store: &dyn JobStore, prefix: &str) -> Result<Option<Job>, CommandError> {
    let (mut found, mut query) = (None, JobQuery::default());
    loop {
        let page = wait(store.list(query.clone()))?;
        for job in page.jobs.into_iter().filter(|job| job.spec.id.as_str().starts_with(prefix)) {
            if found.replace(job).is_some() {
                return Err(CommandError::usage(format!(
                    "{prefix}: several jobs have such an id: give more of it"
                )));
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(found);
        }
    }
}

fn set_paused(args: &JobPoolArgs, is_paused: bool, global: &GlobalArgs, console: &Console) -> CommandResult {
    let (queue, store) = open(&args.access, global)?;
    let pool = queue.pool(args.pool.as_deref())?;
    wait(store.set_paused(&pool, is_paused))?;
    console.emit(&CommandEvent::Pool { pool: pool.as_str(), paused: is_paused });
    let state = if is_paused { "paused: jobs under way go on" } else { "resumed" };
    console.note(format_args!("pool {}: {state}", pool.as_str()));
    Ok(Some(Summary::default()))
}

/// Waits for the store, which limits the time of each request.
fn wait<T>(future: StoreFuture<'_, T>) -> Result<T, CommandError> {
    pollster::block_on(future).map_err(|error| store_error(&error))
}

/// The fewest characters of an id that name a job.
const SHORTEST_PREFIX: usize = 6;
