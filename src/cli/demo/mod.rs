//! `ringlift demo`: uploads in every mode to a built-in server, and verifies what arrived.
//!
//! Each upload is a separate process, so that the CPU time and the memory are those of the client alone.

mod child;
pub(super) mod sample;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlift::bulk::RunSummary;
use ringlift::limits::MAX_SINGLE_BYTES;
use ringlift::server::{Server, ServerSettings, TlsMode};
use ringlift::{Client, FileSha256, Trust};

use super::args::DemoArgs;
use super::client;
use super::console::Console;
use super::demo_result::{DemoResult, DigestCheck, Figures, Scheme};
use super::events::{CommandEvent, CommandResult, Summary};
use super::exit::{CommandError, Exit};
use super::signals::Interrupts;
use super::table::{Align, Table};
use super::values::Size;

pub(super) fn run(args: &DemoArgs, console: &Console) -> CommandResult {
    let mut interrupts = Interrupts::new(console, Some(EXIT_TIMEOUT));
    let place = sample::workplace(args.data.as_deref())?;
    let files = DemoFiles::prepare(args, place.path(), console, &mut interrupts)?;
    let mut rows = Vec::new();
    for scheme in [Scheme::Http, Scheme::Https] {
        let server = DemoServer::start(scheme, place.path())?;
        for mode in MODES {
            console.note(format_args!("uploading over {}, mode {mode}", scheme.name()));
            let row = server.upload(mode, files.of(mode), &mut interrupts)?;
            console.emit(&CommandEvent::Way { row: &row });
            rows.push(row);
        }
    }
    console.result(table(&rows));
    if let Some(slice) = &files.slice {
        let (limit, bytes) = (Size(MAX_SINGLE_BYTES), Size(slice.bytes));
        console.note(format_args!("a request carries at most {limit}: mode single sent the first {bytes}"));
    }
    place.close().map_err(|error| CommandError::io("remove the temporary directory", error))?;
    conclude(&rows).map(Some)
}

fn conclude(rows: &[DemoResult]) -> Result<Summary, CommandError> {
    let failed = rows.iter().filter(|row| row.digest != DigestCheck::Equal).count();
    let totals = RunSummary {
        bytes: rows.iter().map(|row| row.bytes).sum(),
        files_done: rows.len() - failed,
        files_failed: failed,
        ..RunSummary::default()
    };
    let exit = if failed == 0 { Exit::Done } else { Exit::Failed };
    Ok(Summary { exit, totals, ..Summary::default() })
}

/// A file to upload and its digest.
#[derive(Debug)]
struct DemoFile {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// The file, and its beginning if the file is too large for a single request.
#[derive(Debug)]
struct DemoFiles {
    whole: DemoFile,
    slice: Option<DemoFile>,
}

impl DemoFiles {
    fn prepare(
        args: &DemoArgs,
        place: &Path,
        console: &Console,
        interrupts: &mut Interrupts,
    ) -> Result<DemoFiles, CommandError> {
        let (path, bytes) = match &args.file {
            Some(path) => (path.clone(), len_of(path)?),
            None => (place.join(sample::NAME), args.size.0),
        };
        let made_bytes = if args.file.is_none() { bytes } else { 0 };
        // Before the sample fills the disk.
        sample::check_room(place, made_bytes, bytes)?;
        if args.file.is_none() {
            console.note(format_args!("creating a sample of {} in {}", Size(bytes), place.display()));
            sample::make(&path, bytes, interrupts)?;
        }
        let slice = if bytes > MAX_SINGLE_BYTES {
            let slice = sample::cut(&path, place, MAX_SINGLE_BYTES, interrupts)?;
            Some(DemoFile::read(slice, interrupts)?)
        } else {
            None
        };
        Ok(DemoFiles { whole: DemoFile::read(path, interrupts)?, slice })
    }

    fn of(&self, mode: &str) -> &DemoFile {
        match &self.slice {
            Some(slice) if mode == "single" => slice,
            _ => &self.whole,
        }
    }
}

/// Returns the length of a regular file. A device or a pipe may have no end and cannot be compared.
fn len_of(path: &Path) -> Result<u64, CommandError> {
    let metadata =
        fs::metadata(path).map_err(|error| CommandError::io(format!("read {}", path.display()), error))?;
    if !metadata.is_file() {
        return Err(CommandError::usage(format!("{}: is not a regular file", path.display())));
    }
    Ok(metadata.len())
}

impl DemoFile {
    fn read(path: PathBuf, interrupts: &mut Interrupts) -> Result<DemoFile, CommandError> {
        let digest = FileSha256::start(&path)?;
        let sha256 = client::block_on(async {
            tokio::select! {
                sha256 = digest.finish(READ_TIMEOUT) => sha256.map_err(CommandError::from),
                interrupt = interrupts.next() => Err(CommandError::Interrupted(interrupt)),
            }
        })?;
        let bytes = fs::metadata(&path)
            .map_err(|error| CommandError::io(format!("read {}", path.display()), error))?
            .len();
        Ok(DemoFile { path, bytes, sha256 })
    }
}

/// A server for one scheme.
struct DemoServer {
    scheme: Scheme,
    server: Server,
}

impl DemoServer {
    fn start(scheme: Scheme, place: &Path) -> Result<DemoServer, CommandError> {
        let mut settings = ServerSettings::new(place.join(scheme.name()));
        settings.tls = match scheme {
            Scheme::Http => TlsMode::Off,
            Scheme::Https => TlsMode::OwnAuthority,
        };
        // Only the stored bytes are compared, which takes no playable video.
        settings.ingest_delay = Duration::ZERO;
        Ok(DemoServer { scheme, server: Server::start(settings)? })
    }

    /// Uploads in one mode and compares the digests.
    fn upload(
        &self,
        mode: &'static str,
        file: &DemoFile,
        interrupts: &mut Interrupts,
    ) -> Result<DemoResult, CommandError> {
        let uploaded = child::upload(&self.server, mode, &file.path, file.bytes, interrupts)?;
        let digest = match &uploaded {
            Some(figures) => self.compare(figures, file)?,
            None => DigestCheck::NotUploaded,
        };
        let figures = uploaded.unwrap_or_default();
        Ok(DemoResult { way: mode, scheme: self.scheme, bytes: file.bytes, figures, digest })
    }

    /// Compares the stored video with the file, then deletes the video.
    fn compare(&self, figures: &Figures, file: &DemoFile) -> Result<DigestCheck, CommandError> {
        let video_id = &figures.video_id;
        let arrived = self.server.source_sha256(video_id).ok_or_else(|| unreadable(video_id))?;
        // Before the next mode: the free space was checked for one stored video.
        client::block_on(async { Ok(self.client()?.delete_video(video_id).await?) })?;
        Ok(if arrived == file.sha256 { DigestCheck::Equal } else { DigestCheck::Different })
    }

    fn client(&self) -> Result<Client, CommandError> {
        let trust = Trust { ca_certs: self.server.ca_path().map(Into::into).into_iter().collect() };
        let (url, api_key) = (self.server.url(), self.server.api_key());
        let builder = Client::builder().endpoint_url(url).api_key(api_key);
        Ok(builder.with(|settings| settings.trust = trust).build()?)
    }
}

fn unreadable(video_id: &str) -> CommandError {
    CommandError::Other(Exit::Failed, format!("the server has no digest of video {video_id}"))
}

fn table(rows: &[DemoResult]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("MODE", Left),
        ("SCHEME", Left),
        ("SENT", Right),
        ("CHUNKS", Right),
        ("LANES", Right),
        ("GiB/s", Right),
        ("CPU s/GiB", Right),
        ("PEAK MEMORY", Right),
        ("SHA-256", Left),
    ];
    let mut table = Table::new(columns);
    for row in rows {
        table.row(cells(row));
    }
    table.to_string()
}

fn cells(row: &DemoResult) -> [String; 9] {
    let gib = row.bytes as f64 / (1u64 << 30) as f64;
    let Figures { chunks, lanes, elapsed_ms, usage, .. } = &row.figures;
    let per = |amount: f64, divisor: f64| {
        if divisor > 0.0 { format!("{:.2}", amount / divisor) } else { "-".to_owned() }
    };
    let digest = match row.digest {
        DigestCheck::Equal => "equal",
        DigestCheck::Different => "DIFFERENT",
        DigestCheck::NotUploaded => "not uploaded",
    };
    [
        row.way.to_owned(),
        row.scheme.name().to_owned(),
        Size(row.bytes).to_string(),
        chunks.to_string(),
        lanes.to_string(),
        per(gib, *elapsed_ms as f64 / 1000.0),
        per(usage.cpu_ms as f64 / 1000.0, gib),
        format!("{:.1} MiB", usage.peak_anonymous_bytes as f64 / (1u64 << 20) as f64),
        digest.to_owned(),
    ]
}

/// Longest time that the demonstration continues after a signal.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time without a byte read from the file.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

const MODES: [&str; 3] = ["single", "bytes", "parts"];
