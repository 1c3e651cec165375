//! `ringlift demo`: every way of uploading, to a server inside this program, and what arrived.
//!
//! Each upload is a process of its own, so that the CPU time and the memory shown are the client's.

mod arrived;
mod child;
mod sample;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlift::server::{Server, ServerSettings, TlsMode};
use ringlift::wire::limits::MAX_SINGLE_BYTES;
use serde::Serialize;

use super::args::DemoArgs;
use super::digest::FileDigest;
use super::events::{Event, Summary};
use super::exit::{Exit, Failure};
use super::screen::Screen;
use super::signals::Interrupts;
use super::table::{Align, Table};
use super::values::Size;
use super::{Ended, client};
use child::Figures;

pub(super) fn run(args: &DemoArgs, screen: &Screen) -> Ended {
    let mut interrupts = Interrupts::new(screen, Some(BOUND));
    let place = sample::workplace(args.data.as_deref())?;
    let subjects = Subjects::prepare(args, place.path(), screen, &mut interrupts)?;
    let mut rows = Vec::new();
    for scheme in [Scheme::Http, Scheme::Https] {
        let stage = Stage::set(scheme, place.path())?;
        for way in WAYS {
            screen.note(format_args!("uploading over {}, mode {way}", scheme.name()));
            let row = stage.play(way, subjects.of(way), &mut interrupts)?;
            screen.event(&Event::Way { row: &row });
            rows.push(row);
        }
    }
    screen.result(table(&rows));
    if let Some(slice) = &subjects.slice {
        let (limit, bytes) = (Size(MAX_SINGLE_BYTES), Size(slice.bytes));
        screen.note(format_args!("one request holds at most {limit}: mode single sent the first {bytes}"));
    }
    place.close().map_err(|error| Failure::io("remove the temporary directory", error))?;
    conclude(&rows).map(Some)
}

fn conclude(rows: &[Row]) -> Result<Summary, Failure> {
    let failed = rows.iter().filter(|row| row.digest != Digest::Equal).count();
    Ok(Summary {
        exit: if failed == 0 { Exit::Done } else { Exit::Failed },
        bytes: rows.iter().map(|row| row.bytes).sum(),
        files_done: rows.len() - failed,
        files_failed: failed,
        ..Summary::default()
    })
}

/// A file and what must arrive of it.
#[derive(Debug)]
struct Subject {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// The file, and the start of it where one request cannot hold it all.
#[derive(Debug)]
struct Subjects {
    whole: Subject,
    slice: Option<Subject>,
}

impl Subjects {
    fn prepare(
        args: &DemoArgs,
        place: &Path,
        screen: &Screen,
        interrupts: &mut Interrupts,
    ) -> Result<Subjects, Failure> {
        let (path, bytes) = match &args.file {
            Some(path) => (path.clone(), len_of(path)?),
            None => (place.join(sample::NAME), args.size.0),
        };
        let made_bytes = if args.file.is_none() { bytes } else { 0 };
        sample::check_room(place, made_bytes, bytes)?;
        if args.file.is_none() {
            screen.note(format_args!("making a sample of {} in {}", Size(bytes), place.display()));
            sample::make(&path, bytes, interrupts)?;
        }
        let slice = match bytes > MAX_SINGLE_BYTES {
            true => {
                let slice = sample::cut(&path, place, MAX_SINGLE_BYTES, interrupts)?;
                Some(Subject::read(slice, interrupts)?)
            }
            false => None,
        };
        Ok(Subjects { whole: Subject::read(path, interrupts)?, slice })
    }

    fn of(&self, way: &str) -> &Subject {
        match &self.slice {
            Some(slice) if way == "single" => slice,
            _ => &self.whole,
        }
    }
}

/// The length of a regular file: what has no end, like a device or a pipe, cannot be compared.
fn len_of(path: &Path) -> Result<u64, Failure> {
    let metadata =
        fs::metadata(path).map_err(|error| Failure::io(format!("read {}", path.display()), error))?;
    match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(Failure::usage(format!("{}: is not a regular file", path.display()))),
    }
}

impl Subject {
    fn read(path: PathBuf, interrupts: &mut Interrupts) -> Result<Subject, Failure> {
        let digest = FileDigest::start(&path)?;
        let sha256 = client::block_on(async {
            tokio::select! {
                sha256 = digest.finish(SILENCE) => sha256,
                interrupt = interrupts.next() => Err(Failure::Interrupted(interrupt)),
            }
        })?;
        let bytes = fs::metadata(&path)
            .map_err(|error| Failure::io(format!("read {}", path.display()), error))?
            .len();
        Ok(Subject { path, bytes, sha256 })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "HTTP",
            Scheme::Https => "HTTPS",
        }
    }
}

/// A server and the scheme it speaks.
struct Stage {
    scheme: Scheme,
    server: Server,
}

impl Stage {
    fn set(scheme: Scheme, place: &Path) -> Result<Stage, Failure> {
        let mut settings = ServerSettings::new(place.join(scheme.name()));
        settings.tls = match scheme {
            Scheme::Http => TlsMode::Off,
            Scheme::Https => TlsMode::OwnAuthority,
        };
        settings.ingest_delay = Duration::ZERO;
        Ok(Stage { scheme, server: Server::start(settings)? })
    }

    /// Uploads by one way and compares what arrived.
    fn play(
        &self,
        way: &'static str,
        subject: &Subject,
        interrupts: &mut Interrupts,
    ) -> Result<Row, Failure> {
        let uploaded = child::upload(&self.server, way, &subject.path, subject.bytes, interrupts)?;
        let digest = match &uploaded {
            Some(figures) => self.compare(figures, subject)?,
            None => Digest::NotUploaded,
        };
        let figures = uploaded.unwrap_or_default();
        Ok(Row { way, scheme: self.scheme, bytes: subject.bytes, figures, digest })
    }

    /// What the server holds, against the file; then the server forgets it.
    fn compare(&self, figures: &Figures, subject: &Subject) -> Result<Digest, Failure> {
        let arrived = client::block_on(arrived::sha256(&self.server, &figures.video_id))?;
        client::block_on(arrived::delete(&self.server, &figures.video_id))?;
        Ok(if arrived == subject.sha256 { Digest::Equal } else { Digest::Different })
    }
}

/// One way of uploading, and what it came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    way: &'static str,
    scheme: Scheme,
    bytes: u64,
    #[serde(flatten)]
    figures: Figures,
    digest: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Digest {
    Equal,
    Different,
    NotUploaded,
}

fn table(rows: &[Row]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("WAY", Left),
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
        table.row(row.cells());
    }
    table.to_string()
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let gib = self.bytes as f64 / (1u64 << 30) as f64;
        let Figures { chunks, lanes, elapsed_ms, usage, .. } = &self.figures;
        let per = |amount: f64, divisor: f64| match divisor > 0.0 {
            true => format!("{:.2}", amount / divisor),
            false => "-".to_owned(),
        };
        let digest = match self.digest {
            Digest::Equal => "equal",
            Digest::Different => "DIFFERENT",
            Digest::NotUploaded => "not uploaded",
        };
        [
            self.way.to_owned(),
            self.scheme.name().to_owned(),
            Size(self.bytes).to_string(),
            chunks.to_string(),
            lanes.to_string(),
            per(gib, *elapsed_ms as f64 / 1000.0),
            per(usage.cpu_ms as f64 / 1000.0, gib),
            format!("{:.1} MiB", usage.peak_anonymous_bytes as f64 / (1u64 << 20) as f64),
            digest.to_owned(),
        ]
    }
}

/// How long the demonstration goes on at most after a signal.
const BOUND: Duration = Duration::from_secs(10);

/// How long the file's disk may give nothing.
const SILENCE: Duration = Duration::from_secs(120);

const WAYS: [&str; 3] = ["single", "bytes", "parts"];
