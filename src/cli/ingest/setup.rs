//! The inputs and the options of a run.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringlift::bulk::{
    Account, AfterAction, Filter, IngestInput, IngestOptions, Inputs, JobPlanner, Manifest, ManifestError,
    ManifestFormat, ManifestOptions, OrderBy, Pool, Report, Resubmit, RetryRows, Walk, WalkOptions,
};
use ringlift::{Secret, Settings, UploadOptions};

use crate::cli::events::wall_clock;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::fetch;
use crate::cli::ingest_args::{InputArgs, RunArgs, SelectionArgs};
use crate::cli::queue::{self, QueuePlace};
use crate::cli::store_error::report_error;
use crate::cli::upload_args::Until;

/// Returns the options of a run that works on jobs.
pub(in crate::cli) fn run_options(
    args: &RunArgs,
    pool: Pool,
    settings: &Settings,
    token: Option<Secret>,
) -> Result<IngestOptions, CommandError> {
    let mut options = IngestOptions::new(pool, queue::owner(), wall_clock);
    options.upload_token = token;
    options.after = after(args)?;
    options.max_transfer = args.limits.max_transfer.map(|size| size.0);
    options.max_duration = args.limits.max_duration;
    options.cutoff = args.limits.cutoff_mode;
    options.max_errors = args.limits.max_errors;
    options.has_sha256 = args.check.sha256;
    // Twice as many, so that the next file is open when a transfer ends.
    options.runner.concurrent = settings.transfers.saturating_mul(2);
    options.runner.verify = args.check.verify;
    options.runner.wait_until_playable = args.check.wait == Some(Until::Playable);
    options.runner.wait_timeout = args.check.wait_timeout;
    options.runner.digest_silence = settings.patience.body;
    options.runner.has_one_token = true;
    Ok(options)
}

/// Adds the options of the submission.
pub(in crate::cli) fn submit_options(args: &InputArgs, options: &mut IngestOptions) {
    options.resubmit = match (args.force, args.retry) {
        (true, _) => Resubmit::Anew,
        (false, Some(_)) => Resubmit::RetryFailed,
        (false, None) => Resubmit::Keep,
    };
    // An order compares all files, so all have to be read before the first one is claimed.
    options.waits_for_inputs = args.selection.order_by.is_some_and(|order| order != OrderBy::Submission);
}

/// Opens the report, which is created if it is missing.
pub(in crate::cli) fn report(path: Option<&Path>) -> Result<Option<Report>, CommandError> {
    path.map(Report::open).transpose().map_err(|error| report_error(&error))
}

pub(in crate::cli) fn after(args: &RunArgs) -> Result<AfterAction, CommandError> {
    let after = AfterAction::try_from(args.after.as_os_str());
    let after = after.map_err(|error| CommandError::usage(format!("--after: {error}")))?;
    after.check().map_err(|error| CommandError::usage(format!("--after: {error}")))?;
    Ok(after)
}

/// Returns the inputs of the command line.
pub(in crate::cli) fn inputs(
    args: &InputArgs,
    settings: &Settings,
    token: Option<Secret>,
    after: &AfterAction,
) -> Result<Inputs, CommandError> {
    let walk = walk_options(args, after)?;
    let input = |source: &PathBuf| match source.to_str().filter(|_| fetch::is_url(source.as_os_str())) {
        Some(url) => IngestInput::Manifest(Box::new(url_manifest(url))),
        None => IngestInput::Walk(Box::new(Walk::new(source, walk.clone()))),
    };
    inputs_after(args.sources.iter().map(input).collect(), args, settings, token)
}

/// Returns the inputs of the command line without its sources, which a watch scans itself.
pub(super) fn listed_inputs(
    args: &InputArgs,
    settings: &Settings,
    token: Option<Secret>,
) -> Result<Inputs, CommandError> {
    inputs_after(Vec::new(), args, settings, token)
}

/// Returns these inputs, and after them the manifests and the lists.
fn inputs_after(
    mut inputs: Vec<IngestInput>,
    args: &InputArgs,
    settings: &Settings,
    token: Option<Secret>,
) -> Result<Inputs, CommandError> {
    let planner = planner(args, settings, token)?;
    let manifests = args.manifest.iter().map(|path| (path, args.manifest_format));
    let lists = args.files_from.iter().map(|path| (path, Some(ManifestFormat::Paths)));
    let nul_lists = args.files_from0.iter().map(|path| (path, Some(ManifestFormat::NulPaths)));
    for (path, format) in manifests.chain(lists).chain(nul_lists) {
        inputs.push(IngestInput::Manifest(Box::new(manifest(path, format, args)?)));
    }
    Ok(Inputs::new(planner, inputs))
}

/// Returns a manifest of one URL, which the service fetches by itself.
fn url_manifest(url: &str) -> Manifest {
    let line = serde_json::json!({ "source_url": url }).to_string();
    Manifest::from_reader("the command line", Cursor::new(line), &ManifestOptions::default())
}

fn manifest(path: &Path, format: Option<ManifestFormat>, args: &InputArgs) -> Result<Manifest, CommandError> {
    let mut options = ManifestOptions::default().retry(args.retry.unwrap_or(RetryRows::Failed));
    options.format = format;
    if path.as_os_str() != "-" {
        return Manifest::open(path, &options).map_err(|error| match error {
            ManifestError::Missing { .. } => CommandError::Other(Exit::NoSuchFile, error.to_string()),
            ManifestError::UnknownFormat { .. } => CommandError::usage(error.to_string()),
            error => CommandError::Other(Exit::Failed, error.to_string()),
        });
    }
    if args.strict {
        return Err(CommandError::usage(
            "--strict reads a manifest twice, which standard input does not allow",
        ));
    }
    Ok(Manifest::from_reader("standard input", io::stdin(), &options))
}

fn planner(args: &InputArgs, settings: &Settings, token: Option<Secret>) -> Result<JobPlanner, CommandError> {
    let account = queue::account(args.queue.store.account.as_deref(), settings, token.as_ref());
    // A dry run needs no credentials.
    let account = account.or_else(|error| if args.dry_run { Ok(unknown_account()) } else { Err(error) })?;
    let defaults = upload_defaults(args, token);
    let queue = QueuePlace::of(&args.queue.store, &settings.trust)?;
    queue.check_token(defaults.upload_token.as_ref())?;
    let mut planner = JobPlanner::new(account, queue.pool(args.queue.pool.as_deref())?, defaults);
    planner.is_shared = queue.is_shared();
    let template = |flag: &str, text: &str| {
        text.parse().map_err(|error| CommandError::usage(format!("{flag}: {error}")))
    };
    planner.title = args.description.title.as_deref().map(|text| template("--title", text)).transpose()?;
    for (key, value) in &args.description.metadata {
        planner.metadata.push((key.clone(), template("--metadata", value)?));
    }
    planner.has_sidecars = args.sidecar.is_some();
    planner.order_by = args.selection.order_by.unwrap_or_default();
    Ok(planner)
}

fn upload_defaults(args: &InputArgs, token: Option<Secret>) -> UploadOptions {
    let mut defaults = UploadOptions::default();
    defaults.video = args.description.video();
    // The planner renders the templates for each file. As common values they would be sent as they are typed.
    defaults.video.title = String::new();
    defaults.video.metadata.clear();
    defaults.upload_token = token;
    defaults.mode = args.chunks.mode;
    defaults.chunk_size = args.chunks.chunk_size;
    defaults.on_change = args.chunks.on_change;
    defaults
}

pub(super) fn walk_options(args: &InputArgs, after: &AfterAction) -> Result<WalkOptions, CommandError> {
    let selection = &args.selection;
    let mut options = WalkOptions::default();
    options.all_files = selection.all_files;
    options.follow_links = selection.follow_links;
    options.max_depth = selection.max_depth.and_then(|depth| usize::try_from(depth).ok());
    options.filter = Some(Arc::new(filter(selection)?));
    // One moment for the whole walk, or --min-age would mean another time for each file.
    options.now = Some(wall_clock());
    // A destination below the source would be walked, too, and its files are uploaded already.
    if let AfterAction::MoveTo(folder) = after {
        options.skipped_folders.push(folder.clone());
    }
    Ok(options)
}

fn filter(selection: &SelectionArgs) -> Result<Filter, CommandError> {
    let usage = |error: ringlift::bulk::FilterError| CommandError::usage(error.to_string());
    let mut filter = Filter::default();
    for pattern in &selection.include {
        filter = filter.include(pattern).map_err(usage)?;
    }
    for pattern in &selection.exclude {
        filter = filter.exclude(pattern).map_err(usage)?;
    }
    for path in &selection.filter_from {
        let file = std::fs::File::open(path);
        let file = file.map_err(|error| CommandError::io(format!("read {}", path.display()), error))?;
        filter = filter.lines(&path.to_string_lossy(), file).map_err(usage)?;
    }
    filter.min_bytes = selection.min_size.map(|size| size.0);
    filter.max_bytes = selection.max_size.map(|size| size.0);
    filter.min_age = selection.min_age;
    filter.max_age = selection.max_age;
    Ok(filter)
}

fn unknown_account() -> Account {
    Account::of_key("", "")
}
