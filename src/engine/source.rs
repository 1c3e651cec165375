//! The source of one upload, opened and cut before anything is created or sent.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, ready};
use tokio::sync::mpsc;

use crate::engine::options::{Checksum, ChunkSize, Mode, OnChange, UploadOptions};
use crate::engine::request::{SourceSpec, UploadRequest};
use crate::engine::settings::Settings;
use crate::engine::size::Size;
use crate::engine::stream_input::StreamInput;
use crate::engine::stream_reader::{self, StreamDemand, StreamEvent, StreamReader};
use crate::engine::worker::ChunkSource;
use crate::engine::workers::ReaderEnvironment;
use crate::error::{Error, ErrorKind, Result};
use crate::pacing::Workload;
use crate::session::chunks::Layout;
use crate::source::{
    Choice, Delivery, Environment, HeldChunk, MemoryBudget, PipeReader, SourceError, SourceFile, Strictness,
    probe,
};
use crate::wire::{Addressing, Plan};

/// The source of the chunks' bytes.
pub(crate) enum UploadSource {
    File {
        file: SourceFile,
        choice: Choice,
    },
    Stream {
        held: BTreeMap<u32, HeldChunk>,
        /// Stops the stream's reader when dropped.
        _demand: StreamDemand,
    },
    Memory {
        name: PathBuf,
        bytes: Bytes,
        plan: Plan,
    },
}

impl UploadSource {
    /// Returns the bytes of the chunk at `index`, for a lane to send; `None` if a stream's chunk is not held.
    pub(crate) fn chunk_source(&self, index: u32) -> Option<ChunkSource> {
        match self {
            UploadSource::File { file, choice } => Some(ChunkSource::File(file.clone(), choice.clone())),
            UploadSource::Stream { held, .. } => Some(ChunkSource::Held(held.get(&index)?.clone())),
            UploadSource::Memory { name, bytes, plan } => {
                let (extent, is_last) = (plan.chunk(index).extent, index + 1 == plan.chunks());
                // The plan was made for the length of these bytes, which fits into memory.
                let bytes = bytes.slice(extent.offset() as usize..extent.end() as usize);
                Some(ChunkSource::Held(HeldChunk::of_bytes(name, extent, is_last, &bytes)))
            }
        }
    }

    /// Returns `true` if digests of the chunks can be computed while they are sent, and are useful. On plain HTTP the
    /// kernel sends the file without passing its bytes through this process, and other sources cannot be resumed.
    pub(crate) fn pass_through(&self) -> bool {
        match self {
            UploadSource::File { choice, .. } => choice.delivery == Delivery::Tls,
            UploadSource::Stream { .. } | UploadSource::Memory { .. } => false,
        }
    }

    /// Returns the file; `None` for a source without one.
    pub(crate) fn file(&self) -> Option<&SourceFile> {
        match self {
            UploadSource::File { file, .. } => Some(file),
            UploadSource::Stream { .. } | UploadSource::Memory { .. } => None,
        }
    }
}

/// An open source and its layout.
pub(crate) struct OpenedSource {
    pub(crate) cut: Layout,
    pub(crate) source: UploadSource,
    pub(crate) file_name: Arc<str>,
    /// The chunks of a stream; `None` for a file.
    pub(crate) inbox: Option<mpsc::Receiver<StreamEvent>>,
}

/// Opens the source and plans its chunks beside the other work. Takes the bytes or the stream out of the request.
pub(crate) fn open(
    request: &mut UploadRequest,
    settings: &Settings,
    environment: ReaderEnvironment,
    work: Workload,
    memory: &MemoryBudget,
) -> LocalBoxFuture<'static, Result<OpenedSource>> {
    let UploadRequest { input, len, options, .. } = request;
    match input {
        SourceSpec::File(path) => {
            let (path, file, settings) = (path.clone(), path.clone(), settings.clone());
            let (silence, len, options) = (settings.patience.body, *len, options.clone());
            Box::pin(within_patience(path, silence, move || {
                open_file(file, len, &options, &settings, &environment, work)
            }))
        }
        SourceSpec::Memory(name, bytes) => {
            Box::pin(ready(open_bytes(name, mem::take(bytes), *len, options, settings, work)))
        }
        SourceSpec::Stream(name, input) => {
            // Moved out: a stream cannot be read twice, so that no restart needs it.
            let input = mem::replace(input, StreamInput::Blocking(Box::new(io::empty())));
            Box::pin(ready(open_stream(name, input, *len, options, settings, memory)))
        }
    }
}

/// Runs `ask`, which accesses a disk, on a blocking thread. Fails if it takes longer than `silence`; the thread then
/// runs on until the kernel returns.
pub(crate) async fn within_patience<T: Send + 'static>(
    path: PathBuf,
    silence: Duration,
    ask: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(silence, tokio::task::spawn_blocking(ask)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(stopped)) => Err(Error::new(ErrorKind::Internal, "look at the file").with_source(stopped)),
        Err(_) => Err(SourceError::Silent { path, after: silence }.into()),
    }
}

fn open_file(
    path: PathBuf,
    stated_len: Option<u64>,
    options: &UploadOptions,
    settings: &Settings,
    environment: &ReaderEnvironment,
    work: Workload,
) -> Result<OpenedSource> {
    let file = SourceFile::open(&path)?.with_strictness(match options.on_change {
        OnChange::Fail | OnChange::Restart => Strictness::Content,
        OnChange::Strict => Strictness::Attributes,
    });
    check_len(&path, file.len(), stated_len)?;
    let plan = settings.plan_among(file.len(), options.mode, options.chunk_size, work)?;
    let ReaderEnvironment { delivery, ring } = environment;
    // Digests need the bytes in this process, just as encryption does.
    let is_digested = settings.checksum == Checksum::Always;
    let delivery = if is_digested { Delivery::Tls } else { *delivery };
    let environment = Environment { delivery, sigbus: settings.sigbus, ring };
    let choice = probe::choose(settings.reader, &file, &environment);
    // The reasons take longer than the open itself: an endpoint is parsed for them.
    if tracing::enabled!(tracing::Level::INFO) {
        log_choices(&path, &plan, options, settings, &choice);
    }
    let source = UploadSource::File { file, choice };
    Ok(OpenedSource { cut: Layout::Planned(plan), source, file_name: file_name(&path), inbox: None })
}

/// Logs how the file is cut, sent and read, and why.
fn log_choices(path: &Path, plan: &Plan, options: &UploadOptions, settings: &Settings, choice: &Choice) {
    let file = path.display();
    let (addressing, mode_reason) = match plan.addressing() {
        Addressing::Single => ("single", "it fits into one request"),
        Addressing::ByteRange => ("bytes", "it is longer than one chunk"),
        Addressing::Part => ("parts", "its length is unknown"),
    };
    let mode_reason = if options.mode == Mode::Auto { mode_reason } else { "as requested" };
    let chunk_reason = chunk_reason(options.chunk_size, settings);
    let (chunks, chunk_size, lanes) =
        (plan.chunks(), Size(plan.chunk_bytes().min(plan.len())), settings.lanes);
    tracing::info!(
        "{file}: mode {addressing} ({mode_reason}), {chunks} chunks of {chunk_size} ({chunk_reason}), over at most \
         {lanes} connections, shared by all files"
    );
    tracing::info!("{file}: reader chosen: {} ({})", choice.reader, choice.reason);
}

fn chunk_reason(chunk_size: ChunkSize, settings: &Settings) -> String {
    let (caps, bandwidth) = (settings.effective_caps(), settings.bandwidth.limit());
    match (chunk_size, caps.most_uploads_a_minute(), bandwidth) {
        (ChunkSize::Bytes(_), ..) => "as requested".to_owned(),
        (ChunkSize::Auto, Some(uploads), _) => format!("for {uploads} requests a minute"),
        (ChunkSize::Auto, None, Some(limit)) => format!("for {} a second", Size(limit.get())),
        (ChunkSize::Auto, None, None) => "so that every connection has a share".to_owned(),
    }
}

fn file_name(path: &Path) -> Arc<str> {
    // The name goes into a header and a title, which are text.
    path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into())
}

fn open_bytes(
    name: &str,
    bytes: Bytes,
    stated_len: Option<u64>,
    options: &UploadOptions,
    settings: &Settings,
    work: Workload,
) -> Result<OpenedSource> {
    let len = bytes.len() as u64;
    check_len(name.as_ref(), len, stated_len)?;
    let plan = settings.plan_among(len, options.mode, options.chunk_size, work)?;
    let source = UploadSource::Memory { name: name.into(), bytes, plan };
    Ok(OpenedSource { cut: Layout::Planned(plan), source, file_name: name.into(), inbox: None })
}

fn open_stream(
    name: &str,
    input: StreamInput,
    stated_len: Option<u64>,
    options: &UploadOptions,
    settings: &Settings,
    memory: &MemoryBudget,
) -> Result<OpenedSource> {
    let (cut, chunk_bytes) = match stated_len {
        Some(len) => {
            let plan = settings.plan_sized_stream(name, len, options)?;
            // The first chunk is the longest: a short stream needs less memory than the chunk size.
            (Layout::PlannedStream(plan), plan.chunk(0).extent.len())
        }
        None => {
            let plan = settings.plan_stream(name, options)?;
            (Layout::Stream(plan), plan.chunk_bytes())
        }
    };
    let (reader, stop) = input.into_reader(settings.patience.body);
    let pipe = PipeReader::new(reader, name, chunk_bytes, memory.clone())?.with_stated_len(stated_len);
    let StreamReader { inbox, demand } = stream_reader::start(pipe, stop)?;
    let source = UploadSource::Stream { held: BTreeMap::new(), _demand: demand };
    Ok(OpenedSource { cut, source, file_name: name.into(), inbox: Some(inbox) })
}

/// Checks the length of a source that is known before it is read.
fn check_len(path: &Path, found: u64, stated: Option<u64>) -> Result<(), SourceError> {
    match stated {
        Some(stated) if found < stated => {
            Err(SourceError::ShorterThanStated { name: path.to_owned(), stated, found })
        }
        Some(stated) if found > stated => {
            Err(SourceError::LongerThanStated { name: path.to_owned(), stated })
        }
        Some(_) | None => Ok(()),
    }
}
