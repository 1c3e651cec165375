//! `ringlift work`: uploads the files of a queue.

use ringlift::bulk::work;

use super::args::GlobalArgs;
use super::console::Console;
use super::events::CommandResult;
use super::ingest::{BulkRun, Daemon, Estimator, RunKind, report, run_options};
use super::ingest_args::WorkArgs;
use super::jobs;
use super::queue::{self, OpenQueue, QueuePlace};
use super::upload;

pub(super) fn run(args: &WorkArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let token = upload::upload_token(&args.token, global)?;
    let mut settings = upload::upload_settings(&args.run.lanes, global)?;
    upload::check_credentials(&settings, &args.run.check, token.as_ref())?;
    let queue = QueuePlace::of(&args.queue.store, &settings.trust)?;
    queue.check_token(token.as_ref())?;
    let account = queue::account(args.queue.store.account.as_deref(), &settings, token.as_ref())?;
    let pool = queue.pool(args.queue.pool.as_deref())?;
    let mut options = run_options(&args.run, pool, &settings, token)?;
    options.waits_for_jobs = !args.drain;
    // A pool is drained when no job of it is open.
    options.waits_for_attempts = true;
    let report = report(args.run.report.as_deref())?;
    // Created if it is missing: a service may start before the first submission.
    let OpenQueue { store, budget } = queue.open_for_work(account, &mut options)?;
    settings.shared_budget = budget;
    // No error: the next submission may be of this account. A queue on NATS does not list its accounts.
    if !queue.is_shared() && pollster::block_on(store.count()).is_ok_and(|counts| counts.is_empty()) {
        jobs::note_other_accounts(&queue, console);
    }
    let run = BulkRun {
        kind: RunKind::Work,
        title: format!("work on {}", queue.name()),
        daemon: (!args.drain).then(|| Daemon::new(None)),
        args: &args.run,
        estimator: Estimator::new(&settings),
        store,
        settings,
        queue,
        options,
        report,
        console,
    };
    run.run(|parts| work(parts.store, parts.client, parts.options, parts.report, parts.shutdown))
}
