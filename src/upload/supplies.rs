//! The source of one upload, opened and cut before anything is created or sent.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::source::{
    CancelGuard, Choice, Delivery, Environment, HeldChunk, MemoryBudget, PipeReader, SourceError, SourceFile,
    Strictness, probe,
};
use crate::upload::chunks::Cut;
use crate::upload::client::Settings;
use crate::upload::crew::Surroundings;
use crate::upload::feed::{self, Feed, Filling};
use crate::upload::pace::{Sizing, chunk_bytes_for};
use crate::upload::worker::Supply;
use crate::upload::{Checksum, ChunkSize, Input, Mode, OnChange, UploadRequest};
use crate::wire::limits::{MAX_PARTS, MAX_SINGLE_BYTES, MIB, MIN_CHUNK_BYTES};
use crate::wire::{Addressing, Plan, plan};

/// Where the chunks' bytes come from.
pub(super) enum Supplies {
    File {
        file: SourceFile,
        choice: Choice,
    },
    Stream {
        held: BTreeMap<u32, HeldChunk>,
        /// Lets go of the stream with the upload.
        _demand: CancelGuard,
    },
}

impl Supplies {
    /// What a lane needs to send the chunk at `index`.
    pub(super) fn supply(&self, index: u32) -> Option<Supply> {
        match self {
            Supplies::File { file, choice } => Some(Supply::File(file.clone(), choice.clone())),
            Supplies::Stream { held, .. } => Some(Supply::Held(held.get(&index)?.clone())),
        }
    }

    /// Returns `true` where digests of the chunks can be computed on their way, and serve a purpose: the kernel does
    /// not send the file by itself, and a stream cannot be read again.
    pub(super) fn pass_through(&self) -> bool {
        match self {
            Supplies::File { choice, .. } => choice.delivery == Delivery::Tls,
            Supplies::Stream { .. } => false,
        }
    }

    /// The file, when it is one.
    pub(super) fn file(&self) -> Option<&SourceFile> {
        match self {
            Supplies::File { file, .. } => Some(file),
            Supplies::Stream { .. } => None,
        }
    }
}

/// A source that can be read, and how it is cut.
pub(super) struct Opened {
    pub(super) cut: Cut,
    pub(super) supplies: Supplies,
    pub(super) file_name: Arc<str>,
    /// What a stream gives.
    pub(super) inbox: Option<mpsc::Receiver<Filling>>,
}

/// How the source is to be cut.
#[derive(Clone, Copy, Debug)]
struct Wish {
    mode: Mode,
    chunk_size: ChunkSize,
    expected_bytes: Option<u64>,
    on_change: OnChange,
}

/// Opens the source and plans. Takes the reader out of the request.
pub(super) fn open(
    request: &mut UploadRequest,
    settings: &Settings,
    surroundings: Surroundings,
    memory: &MemoryBudget,
) -> LocalBoxFuture<'static, Result<Opened>> {
    let UploadRequest { mode, chunk_size, expected_bytes, on_change, .. } = *request;
    let wish = Wish { mode, chunk_size, expected_bytes, on_change };
    match &mut request.input {
        Input::File(path) => {
            let (path, file, settings) = (path.clone(), path.clone(), settings.clone());
            let silence = settings.patience.body;
            Box::pin(answered(path, silence, move || open_file(file, wish, &settings, &surroundings)))
        }
        Input::Reader(name, reader) => {
            let reader = mem::replace(reader, Box::new(io::empty()));
            Box::pin(ready(open_stream(name.clone(), reader, wish, settings, memory)))
        }
    }
}

/// Asks a file's disk on a thread of its own, and gives it up when it is silent. The thread goes on until the
/// kernel lets go of it.
pub(super) async fn answered<T: Send + 'static>(
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

fn open_file(path: PathBuf, wish: Wish, settings: &Settings, surroundings: &Surroundings) -> Result<Opened> {
    let file = SourceFile::open(&path)?.with_strictness(match wish.on_change {
        OnChange::Fail | OnChange::Restart => Strictness::Content,
        OnChange::Strict => Strictness::Attributes,
    });
    let plan = settings.plan(file.len(), wish.mode, wish.chunk_size)?;
    let Surroundings { delivery, ring } = surroundings;
    // The bytes are read here for their digests, as over TLS to be encrypted.
    let is_digested = settings.checksum == Checksum::Always && settings.journal.is_some();
    let delivery = if is_digested { Delivery::Tls } else { *delivery };
    let environment = Environment { delivery, sigbus: settings.sigbus, ring };
    let choice = probe::choose(settings.reader, &file, &environment);
    tracing::info!(file = %path.display(), reader = %choice.reader, why = %choice.reason, "reader chosen");
    let supplies = Supplies::File { file, choice };
    Ok(Opened { cut: Cut::Planned(plan), supplies, file_name: file_name(&path), inbox: None })
}

fn file_name(path: &Path) -> Arc<str> {
    path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into())
}

fn open_stream(
    name: String,
    reader: Box<dyn Read + Send>,
    wish: Wish,
    settings: &Settings,
    memory: &MemoryBudget,
) -> Result<Opened> {
    let chunk_bytes = settings.plan_stream(&name, wish.mode, wish.chunk_size, wish.expected_bytes)?;
    let pipe = PipeReader::new(reader, &name, chunk_bytes, memory.clone())?;
    let Feed { inbox, demand } = feed::start(pipe)?;
    let supplies = Supplies::Stream { held: BTreeMap::new(), _demand: demand };
    Ok(Opened { cut: Cut::Stream, supplies, file_name: name.into(), inbox: Some(inbox) })
}

impl Settings {
    /// How an upload with these settings cuts a file of `len` bytes, and names the chunks on the wire.
    ///
    /// # Errors
    /// When the file or the chunk size is outside the limits of [`limits`](crate::wire::limits).
    pub fn plan(&self, len: u64, mode: Mode, chunk_size: ChunkSize) -> Result<Plan> {
        let chunk_bytes = match chunk_size {
            ChunkSize::Auto => {
                let lanes = u32::try_from(self.lanes).unwrap_or(u32::MAX);
                let uploads_per_minute = self.caps.most_uploads_a_minute();
                let bytes_per_second = self.bandwidth.limit().map(NonZeroU64::get);
                chunk_bytes_for(&Sizing { uploads_per_minute, bytes_per_second, ..Sizing::new(len, lanes) })
            }
            ChunkSize::Bytes(bytes) => bytes,
        };
        let addressing = match mode {
            Mode::Single => Addressing::Single,
            Mode::Bytes => Addressing::ByteRange,
            Mode::Parts => Addressing::Part,
            Mode::Auto if len <= chunk_bytes.min(MAX_SINGLE_BYTES) => Addressing::Single,
            Mode::Auto => Addressing::ByteRange,
        };
        Ok(Plan::new(len, chunk_bytes, addressing)?)
    }

    /// How many bytes the chunks of a stream have that is called `name` in errors, of which about
    /// `expected_bytes` are expected. Streams go in parts, and every chunk is held in memory.
    ///
    /// # Errors
    /// When a stream cannot go that way, when its chunks would be outside the limits of
    /// [`limits`](crate::wire::limits), or when [`Settings::buffer_bytes`] has no room for one.
    pub fn plan_stream(
        &self,
        name: &str,
        mode: Mode,
        chunk_size: ChunkSize,
        expected_bytes: Option<u64>,
    ) -> Result<u64> {
        if matches!(mode, Mode::Single | Mode::Bytes) {
            let reason = "its length is not known, and only parts (--mode parts) can do without";
            return Err(Error::new(ErrorKind::PlanImpossible, format!("upload {name}")).because(reason));
        }
        let chunk_bytes = match chunk_size {
            ChunkSize::Auto => self.stream_chunk_bytes(expected_bytes.unwrap_or(0)),
            ChunkSize::Bytes(bytes) => bytes,
        };
        plan::check_chunk_bytes(chunk_bytes)?;
        if let Some(len @ 1..) = expected_bytes {
            Plan::new(len, chunk_bytes, Addressing::Part)?;
        }
        let (needed, budget_bytes) = (MemoryBudget::least_for(chunk_bytes), self.buffer_bytes);
        if budget_bytes < needed {
            return Err(SourceError::Budget { name: name.into(), chunk_bytes, needed, budget_bytes }.into());
        }
        Ok(chunk_bytes)
    }

    /// Less than usual where the memory has no room for more, and more where the parts would be too many.
    fn stream_chunk_bytes(&self, expected_bytes: u64) -> u64 {
        let room = self.buffer_bytes / MIB * MIB;
        let usual = STREAM_CHUNK_BYTES.min(room).max(MIN_CHUNK_BYTES);
        expected_bytes.div_ceil(MAX_PARTS).max(usual)
    }
}

/// Chunk bytes of a stream when nobody chose: every lane's chunk is held in memory.
const STREAM_CHUNK_BYTES: u64 = 16 * MIB;
