//! `ringlift jobs list` and `show`.

use ringlift::bulk::{Job, JobQuery, JobStore, LONGEST_PAGE, LONGEST_SKIP};

use super::event::JobEvent;
use super::wait;
use crate::cli::args::GlobalArgs;
use crate::cli::console::{Console, counted};
use crate::cli::escape::visible;
use crate::cli::events::{CommandEvent, CommandResult, ListEnd, Summary};
use crate::cli::exit::CommandError;
use crate::cli::jobs_args::{JobFilterArgs, JobListArgs};
use crate::cli::queue::{QueuePlace, pool_named};
use crate::cli::table::{Align, Table};
use crate::cli::values::Size;

pub(super) fn run(args: &JobListArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let mut query = query(&args.filter)?;
    let (queue, store) = super::open(&args.access, global)?;
    let (mut skipped, most) = match (args.page, args.limit) {
        (None, limit) => (0, limit.unwrap_or(u64::MAX)),
        (Some(page), limit) => {
            let limit = limit.unwrap_or(USUAL_PAGE);
            // A page behind the last job is empty, however large its number is.
            ((page - 1).saturating_mul(limit), limit)
        }
    };
    let mut end = ListEnd { items_total: Some(total(&*store, &query)?), ..ListEnd::default() };
    'pages: loop {
        query.skip = usize::try_from(skipped).map_or(LONGEST_SKIP, |skipped| skipped.min(LONGEST_SKIP));
        skipped -= query.skip as u64;
        // One more than is listed shows whether another follows.
        let wanted = skipped.saturating_add(most - end.listed).saturating_add(1);
        query.limit = usize::try_from(wanted).unwrap_or(LONGEST_PAGE).min(LONGEST_PAGE);
        let page = wait(store.list(query.clone()))?;
        let mut table = Table::new(HEADER);
        let mut jobs = page.jobs.iter();
        let passed = jobs.by_ref().take(usize::try_from(skipped).unwrap_or(usize::MAX)).count();
        skipped -= passed as u64;
        for job in jobs {
            if end.listed >= most {
                end.more = true;
                print(table, console);
                break 'pages;
            }
            end.listed += 1;
            show(job, &mut table, console);
        }
        print(table, console);
        query.after = page.next;
        // A reader such as head(1) has seen enough.
        if query.after.is_none() || !console.output().has_reader() {
            break;
        }
    }
    end.next_page = args.page.filter(|_| end.more).map(|page| page + 1);
    console.emit(&CommandEvent::ListEnd(end));
    remark(&end, args, &queue, console);
    Ok(Some(Summary::default()))
}

/// Returns the selection of the flags.
pub(super) fn query(args: &JobFilterArgs) -> Result<JobQuery, CommandError> {
    let mut query = JobQuery::default();
    query.state = args.state;
    query.pool = args.pool.as_deref().map(pool_named).transpose()?;
    Ok(query)
}

fn total(store: &dyn JobStore, query: &JobQuery) -> Result<u64, CommandError> {
    let counts = wait(store.count())?;
    let chosen = counts.iter().filter(|count| {
        query.state.is_none_or(|state| state == count.state)
            && query.pool.as_ref().is_none_or(|pool| *pool == count.pool)
    });
    Ok(chosen.map(|count| count.jobs).sum())
}

fn show(job: &Job, table: &mut Table<5>, console: &Console) {
    let event = JobEvent::of(job);
    if !console.shows_tables() {
        return event.show(&job.spec.source, console);
    }
    let id: String = event.id.chars().take(SHOWN_ID).collect();
    let size = event.size.map_or("-".to_owned(), |bytes| Size(bytes).to_string());
    table.row([id, event.state.to_owned(), size, event.path.to_string(), event.remark().to_owned()]);
}

fn print(table: Table<5>, console: &Console) {
    if console.shows_tables() && !table.is_empty() {
        console.result(table);
    }
}

fn remark(end: &ListEnd, args: &JobListArgs, queue: &QueuePlace, console: &Console) {
    match (end.next_page, end.more) {
        (Some(next), _) => console.note(format_args!("more with --page {next}")),
        (None, true) => console.note("more without --limit"),
        (None, false) if end.items_total == Some(0) => {
            let is_filtered = args.filter.state.is_some() || args.filter.pool.is_some();
            if is_filtered {
                console.note("no such jobs");
            } else if !note_other_accounts(queue, console) {
                console.note("the queue is empty");
            }
        }
        _ => {}
    }
}

/// Prints a note if other accounts have jobs in a queue that has none of this account. Returns `false` if none have.
pub(in crate::cli) fn note_other_accounts(queue: &QueuePlace, console: &Console) -> bool {
    let others = queue.accounts();
    if others > 0 {
        // The most common reason of an empty queue: another key, or the sandbox.
        console.note(format_args!(
            "no jobs of this account; jobs of {} are here",
            counted(others as u64, "other account")
        ));
    }
    others > 0
}

/// Shows a job in several lines, or as an event.
pub(super) fn describe(job: &Job, console: &Console) {
    let event = JobEvent::of(job);
    event.emit(&job.spec.source, console);
    let record = event.record.as_ref();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let lines = [
        ("job", Some(event.id.to_owned())),
        ("state", Some(event.state.to_owned())),
        ("path", Some(event.path.to_string())),
        ("size", event.size.map(|bytes| Size(bytes).to_string())),
        ("video", event.video_id.clone()),
        ("pool", record.map(|record| record.pool.to_owned())),
        ("priority", (job.spec.priority != 0).then(|| job.spec.priority.to_string())),
        ("title", Some(job.spec.options.video.title.clone()).filter(|title| !title.is_empty())),
        ("host", record.and_then(|record| text(record.host))),
        ("submitted", record.map(|record| record.submitted_at.clone())),
        ("started", record.and_then(|record| record.started_at.clone())),
        ("finished", record.and_then(|record| record.finished_at.clone())),
        ("next try", record.and_then(|record| record.not_before.clone())),
        ("reason", text(event.message)),
        ("advice", record.and_then(|record| text(record.advice))),
    ];
    let shown = lines.into_iter().filter_map(|(name, text)| Some(format!("{name:<12} {}", visible(&text?))));
    console.result(shown.collect::<Vec<_>>().join("\n"));
}

const HEADER: [(&str, Align); 5] = [
    ("JOB", Align::Left),
    ("STATE", Align::Left),
    ("SIZE", Align::Right),
    ("PATH", Align::Path),
    ("VIDEO OR REASON", Align::Text),
];

/// The characters of an id in a table, which name a job among millions.
const SHOWN_ID: usize = 12;

/// The jobs of a page.
const USUAL_PAGE: u64 = 100;
