//! Jobs of the command line and their plans.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlift::bulk::{JsonEvent, Planned, RunSummary, event};
use ringlift::internals::{Delivery, Environment, SourceFile, Unavailable, probe};
use ringlift::{
    Addressing, Checksum, ChunkSize, Error, Mode, Secret, Settings, SourceError, StreamPlan, UploadOptions,
    Workload,
};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cli::console::{Console, UploadRemains};
use crate::cli::escape::visible;
use crate::cli::events::{Summary, error_event};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::output::PendingWrite;
use crate::cli::upload_args::UploadArgs;
use crate::cli::values::Size;

use super::file_stat::{self, Stat};
use super::templates::VideoTemplates;

/// One file, or standard input, to upload.
#[derive(Clone, Debug)]
pub(in crate::cli) struct UploadJob {
    /// Index on the command line.
    pub(super) index: usize,
    /// Name in events and messages.
    pub(super) name: String,
    pub(super) source: UploadJobSource,
    /// Further names of the same file on the command line.
    pub(super) also: Vec<String>,
    /// Device and inode of an existing file.
    id: Option<(u64, u64)>,
    /// Length as far as known before the file is opened.
    bytes: Option<u64>,
    pub(super) options: Rc<JobOptions>,
}

/// Options of a job, and the terms on which it uses the journal.
#[derive(Debug)]
pub(in crate::cli) struct JobOptions {
    pub(in crate::cli) upload: UploadOptions,
    pub(in crate::cli) if_new: IfNew,
    /// `true` if a file is sent even if an interrupted command has already uploaded it.
    pub(in crate::cli) force: bool,
}

/// Treatment of a job without an entry in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum IfNew {
    Start,
    Refuse,
}

/// Source of the bytes of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UploadJobSource {
    File(PathBuf),
    Stdin,
}

impl UploadJob {
    /// Creates the job of a file. A file that cannot be opened counts as empty; opening it reports the error.
    pub(in crate::cli) fn file(index: usize, path: &Path, options: Rc<JobOptions>) -> UploadJob {
        let stat = file_stat::stats(vec![path.to_owned()]).pop();
        UploadJob::with_stat(index, path, stat.unwrap_or_default(), options)
    }

    fn with_stat(index: usize, path: &Path, stat: Stat, options: Rc<JobOptions>) -> UploadJob {
        let Stat { bytes, id } = stat;
        let bytes = Some(bytes);
        let name = path.to_string_lossy().into_owned();
        UploadJob {
            index,
            name,
            also: Vec::new(),
            id,
            source: UploadJobSource::File(path.to_owned()),
            bytes,
            options,
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        self.source == UploadJobSource::Stdin
    }

    /// Returns the plan of standard input.
    fn stream_plan(&self, settings: &Settings) -> Result<StreamPlan, Error> {
        settings.plan_stream(&self.name, &self.options.upload)
    }

    /// Returns the bytes of a name that is not UTF-8.
    pub(super) fn odd_name(&self) -> Option<&[u8]> {
        match &self.source {
            UploadJobSource::File(path) => event::odd_name(path),
            UploadJobSource::Stdin => None,
        }
    }

    /// Writes an event about the job. Returns a handle to wait for the write.
    pub(super) fn emit(&self, console: &Console, event: &JsonEvent<'_>) -> Option<PendingWrite> {
        console.emit_for_file(self.odd_name(), event)
    }

    /// Returns the number of names on the command line.
    pub(super) fn files(&self) -> usize {
        1 + self.also.len()
    }

    /// Returns the length, or `None` if it is unknown.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

/// Returns the jobs of the command line, or a usage error if they contradict its flags.
pub(super) fn jobs(args: &UploadArgs, token: Option<Secret>) -> Result<Vec<UploadJob>, CommandError> {
    check_files(args)?;
    let templates = VideoTemplates::of(&args.description)?;
    let options = |name: &Path, index| {
        let mut upload = upload_options(args, token.clone());
        upload.video = templates.video(name, index);
        Rc::new(JobOptions { upload, if_new: IfNew::Start, force: args.force })
    };
    // A long command line holds its options once, if they are all equal.
    let common = templates.are_constant().then(|| options(Path::new(""), 0));
    let files = args.files.iter().filter(|file| !is_stdin(file)).cloned();
    let mut stats = file_stat::stats(files.collect()).into_iter();
    let job = |(index, file): (usize, &Path)| {
        let stdin = args.transfer.name.as_deref().unwrap_or(STDIN_NAME);
        let name = if is_stdin(file) { Path::new(stdin) } else { file };
        let options = common.clone().unwrap_or_else(|| options(name, index));
        if is_stdin(file) {
            return stdin_job(index, stdin, options);
        }
        UploadJob::with_stat(index, file, stats.next().unwrap_or_default(), options)
    };
    Ok(merged(args.files.iter().map(PathBuf::as_path).enumerate().map(job)))
}

/// Fails if the files contradict the flags.
fn check_files(args: &UploadArgs) -> Result<(), CommandError> {
    let stdin = args.files.iter().filter(|file| is_stdin(file)).count();
    if stdin > 1 {
        return Err(CommandError::usage("standard input (`-`) can be uploaded only once"));
    }
    if stdin == 0 && (args.transfer.name.is_some() || args.transfer.expected_size.is_some()) {
        return Err(CommandError::usage(
            "--name and --expected-size apply to standard input only: add `-` to the files",
        ));
    }
    if args.files.len() > 1 && args.destination.video_id.is_some() {
        return Err(CommandError::usage("--video-id selects a single video, which takes a single file"));
    }
    Ok(())
}

/// Returns the options of every upload of the command line, except the video to create.
fn upload_options(args: &UploadArgs, token: Option<Secret>) -> UploadOptions {
    let mut options = UploadOptions::default();
    options.video_id = args.destination.video_id.clone();
    options.upload_token = token;
    options.mode = args.transfer.chunks.mode;
    options.chunk_size = args.transfer.chunks.chunk_size;
    options.expected_bytes = args.transfer.expected_size.map(|size| size.0);
    options.on_change = args.transfer.chunks.on_change;
    options
}

/// Merges several names of the same file into one job, because two uploads would create two videos.
fn merged(jobs: impl Iterator<Item = UploadJob>) -> Vec<UploadJob> {
    let (mut merged, mut places) = (Vec::new(), HashMap::new());
    for job in jobs {
        match job.id.map(|id| *places.entry(id).or_insert(merged.len())) {
            Some(place) if place < merged.len() => {
                let first: &mut UploadJob = &mut merged[place];
                first.also.push(job.name);
            }
            _ => merged.push(job),
        }
    }
    merged
}

fn stdin_job(index: usize, stdin: &str, options: Rc<JobOptions>) -> UploadJob {
    let (name, also, bytes) = (stdin.to_owned(), Vec::new(), options.upload.expected_bytes);
    UploadJob { index, name, also, id: None, source: UploadJobSource::Stdin, bytes, options }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Checks the plan of standard input before any other job starts.
pub(super) fn check_stdin(jobs: &[UploadJob], settings: &Settings) -> Result<(), CommandError> {
    let stdin = jobs.iter().find(|job| job.source == UploadJobSource::Stdin);
    stdin.map_or(Ok(()), |job| job.stream_plan(settings).map(drop)).map_err(CommandError::from)
}

/// Prints the plans. Sends and creates nothing.
pub(super) fn show(
    jobs: &[UploadJob],
    settings: &Settings,
    console: &Console,
) -> Result<Summary, CommandError> {
    let ring = probe::check_ring();
    let mut exits = Vec::new();
    let mut batch = BatchForecast::new(jobs, settings);
    for job in jobs {
        match planned(job, settings, &ring, batch.workload(job)) {
            Ok(planned) => {
                batch.add(&planned);
                let planned = Planned { dry_run: true, ..planned };
                let _ = job.emit(console, &JsonEvent::Planned(planned.clone()));
                console.result(describe(&planned));
                for name in &job.also {
                    console.note(format_args!("{name}: the same file as {}, named twice", job.name));
                }
            }
            Err(failure) => {
                let error = error_event(&failure);
                let failed =
                    JsonEvent::FileFailed { file: &job.name, elapsed_ms: 0, resumable: false, error };
                let _ = job.emit(console, &failed);
                console.print_file_error(&job.name, &failure, UploadRemains::Nothing);
                exits.push(failure.exit());
            }
        }
    }
    if jobs.len() > 1 {
        console.note(&batch);
    }
    let totals = RunSummary { files_failed: exits.len(), ..RunSummary::default() };
    Ok(Summary { exit: Exit::of_all(exits), totals, ..Summary::default() })
}

/// The work beside each job of a dry run, if the jobs are uploaded in order and within one minute.
struct BatchForecast {
    /// Jobs without a plan.
    waiting: u64,
    waiting_bytes: u64,
    /// Lengths of the latest planned jobs, as many as are under way at once.
    under_way: VecDeque<u64>,
    transfers: usize,
    requests: u64,
    per_minute: Option<u32>,
}

impl BatchForecast {
    fn new(jobs: &[UploadJob], settings: &Settings) -> BatchForecast {
        BatchForecast {
            waiting: jobs.len() as u64,
            waiting_bytes: jobs.iter().filter_map(|job| job.bytes).sum(),
            under_way: VecDeque::new(),
            transfers: settings.transfers,
            requests: 0,
            per_minute: settings.workload().uploads_per_minute,
        }
    }

    /// Removes the job from the waiting ones and returns the work beside it.
    fn workload(&mut self, job: &UploadJob) -> Workload {
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(job.bytes.unwrap_or(0));
        let used = u32::try_from(self.requests).unwrap_or(u32::MAX);
        let mut work = Workload::alone(self.per_minute);
        work.waiting = self.waiting;
        work.waiting_bytes = self.waiting_bytes;
        work.planned_bytes = self.under_way.iter().sum();
        work.uploads_left = self.per_minute.map(|per_minute| per_minute.saturating_sub(used));
        work
    }

    fn add(&mut self, planned: &Planned) {
        self.requests += u64::from(planned.chunks.unwrap_or(0));
        self.under_way.push_back(planned.bytes.unwrap_or(0));
        if self.under_way.len() >= self.transfers {
            self.under_way.pop_front();
        }
    }
}

impl fmt::Display for BatchForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} upload requests in total", self.requests)?;
        match self.per_minute {
            Some(per_minute) => write!(f, "; at most {per_minute} are allowed per minute"),
            None => Ok(()),
        }
    }
}

/// Returns the plan of a job beside other work. `ring` is the result of [`probe::ring`].
pub(super) fn planned(
    job: &UploadJob,
    settings: &Settings,
    ring: &Result<(), Unavailable>,
    work: Workload,
) -> Result<Planned, CommandError> {
    let outline = outline(job, settings);
    match &job.source {
        UploadJobSource::Stdin => {
            let plan = job.stream_plan(settings)?;
            let mode = event::mode(plan.addressing());
            Ok(Planned { mode, chunk_bytes: Some(plan.chunk_bytes()), ..outline })
        }
        UploadJobSource::File(path) => Ok(of_file(path, outline, cut_of(job), settings, ring, work)?),
    }
}

/// Like [`planned`], but fails if the file's disk does not respond.
pub(super) async fn planned_in_time(
    job: &UploadJob,
    settings: &Settings,
    ring: &Result<(), Unavailable>,
) -> Result<Planned, CommandError> {
    let UploadJobSource::File(path) = &job.source else {
        return planned(job, settings, ring, settings.workload());
    };
    let (outline, cut, after) = (outline(job, settings), cut_of(job), settings.patience.body);
    let (file, settings, ring) = (path.clone(), settings.clone(), ring.clone());
    // Opening a file blocks while its disk does not respond.
    let plan = spawn_blocking(move || of_file(&file, outline, cut, &settings, &ring, settings.workload()));
    match timeout(after, plan).await {
        Ok(Ok(planned)) => Ok(planned?),
        Ok(Err(stopped)) => {
            let why = format!("could not plan {}: {stopped}", visible(&job.name));
            Err(CommandError::Other(Exit::Failed, why))
        }
        Err(_) => Err(Error::from(SourceError::Silent { path: path.clone(), after }).into()),
    }
}

fn cut_of(job: &UploadJob) -> (Mode, ChunkSize) {
    (job.options.upload.mode, job.options.upload.chunk_size)
}

/// Returns the part of the plan that does not depend on the file.
fn outline(job: &UploadJob, settings: &Settings) -> Planned {
    Planned {
        file: job.name.clone(),
        bytes: job.bytes,
        mode: event::mode(Addressing::Part),
        chunk_bytes: None,
        chunks: None,
        lanes: settings.lanes,
        reader: None,
        endpoint_url: settings.endpoint_url.clone(),
        dry_run: false,
    }
}

fn of_file(
    path: &Path,
    outline: Planned,
    (mode, chunk_size): (Mode, ChunkSize),
    settings: &Settings,
    ring: &Result<(), Unavailable>,
    work: Workload,
) -> Result<Planned, Error> {
    let file = SourceFile::open(path)?;
    let plan = settings.plan_among(file.len(), mode, chunk_size, work)?;
    Ok(Planned {
        bytes: Some(plan.len()),
        mode: event::mode(plan.addressing()),
        chunk_bytes: Some(plan.chunk_bytes()),
        chunks: Some(plan.chunks()),
        reader: Some(reader(&file, settings, ring)),
        ..outline
    })
}

fn reader(file: &SourceFile, settings: &Settings, ring: &Result<(), Unavailable>) -> String {
    let is_digested = settings.checksum == Checksum::Always && settings.journal.is_some();
    let passes_through = is_digested || settings.endpoint_url.starts_with("https:");
    // Digests, like TLS, need the bytes in this process, which rules out sendfile(2).
    let delivery = if passes_through { Delivery::Tls } else { Delivery::Plain };
    let circumstances = Environment { delivery, sigbus: settings.sigbus, ring };
    probe::choose(settings.reader, file, &circumstances).reader.to_string()
}

fn describe(planned: &Planned) -> String {
    let bytes = planned.bytes.map_or("unknown length".to_owned(), |bytes| Size(bytes).to_string());
    let cut = match (planned.chunks, planned.chunk_bytes) {
        (Some(1), _) | (_, None) => String::new(),
        (Some(chunks), Some(chunk_bytes)) => format!(", {chunks} chunks of {}", Size(chunk_bytes)),
        (None, Some(chunk_bytes)) => format!(", chunks of {}", Size(chunk_bytes)),
    };
    let reader = planned.reader.as_ref().map(|reader| format!(", read by {reader}")).unwrap_or_default();
    let Planned { file, mode, lanes, endpoint_url, .. } = planned;
    let file = visible(file);
    format!("{file}: {bytes} to {endpoint_url}, mode {mode}{cut}, {lanes} lanes{reader}")
}

/// The name of standard input without a name of its own.
const STDIN_NAME: &str = "stdin";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, CliCommand};

    fn args(line: &str) -> UploadArgs {
        match Cli::parse_from(line.split_whitespace()).command {
            CliCommand::Upload(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_that_contradict_the_files_are_refused() {
        for line in
            ["upload - -", "upload --name x a", "upload --expected-size 1G a", "upload --video-id vi a b"]
        {
            let refused = jobs(&args(&format!("ringlift {line}")), None).unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{line}");
        }
        assert_eq!(jobs(&args("ringlift upload --name x --video-id vi -"), None).unwrap()[0].name, "x");
    }

    #[test]
    fn titles_of_several_files_and_of_a_stream_come_from_their_names() {
        let titles = |line: &str| -> Vec<String> {
            let jobs = jobs(&args(&format!("ringlift upload {line}")), None).unwrap();
            jobs.iter().map(|job| job.options.upload.video.title.clone()).collect()
        };
        assert_eq!(titles("--title {index}-{stem} a/b.mp4 c.d.mov - --name e.mp4"), ["1-b", "2-c.d", "3-e"]);
        assert_eq!(titles("--title {name} -"), ["stdin"]);
        assert_eq!(titles("a b"), ["", ""]);
    }

    #[test]
    fn plan_describes_the_chunks_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(12 << 20).unwrap();
        let args = args(&format!("ringlift upload --chunk-size 5M {}", file.path().display()));
        let planned =
            planned(&jobs(&args, None).unwrap()[0], &Settings::default(), &Ok(()), Workload::default())
                .unwrap();
        assert_eq!((planned.mode, planned.chunks, planned.chunk_bytes), ("bytes", Some(3), Some(5 << 20)));
        assert_eq!(planned.bytes, Some(12 << 20));
    }
}
