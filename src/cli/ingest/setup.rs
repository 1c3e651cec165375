//! The inputs, the account and the job store of a run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ringlift::bulk::{
    Account, AfterAction, Filter, IngestInput, Inputs, JobPlanner, JobStore, JobStoreError, Manifest,
    ManifestError, ManifestFormat, ManifestOptions, OwnerId, Pool, RetryRows, SqliteJobStore, SqliteOptions,
    StoreProblem, Walk, WalkOptions,
};
use ringlift::{Credentials, Endpoint, Secret, Settings, UploadOptions};

use crate::cli::exit::{CommandError, Exit};
use crate::cli::ingest_args::IngestArgs;
use crate::cli::journal;

pub(super) fn after(args: &IngestArgs) -> Result<AfterAction, CommandError> {
    let after = AfterAction::try_from(args.after.as_os_str());
    let after = after.map_err(|error| CommandError::usage(format!("--after: {error}")))?;
    after.check().map_err(|error| CommandError::usage(format!("--after: {error}")))?;
    Ok(after)
}

/// Refuses flags about standard input, which `ingest` never uploads.
pub(super) fn check_flags(args: &IngestArgs) -> Result<(), CommandError> {
    let flags = [
        ("--name", args.transfer.name.is_some()),
        ("--expected-size", args.transfer.expected_size.is_some()),
    ];
    match flags.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(CommandError::usage(format!(
            "{flag} is for an upload of standard input: use `ringlift upload -`"
        ))),
        None => Ok(()),
    }
}

/// Returns the inputs of the command line.
pub(super) fn inputs(
    args: &IngestArgs,
    settings: &Settings,
    token: Option<Secret>,
    after: &AfterAction,
) -> Result<Inputs, CommandError> {
    let planner = planner(args, settings, token)?;
    let walk = walk_options(args, after)?;
    let mut inputs: Vec<IngestInput> = Vec::new();
    for source in &args.sources {
        inputs.push(IngestInput::Walk(Box::new(Walk::new(source, walk.clone()))));
    }
    let manifests = args.manifest.iter().map(|path| (path, args.manifest_format));
    let lists = args.files_from.iter().map(|path| (path, Some(ManifestFormat::Paths)));
    let nul_lists = args.files_from0.iter().map(|path| (path, Some(ManifestFormat::NulPaths)));
    for (path, format) in manifests.chain(lists).chain(nul_lists) {
        inputs.push(IngestInput::Manifest(Box::new(manifest(path, format, args)?)));
    }
    Ok(Inputs::new(planner, inputs))
}

fn manifest(
    path: &Path,
    format: Option<ManifestFormat>,
    args: &IngestArgs,
) -> Result<Manifest, CommandError> {
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

fn planner(
    args: &IngestArgs,
    settings: &Settings,
    token: Option<Secret>,
) -> Result<JobPlanner, CommandError> {
    let account = account(args.queue.account.as_deref(), settings, token.as_ref())?;
    let mut defaults = UploadOptions::default();
    defaults.video = args.description.video();
    defaults.video.title = String::new();
    defaults.video.metadata.clear();
    defaults.upload_token = token;
    defaults.mode = args.transfer.mode;
    defaults.chunk_size = args.transfer.chunk_size;
    defaults.on_change = args.transfer.on_change;
    let mut planner = JobPlanner::new(account, pool()?, defaults);
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

fn walk_options(args: &IngestArgs, after: &AfterAction) -> Result<WalkOptions, CommandError> {
    let selection = &args.selection;
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
    let mut options = WalkOptions::default();
    options.all_files = selection.all_files;
    options.follow_links = selection.follow_links;
    options.max_depth = selection.max_depth.and_then(|depth| usize::try_from(depth).ok());
    options.filter = Some(Arc::new(filter));
    options.now = Some(super::now());
    if let AfterAction::MoveTo(folder) = after {
        options.skipped_folders.push(folder.clone());
    }
    Ok(options)
}

/// Returns the account by its name, or by the endpoint and the credentials.
fn account(name: Option<&str>, settings: &Settings, token: Option<&Secret>) -> Result<Account, CommandError> {
    if let Some(name) = name {
        return Account::named(name).map_err(|flaw| CommandError::usage(format!("--account: {flaw}")));
    }
    let endpoint = Endpoint::canonical_of(&settings.endpoint_url);
    let secret = match (&settings.credentials, token) {
        (Credentials::ApiKey(key), _) => key.reveal(),
        (_, Some(token)) => token.reveal(),
        _ => "",
    };
    Ok(Account::of_key(&endpoint, secret))
}

/// Returns the account that the flags of `ringlift jobs` name.
pub(in crate::cli) fn account_of(
    name: Option<&str>,
    global: &crate::cli::args::GlobalArgs,
) -> Result<Account, CommandError> {
    let mut settings = crate::cli::client::client_settings(global);
    if let Some(key) = crate::cli::client::key(global)? {
        settings.credentials = Credentials::ApiKey(key);
    }
    account(name, &settings, None)
}

/// Returns the pool of this host's queue. Not by the host's name, which changes in containers: every job would be
/// another one then.
pub(in crate::cli) fn pool() -> Result<Pool, CommandError> {
    Pool::new("local").map_err(|flaw| CommandError::usage(flaw.to_string()))
}

pub(super) fn owner() -> OwnerId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_owned();
    let nanos = super::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    OwnerId::new(&host, std::process::id(), nanos)
}

pub(super) fn wall_clock() -> fn() -> SystemTime {
    super::now
}

/// Returns the path of the queue.
pub(in crate::cli) fn queue_path(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    let beside_journal = || Some(journal::path(None)?.with_file_name("jobs.db"));
    given.map(Path::to_owned).or_else(beside_journal).ok_or_else(|| {
        CommandError::usage("there is no state directory for the queue: give a file with --queue")
    })
}

pub(in crate::cli) fn open_store(path: PathBuf, account: Account) -> Result<Arc<dyn JobStore>, CommandError> {
    match SqliteJobStore::open(SqliteOptions::new(path, account)) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(store_error(&error)),
    }
}

pub(in crate::cli) fn store_error(error: &JobStoreError) -> CommandError {
    CommandError::Other(store_exit(error), error.to_string())
}

pub(super) fn store_exit(error: &JobStoreError) -> Exit {
    match error.problem() {
        Some(StoreProblem::Locked) => Exit::Temporary,
        _ => Exit::Failed,
    }
}
