//! One upload under way: its session, its source, and who waits for it.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{NewVideo, Video, delegated_path, source_path};
use crate::error::{Error, ErrorKind, Result};
use crate::source::pipe::Place;
use crate::source::{Choice, HeldChunk, PipeReader, SourceFile, probe};
use crate::upload::chunks::{Cut, Last};
use crate::upload::client::Settings;
use crate::upload::crew::Crew;
use crate::upload::driver::{Event, Halt, Job};
use crate::upload::feed::{self, Filling};
use crate::upload::progress::Gauge;
use crate::upload::session::{Access, Dispatch, Session, Spec};
use crate::upload::worker::{LaneIndex, Order, SessionId, Supply};
use crate::upload::{ChunkSize, Destination, Input, Mode, Progress, Uploaded};
use crate::wire::limits::{DEFAULT_CHUNK_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, MIB};
use crate::wire::{Addressing, Plan, plan};

/// An upload under way.
pub(super) struct Active {
    pub(super) session: Session,
    /// The lanes that send chunks of it.
    pub(super) lanes: HashMap<LaneIndex, Gauge>,
    /// What the last refused or accepted attempt proved itself with.
    pub(super) used_authorization: Option<HeaderValue>,
    /// Whether the container was created for this upload.
    pub(super) made_container: bool,
    supplies: Supplies,
    destination: Destination,
    file_name: Arc<str>,
    video: Option<Video>,
    reply: oneshot::Sender<Result<Uploaded>>,
    publish: watch::Sender<Progress>,
    on_progress: Option<Box<dyn FnMut(&Progress) + Send>>,
    cancel: watch::Sender<bool>,
    begun: Instant,
}

/// Where the chunks' bytes come from.
enum Supplies {
    File { file: SourceFile, choice: Choice },
    Stream { held: BTreeMap<u32, HeldChunk>, inbox: Option<mpsc::Receiver<Filling>> },
}

impl Active {
    /// Opens the source and plans, before anything is created or sent. `None` when that fails and the
    /// caller has been told; otherwise the upload and what is to be waited for.
    pub(super) fn prepare(
        id: SessionId,
        job: Job,
        settings: &Settings,
        crew: &Crew,
    ) -> Option<(Active, Vec<LocalBoxFuture<'static, Event>>)> {
        let Job { request, reply, publish, halted, on_progress } = job;
        let destination = request.destination.unwrap_or(Destination::NewVideo(request.video));
        let opened = match request.input {
            Input::File(path) => open_file(path, request.mode, request.chunk_size, settings, crew),
            Input::Reader(name, reader) => {
                open_stream(name, reader, request.mode, request.chunk_size, request.expected_bytes, settings)
            }
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The caller may have dropped its future.
                let _ = reply.send(Err(error));
                return None;
            }
        };
        let (cancel, _) = watch::channel(false);
        let mut active = Active {
            session: Session::new(spec(&destination, opened.cut, settings), Instant::now()),
            lanes: HashMap::new(),
            used_authorization: None,
            made_container: false,
            supplies: opened.supplies,
            destination,
            file_name: opened.file_name,
            video: None,
            reply,
            publish,
            on_progress,
            cancel,
            begun: Instant::now(),
        };
        let mut tasks = vec![next_halt(id, halted)];
        if let Supplies::Stream { inbox, .. } = &mut active.supplies {
            tasks.extend(inbox.take().map(|inbox| next_filling(id, inbox)));
        }
        Some((active, tasks))
    }

    /// Whether its requests prove themselves with the API key.
    pub(super) fn needs_key(&self) -> bool {
        !matches!(self.destination, Destination::Delegated { .. })
    }

    /// The container to create, titled after the file where nothing else was said.
    pub(super) fn new_video(&self) -> NewVideo {
        let mut video = match &self.destination {
            Destination::NewVideo(video) => video.clone(),
            Destination::Video(_) | Destination::Delegated { .. } => NewVideo::default(),
        };
        if video.title.is_empty() {
            video.title = self.file_name.to_string();
        }
        video
    }

    /// The order for a chunk of it.
    pub(super) fn order(
        &self,
        id: SessionId,
        dispatch: Dispatch,
        authorization: Option<HeaderValue>,
    ) -> Option<Order> {
        let supply = match &self.supplies {
            Supplies::File { file, choice } => Supply::File(file.clone(), choice.clone()),
            Supplies::Stream { held, .. } => Supply::Held(held.get(&dispatch.chunk.index)?.clone()),
        };
        let (target, video_id_field) = match (&self.destination, dispatch.video_id) {
            (Destination::Delegated { token, .. }, video_id) => (delegated_path(token), video_id),
            (Destination::NewVideo(_) | Destination::Video(_), video_id) => (source_path(&video_id?), None),
        };
        Some(Order {
            session: id,
            chunk: dispatch.chunk,
            supply,
            target,
            content_range: dispatch.content_range,
            authorization,
            video_id_field,
            file_name: self.file_name.clone(),
            cancelled: self.cancel.subscribe(),
        })
    }

    /// Keeps the description that came with the last chunk.
    pub(super) fn take_video(&mut self, video: Option<Box<Video>>) {
        if let Some(video) = video {
            self.video = Some(*video);
        }
    }

    /// What the service has need not be held any longer.
    pub(super) fn release_stored(&mut self) {
        if let Supplies::Stream { held, .. } = &mut self.supplies {
            let chunks = self.session.chunks();
            held.retain(|&index, _| !chunks.is_stored(index));
        }
    }

    /// Takes in what the stream gave, and waits for more.
    pub(super) fn take_filling(
        &mut self,
        id: SessionId,
        filling: Filling,
        inbox: mpsc::Receiver<Filling>,
    ) -> LocalBoxFuture<'static, Event> {
        match filling {
            Filling::Chunk(chunk) => {
                let (extent, last) = (chunk.extent(), chunk.place().into());
                if let Supplies::Stream { held, .. } = &mut self.supplies {
                    held.insert(self.session.chunks().known(), chunk);
                }
                self.session.handle_filled(extent, last);
            }
            Filling::Failed(error) => self.session.handle_failure(error),
        }
        next_filling(id, inbox)
    }

    /// Ends it early as its handle asks, and waits for the next word.
    pub(super) fn halt(
        &mut self,
        id: SessionId,
        halt: Halt,
        halted: watch::Receiver<Halt>,
    ) -> Option<LocalBoxFuture<'static, Event>> {
        match halt {
            Halt::No => {}
            Halt::AfterChunks => self.session.stop(),
            Halt::Now => {
                self.session.handle_failure(Error::new(ErrorKind::Cancelled, "finish the upload"));
                return None;
            }
        }
        Some(next_halt(id, halted))
    }

    /// Tells whoever watches how far it is.
    pub(super) fn publish_progress(&mut self) {
        let chunks = self.session.chunks();
        let acknowledged = chunks.stored_bytes();
        let newer = Progress {
            total_bytes: chunks.total_bytes(),
            read_bytes: acknowledged + self.lanes.values().map(Gauge::read_bytes).sum::<u64>(),
            sent_bytes: acknowledged + self.lanes.values().map(Gauge::sent_bytes).sum::<u64>(),
            acknowledged_bytes: acknowledged,
            resent_bytes: self.session.resent_bytes(),
            acknowledged_chunks: chunks.stored(),
            retries: self.session.retries(),
            video_id: self.session.video_id().map(str::to_owned),
        };
        let on_progress = &mut self.on_progress;
        self.publish.send_if_modified(|progress| {
            let changed = progress.advance(newer);
            if changed && let Some(callback) = on_progress {
                callback(progress);
            }
            changed
        });
    }

    /// Answers whoever waits for it.
    pub(super) fn finish(mut self) {
        self.publish_progress();
        self.cancel.send_replace(true);
        let uploaded = match self.session.take_result() {
            Some(Ok(_)) => self.check_source().map(|()| self.uploaded()),
            Some(Err(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Internal, "end an upload that had no end")),
        };
        let uploaded = uploaded.map_err(|error| match self.session.video_id() {
            Some(video_id) if self.made_container => error.with_video_id(video_id),
            _ => error,
        });
        // The caller may have dropped its future.
        let _ = self.reply.send(uploaded);
    }

    fn check_source(&self) -> Result<()> {
        match &self.supplies {
            Supplies::File { file, .. } => Ok(file.check_unchanged()?),
            Supplies::Stream { .. } => Ok(()),
        }
    }

    fn uploaded(&self) -> Uploaded {
        let chunks = self.session.chunks();
        Uploaded {
            video_id: self.session.video_id().unwrap_or_default().to_owned(),
            video: self.video.clone(),
            bytes: chunks.total_bytes().unwrap_or_else(|| chunks.stored_bytes()),
            chunks: chunks.known(),
            addressing: chunks.addressing(),
            reader: match &self.supplies {
                Supplies::File { choice, .. } => Some(choice.reader),
                Supplies::Stream { .. } => None,
            },
            retries: self.session.retries(),
            resent_bytes: self.session.resent_bytes(),
            elapsed: self.begun.elapsed(),
        }
    }
}

fn next_filling(id: SessionId, mut inbox: mpsc::Receiver<Filling>) -> LocalBoxFuture<'static, Event> {
    Box::pin(async move {
        match inbox.recv().await {
            Some(filling) => Event::Filled(id, filling, inbox),
            None => Event::Done,
        }
    })
}

fn next_halt(id: SessionId, mut halted: watch::Receiver<Halt>) -> LocalBoxFuture<'static, Event> {
    Box::pin(async move {
        let halt = match halted.changed().await {
            Ok(()) => *halted.borrow_and_update(),
            Err(_) => Halt::Now,
        };
        Event::Halted(id, halt, halted)
    })
}

fn spec(destination: &Destination, cut: Cut, settings: &Settings) -> Spec {
    let (access, video_id) = match destination {
        Destination::NewVideo(_) => (Access::Key, None),
        Destination::Video(video_id) => (Access::Key, Some(video_id.clone())),
        Destination::Delegated { video_id, .. } => (Access::Token, video_id.clone()),
    };
    Spec { cut, access, video_id, resumed: None, policy: settings.retry.clone() }
}

impl From<Place> for Last {
    fn from(place: Place) -> Last {
        match place {
            Place::Last => Last::Yes,
            Place::Middle => Last::No,
        }
    }
}

/// A source that can be read, and how it is cut.
struct Opened {
    cut: Cut,
    supplies: Supplies,
    file_name: Arc<str>,
}

fn open_file(
    path: PathBuf,
    mode: Mode,
    chunk_size: ChunkSize,
    settings: &Settings,
    crew: &Crew,
) -> Result<Opened> {
    let file = SourceFile::open(&path)?;
    let plan = plan_file(file.len(), mode, chunk_size)?;
    let choice = probe::choose(settings.reader, &file, crew.delivery(), crew.ring());
    tracing::info!(file = %path.display(), reader = %choice.reader, why = %choice.why, "reader chosen");
    let supplies = Supplies::File { file, choice };
    Ok(Opened { cut: Cut::Planned(plan), supplies, file_name: file_name(&path) })
}

fn file_name(path: &Path) -> Arc<str> {
    path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into())
}

fn open_stream(
    name: String,
    reader: Box<dyn Read + Send>,
    mode: Mode,
    chunk_size: ChunkSize,
    expected_bytes: Option<u64>,
    settings: &Settings,
) -> Result<Opened> {
    if matches!(mode, Mode::Single | Mode::Bytes) {
        let reason = "its length is not known, and only parts (--mode parts) can do without";
        return Err(Error::new(ErrorKind::PlanImpossible, format!("upload {name}")).because(reason));
    }
    let chunk_bytes = match chunk_size {
        ChunkSize::Auto => {
            expected_bytes.map_or(STREAM_CHUNK_BYTES, |len| len.div_ceil(MAX_PARTS).max(STREAM_CHUNK_BYTES))
        }
        ChunkSize::Bytes(bytes) => bytes,
    };
    plan::check_chunk_bytes(chunk_bytes)?;
    let pipe = PipeReader::new(reader, &name, chunk_bytes, settings.buffer_bytes)?;
    let supplies = Supplies::Stream { held: BTreeMap::new(), inbox: Some(feed::start(pipe)?) };
    Ok(Opened { cut: Cut::Stream, supplies, file_name: name.into() })
}

fn plan_file(len: u64, mode: Mode, chunk_size: ChunkSize) -> Result<Plan> {
    let chunk_bytes = match chunk_size {
        ChunkSize::Auto => DEFAULT_CHUNK_BYTES,
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

/// Chunk bytes of a stream when nobody chose: every lane's chunk is held in memory.
const STREAM_CHUNK_BYTES: u64 = 16 * MIB;
