//! The source of one upload, opened and cut before anything is created or sent.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};
use tokio::sync::mpsc;

use crate::engine::options::{Checksum, ChunkSize, Mode, OnChange, UploadOptions};
use crate::engine::request::{SourceSpec, UploadRequest};
use crate::engine::settings::Settings;
use crate::engine::stream_reader::{self, StreamEvent, StreamReader};
use crate::engine::worker::ChunkSource;
use crate::engine::workers::ReaderEnvironment;
use crate::error::{Error, ErrorKind, Result};
use crate::session::chunks::Layout;
use crate::source::{
    CancelGuard, Choice, Delivery, Environment, HeldChunk, MemoryBudget, PipeReader, SourceError, SourceFile,
    Strictness, probe,
};

/// The source of the chunks' bytes.
pub(crate) enum UploadSource {
    File {
        file: SourceFile,
        choice: Choice,
    },
    Stream {
        held: BTreeMap<u32, HeldChunk>,
        /// Stops the stream's reader when dropped.
        _demand: CancelGuard,
    },
}

impl UploadSource {
    /// Returns the bytes of the chunk at `index`, for a lane to send; `None` if a stream's chunk is not held.
    pub(crate) fn chunk_source(&self, index: u32) -> Option<ChunkSource> {
        match self {
            UploadSource::File { file, choice } => Some(ChunkSource::File(file.clone(), choice.clone())),
            UploadSource::Stream { held, .. } => Some(ChunkSource::Held(held.get(&index)?.clone())),
        }
    }

    /// Returns `true` if digests of the chunks can be computed while they are sent, and are useful. On plain HTTP the
    /// kernel sends the file without passing its bytes through this process, and a stream cannot be read again.
    pub(crate) fn pass_through(&self) -> bool {
        match self {
            UploadSource::File { choice, .. } => choice.delivery == Delivery::Tls,
            UploadSource::Stream { .. } => false,
        }
    }

    /// Returns the file; `None` for a stream.
    pub(crate) fn file(&self) -> Option<&SourceFile> {
        match self {
            UploadSource::File { file, .. } => Some(file),
            UploadSource::Stream { .. } => None,
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

/// The options that determine the layout.
#[derive(Clone, Copy, Debug)]
struct PlanOptions {
    mode: Mode,
    chunk_size: ChunkSize,
    expected_bytes: Option<u64>,
    on_change: OnChange,
}

/// Opens the source and plans its chunks. Takes the reader out of the request.
pub(crate) fn open(
    request: &mut UploadRequest,
    settings: &Settings,
    environment: ReaderEnvironment,
    memory: &MemoryBudget,
) -> LocalBoxFuture<'static, Result<OpenedSource>> {
    let UploadOptions { mode, chunk_size, expected_bytes, on_change, .. } = request.options;
    let options = PlanOptions { mode, chunk_size, expected_bytes, on_change };
    match &mut request.input {
        SourceSpec::File(path) => {
            let (path, file, settings) = (path.clone(), path.clone(), settings.clone());
            let silence = settings.patience.body;
            Box::pin(within_patience(path, silence, move || {
                open_file(file, options, &settings, &environment)
            }))
        }
        SourceSpec::Reader(name, reader) => {
            let reader = mem::replace(reader, Box::new(io::empty()));
            Box::pin(ready(open_stream(name.clone(), reader, options, settings, memory)))
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
    options: PlanOptions,
    settings: &Settings,
    environment: &ReaderEnvironment,
) -> Result<OpenedSource> {
    let file = SourceFile::open(&path)?.with_strictness(match options.on_change {
        OnChange::Fail | OnChange::Restart => Strictness::Content,
        OnChange::Strict => Strictness::Attributes,
    });
    let plan = settings.plan(file.len(), options.mode, options.chunk_size)?;
    let ReaderEnvironment { delivery, ring } = environment;
    // Digests need the bytes in this process, just as encryption does.
    let is_digested = settings.checksum == Checksum::Always && settings.journal.is_some();
    let delivery = if is_digested { Delivery::Tls } else { *delivery };
    let environment = Environment { delivery, sigbus: settings.sigbus, ring };
    let choice = probe::choose(settings.reader, &file, &environment);
    tracing::info!(file = %path.display(), reader = %choice.reader, why = %choice.reason, "reader chosen");
    let source = UploadSource::File { file, choice };
    Ok(OpenedSource { cut: Layout::Planned(plan), source, file_name: file_name(&path), inbox: None })
}

fn file_name(path: &Path) -> Arc<str> {
    path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into())
}

fn open_stream(
    name: String,
    reader: Box<dyn Read + Send>,
    options: PlanOptions,
    settings: &Settings,
    memory: &MemoryBudget,
) -> Result<OpenedSource> {
    let chunk_bytes =
        settings.plan_stream(&name, options.mode, options.chunk_size, options.expected_bytes)?;
    let pipe = PipeReader::new(reader, &name, chunk_bytes, memory.clone())?;
    let StreamReader { inbox, demand } = stream_reader::start(pipe)?;
    let source = UploadSource::Stream { held: BTreeMap::new(), _demand: demand };
    Ok(OpenedSource { cut: Layout::Stream, source, file_name: name.into(), inbox: Some(inbox) })
}
