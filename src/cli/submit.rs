//! `ringlift submit`: puts jobs into a queue, and ends.

use std::time::Duration;

use futures_util::StreamExt;
use ringlift::UsageMeter;
use ringlift::bulk::{AfterAction, IngestEvent, IngestOptions, submit};
use ringlift::{Credentials, Settings};

use super::args::GlobalArgs;
use super::console::Console;
use super::events::{CommandResult, wall_clock};
use super::ingest::{
    Estimator, IngestView, LiveNumbers, LoopEnd, RunKind, check_all, dry_run, inputs, submit_options,
};
use super::ingest_args::SubmitArgs;
use super::queue::{self, QueuePlace};
use super::signals::Interrupts;
use super::{client, upload};

pub(super) fn run(args: &SubmitArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let args = &args.inputs;
    let token = upload::upload_token(&args.token, global)?;
    let mut settings: Settings = client::client_settings(global);
    if let Some(key) = client::key(global)? {
        settings.credentials = Credentials::ApiKey(key);
    }
    let read_inputs = || inputs(args, &settings, token.clone(), &AfterAction::Keep);
    if args.strict {
        check_all(read_inputs()?, &settings, console)?;
    }
    let inputs = read_inputs()?;
    if args.dry_run {
        return dry_run(inputs, args, &settings, console).map(Some);
    }
    let store = QueuePlace::of(&args.queue.store, &settings.trust)?.open(inputs.planner().account.clone())?;
    let mut options = IngestOptions::new(inputs.planner().pool.clone(), queue::owner(), wall_clock);
    submit_options(args, &mut options);
    let estimator = Estimator::new(&settings).with_chunks(args.chunks.mode, args.chunks.chunk_size);
    let mut view = IngestView::new(RunKind::Submit, LiveNumbers::new(), estimator, 0, false);
    let interrupts = Interrupts::new(console, Some(LONGEST_END));
    console.output().must_not_wait();
    let events = submit(inputs, store, options, None);
    let ended = client::block_on(async { Ok(follow(events, interrupts, &mut view, console).await) })?;
    Ok(Some(view.summary(ended, console)))
}

/// Shows the events until all inputs are submitted, or a signal arrives.
async fn follow(
    events: impl futures_util::Stream<Item = IngestEvent>,
    mut interrupts: Interrupts,
    view: &mut IngestView,
    console: &Console,
) -> LoopEnd {
    let mut events = Box::pin(events);
    let (mut end, mut interrupt) = (None, None);
    loop {
        tokio::select! {
            received = interrupts.next() => {
                // First: the messages below may meet a full queue whose reader has stopped.
                console.output().hurry();
                // Dropping the stream ends the submission. What was submitted stays.
                interrupt = Some(received);
                break;
            }
            event = next_with_room(&mut events, console) => match event {
                Some(IngestEvent::Ended(reason)) => {
                    end = Some(reason);
                    break;
                }
                Some(event) => view.event(event, console),
                None => break,
            },
        }
    }
    view.conclude(console);
    LoopEnd { end, interrupt, usage: UsageMeter::default().usage() }
}

/// Returns the next event once there is room for its output. Dropping the future loses no event.
async fn next_with_room<S>(events: &mut S, console: &Console) -> Option<IngestEvent>
where
    S: futures_util::Stream<Item = IngestEvent> + Unpin,
{
    console.output().room().await;
    events.next().await
}

/// Longest time that the process continues after a signal: one write of the store.
const LONGEST_END: Duration = Duration::from_secs(15);
