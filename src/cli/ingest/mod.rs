//! `ringlift ingest`: each file once, however often the command is run. Its parts are those of `submit` and `work`, too.

mod daemon;
mod ending;
mod estimate;
mod live;
mod monitoring;
mod outage;
mod plan;
mod run;
mod setup;
mod view;
mod watching;

use std::path::PathBuf;
use std::sync::Arc;

use ringlift::bulk::{
    IngestEvent, IngestInput, IngestOptions, JobStore, Report, Shutdown, ShutdownSignal, ingest,
};
use ringlift::{Client, Settings};

use super::args::GlobalArgs;
use super::console::Console;
use super::events::{CommandResult, Summary};
use super::ingest_args::{IngestArgs, RunArgs};
use super::queue::{OpenQueue, QueuePlace};
use super::signals::Interrupts;
use super::{client, upload};
pub(super) use daemon::Daemon;
pub(super) use ending::{LoopEnd, RunKind};
pub(super) use estimate::Estimator;
pub(super) use live::LiveNumbers;
use live::LiveRun;
use monitoring::Monitoring;
pub(super) use plan::{check_all, dry_run};
pub(super) use setup::{inputs, report, run_options, submit_options};
pub(super) use view::IngestView;

pub(super) fn run(args: &IngestArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let token = upload::upload_token(&args.inputs.token, global)?;
    let mut settings = upload::upload_settings(&args.run.lanes, global)?;
    let after = setup::after(&args.run)?;
    let read_inputs = || {
        if args.watch.watch {
            setup::listed_inputs(&args.inputs, &settings, token.clone())
        } else {
            inputs(&args.inputs, &settings, token.clone(), &after)
        }
    };
    if args.inputs.strict {
        check_all(read_inputs()?, &settings, console)?;
    }
    let mut inputs = read_inputs()?;
    if args.inputs.dry_run {
        return dry_run(inputs, &args.inputs, &settings, console).map(Some);
    }
    upload::check_credentials(&settings, &args.run.check, token.as_ref())?;
    let queue = QueuePlace::of(&args.inputs.queue.store, &settings.trust)?;
    let report = report(args.run.report.as_deref())?;
    let mut options = run_options(&args.run, inputs.planner().pool.clone(), &settings, token)?;
    submit_options(&args.inputs, &mut options);
    let OpenQueue { store, budget } = queue.open_for_work(inputs.planner().account.clone(), &mut options)?;
    settings.shared_budget = budget;
    let watch = args.watch.watch.then(|| watching::start(args, &after, &queue)).transpose()?;
    // The inputs of a watch have no end to wait for.
    options.waits_for_inputs &= watch.is_none();
    let daemon = watch.as_ref().map(|watch| Daemon::new(Some(watch.handle())));
    // The last input, because it does not end.
    inputs.extend(watch.map(|watch| IngestInput::Watch(Box::new(watch))));
    let chunks = &args.inputs.chunks;
    let run = BulkRun {
        kind: if daemon.is_some() { RunKind::Watch } else { RunKind::Ingest },
        title: format!("ingest of {}", title(&args.inputs.sources)),
        daemon,
        args: &args.run,
        estimator: Estimator::new(&settings).with_chunks(chunks.mode, chunks.chunk_size),
        settings,
        queue,
        store,
        options,
        report,
        console,
    };
    run.run(|parts| ingest(inputs, parts.store, parts.client, parts.options, parts.report, parts.shutdown))
}

/// A run that works on jobs: of `ingest` or of `work`.
pub(super) struct BulkRun<'a> {
    pub(super) kind: RunKind,
    pub(super) title: String,
    /// The service, if the run goes on until it is stopped.
    pub(super) daemon: Option<Daemon>,
    pub(super) args: &'a RunArgs,
    pub(super) estimator: Estimator,
    pub(super) settings: Settings,
    pub(super) queue: QueuePlace,
    pub(super) store: Arc<dyn JobStore>,
    pub(super) options: IngestOptions,
    pub(super) report: Option<Report>,
    pub(super) console: &'a Console,
}

/// The arguments of the library's run.
pub(super) struct RunParts<'c> {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) client: &'c Client,
    pub(super) options: IngestOptions,
    pub(super) report: Option<Report>,
    pub(super) shutdown: ShutdownSignal,
}

impl BulkRun<'_> {
    /// Runs to the end. `start` starts the library's run.
    pub(super) fn run<S: futures_util::Stream<Item = IngestEvent>>(
        mut self,
        start: impl FnOnce(RunParts<'_>) -> S,
    ) -> CommandResult {
        let (console, numbers) = (self.console, LiveNumbers::new());
        self.settings.journal = self.queue.journal();
        let client = client::open(self.settings.clone())?;
        let live = LiveRun {
            title: self.title,
            numbers: numbers.clone(),
            client: client.clone(),
            store: self.store.clone(),
        };
        let monitoring = Monitoring::start(self.args, live, console)?;
        let interrupts = Interrupts::new(console, Some(self.args.grace.saturating_add(run::AFTER_GRACE)));
        // This thread handles signals from here on.
        console.output().must_not_wait();
        let (retries, sha256) = (self.settings.retry.retries, self.args.check.sha256);
        let mut view = IngestView::new(self.kind, numbers, self.estimator, retries, sha256);
        view.name_pool(self.queue.pool_flag(&self.options.pool));
        let has_monitor = self.args.monitor.is_some() || self.args.metrics_file.is_some();
        let is_watched = has_monitor && self.queue.is_shared();
        let follow = run::RunLoop {
            args: self.args,
            settings: &self.settings,
            store: self.store.clone(),
            pool: self.options.pool.clone(),
            watched_as: is_watched.then(|| self.options.owner.clone()),
            client: client.clone(),
            console,
        };
        let shutdown = Shutdown::new();
        let parts = RunParts {
            store: self.store,
            client: &client,
            options: self.options,
            report: self.report,
            shutdown: shutdown.signal(),
        };
        let (events, daemon) = (start(parts), self.daemon);
        let ended = client::block_on(async {
            Ok(follow.follow(events, shutdown, interrupts, &mut view, daemon).await)
        })?;
        let summary = view.summary(ended, console);
        // Last: a disk that does not respond must not delay the messages about the run.
        monitoring.end(summary.exit);
        Ok(Some(Summary { client: Some(client), ..summary }))
    }
}

/// Returns the sources for the title of a page.
fn title(sources: &[PathBuf]) -> String {
    match sources {
        [] => "a manifest".to_owned(),
        [only] => only.display().to_string(),
        [first, others @ ..] => format!("{} and {} others", first.display(), others.len()),
    }
}
