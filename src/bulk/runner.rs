//! The run loop: many uploads, a few at a time, as one stream of events.

mod event;
mod fatal;
mod job;
mod request;

use std::sync::Arc;

use futures_core::Stream;
use futures_util::{StreamExt, stream};

use crate::bulk::shutdown::ShutdownSignal;
use crate::upload::Client;
pub use event::{DoneJob, FailedJob, RunnerEvent};
use job::{JobRun, RunState};
pub use request::{RunnerJob, RunnerOptions, Sha256Request};

/// Runs every job of the stream, and returns the events.
///
/// At most [`RunnerOptions::concurrent`] jobs are pulled from `jobs` and not ended; nothing is kept about a job that has
/// ended. A job that fails does not end the run, unless its error concerns every job ([`FailedJob::ends_run`]). After a
/// request to shut down, no job is pulled any more, and each active one ends with an event.
///
/// The run advances only while the stream is polled, under any executor. Uploads under way go on meanwhile, and drop
/// their oldest events if the stream is not polled for long. Dropping the stream cancels the active uploads.
///
/// The last event of each job is [`RunnerEvent::Done`], [`RunnerEvent::Failed`] or [`RunnerEvent::NotStarted`]. The
/// stream ends after the last event of the last job. The run itself stores nothing. A client with [`Settings::journal`]
/// resumes an interrupted file when its job is run again, and has a finished one on record until the caller confirms
/// [`DoneJob::receipt`].
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: ringlift::Client, store: impl Fn(&str, &str)) {
/// use std::pin::pin;
///
/// use futures_util::{StreamExt, stream};
/// use ringlift::bulk::{self, RunnerEvent, RunnerJob, RunnerOptions, Shutdown};
///
/// let files = stream::iter(["a.mp4", "b.mp4"]);
/// let jobs = files.map(|path| RunnerJob::new(path, client.upload(path)));
/// // A signal handler of the program would call `stop` or `cancel`.
/// let shutdown = Shutdown::new();
/// let mut events = pin!(bulk::run(jobs, &client, RunnerOptions::default(), shutdown.signal()));
/// while let Some(event) = events.next().await {
///     match event {
///         RunnerEvent::Done(job) => {
///             store(job.key, &job.uploaded.video_id);
///             job.receipt.confirm();
///         }
///         RunnerEvent::Failed(job) => eprintln!("{}: {}", job.key, job.error),
///         RunnerEvent::NotStarted { key } => eprintln!("{key}: not started"),
///         _ => {}
///     }
/// }
/// # }
/// ```
///
/// [`Settings::journal`]: crate::Settings::journal
pub fn run<K: Clone>(
    jobs: impl Stream<Item = RunnerJob<K>>,
    client: &Client,
    options: RunnerOptions,
    shutdown: ShutdownSignal,
) -> impl Stream<Item = RunnerEvent<K>> {
    let concurrent = options.concurrent.max(1);
    let state = Arc::new(RunState::new(client.clone(), options, shutdown));
    let end = {
        let state = state.clone();
        async move { state.end_requested().await }
    };
    jobs.take_until(end)
        .map(move |job| Box::pin(stream::unfold(JobRun::new(job, state.clone()), JobRun::next)))
        .flatten_unordered(concurrent)
}
