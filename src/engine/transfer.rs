//! One upload under way: its session, its source, and who waits for it.

mod completion;
mod proving;
mod reporting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Redactor, Secret, Video, delegated_path, source_path};
use crate::engine::claim::{ClaimOutcome, ClaimedUpload, titled};
use crate::engine::command::{UploadCommand, WastedWork};
use crate::engine::creation::{Created, Creation, Mark};
use crate::engine::event::EngineEvent;
use crate::engine::event_log::{AnnouncedDelay, EventSink};
use crate::engine::journal_entry::{JournalEntryGuard, JournalHandle, MarkJournal};
use crate::engine::progress::{Gauge, Progress};
use crate::engine::request::{Checksum, Destination, OnProgress, ReceiptState, StopRequest, Uploaded};
use crate::engine::restart::RestartPlan;
use crate::engine::settings::Settings;
use crate::engine::source::{OpenedSource, UploadSource};
use crate::engine::stream_reader::StreamEvent;
use crate::engine::watchdog::Watchdog;
use crate::engine::worker::{ChunkRequest, ChunkResult, LaneIndex, SessionId};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{ClaimOptions, CreatedBy, Finished};
use crate::session::event::UploadEvent;
use crate::session::{ChunkToSend, Outcome, Session};
use crate::wire::Addressing;

use completion::Check;
pub(crate) use completion::TransferEnd;

/// An upload under way.
pub(crate) struct Transfer {
    pub(crate) session: Session,
    /// The lanes that send chunks of it.
    pub(crate) lanes: HashMap<LaneIndex, (u32, Gauge)>,
    /// What the last refused or accepted attempt proved itself with.
    pub(crate) used_authorization: Option<HeaderValue>,
    /// Whether the container was created for this upload.
    pub(crate) made_container: bool,
    source: UploadSource,
    destination: Destination,
    redactor: Redactor,
    file_name: Arc<str>,
    watchdog: Watchdog,
    journal_entry: Option<JournalEntryGuard>,
    /// The mark of a container that an earlier process may have created.
    left_mark: Option<String>,
    video: Option<Video>,
    reply: oneshot::Sender<Result<Uploaded>>,
    publish: watch::Sender<Progress>,
    on_progress: Option<OnProgress>,
    cancel: watch::Sender<bool>,
    begun: Instant,
    /// What the caller does with the news of success, where that is waited for.
    news: Option<watch::Receiver<ReceiptState>>,
    /// What it takes to begin anew when the file changes.
    again: Option<RestartPlan>,
    /// The upload to begin when the chunks of an earlier process are not proved.
    unproved: Option<RestartPlan>,
    /// The bytes that were compared so far, while the chunks of an earlier process are.
    compared: Option<Arc<AtomicU64>>,
    /// `true` where the journal keeps digests of its chunks.
    keeps_digests: bool,
    /// `true` once the followers know that the file was touched.
    has_reported_touched: bool,
    /// What it takes to begin anew when the service refuses what another upload token began.
    with_own_token: Option<RestartPlan>,
    wasted: WastedWork,
    event_sink: EventSink,
    /// Which wait its followers were told of.
    told: AnnouncedDelay,
    source_check: Check,
    /// Whether it is to end early.
    pub(crate) halted: watch::Receiver<StopRequest>,
}

impl Transfer {
    /// Claims an upload whose source is open in the journal, before anything is created or sent.
    /// No upload when that fails, or when the file was uploaded before, and the caller has been told; with what is
    /// to be waited for.
    pub(crate) fn prepare(
        id: SessionId,
        command: UploadCommand,
        opened: Result<OpenedSource>,
        settings: &Settings,
        journal_handle: &JournalHandle,
    ) -> (Option<Transfer>, Vec<LocalBoxFuture<'static, EngineEvent>>) {
        let (again, unproved) = (RestartPlan::of(&command), RestartPlan::unproved(&command));
        let with_own_token = RestartPlan::with_own_token(&command);
        let UploadCommand { request, reply, publish, followers, halted, on_progress, wasted, .. } = command;
        let terms = ClaimOptions { again: request.again, own_token_only: request.own_token_only };
        let destination = request.destination.unwrap_or(Destination::NewVideo(Box::new(request.video)));
        let claimed = opened.and_then(|opened| {
            ClaimedUpload::of(opened, destination, (request.if_not_begun, terms), settings, journal_handle)
        });
        let claimed = match claimed {
            Ok(ClaimOutcome::Ours(claimed)) => *claimed,
            Ok(ClaimOutcome::Finished(finished)) => {
                let forget =
                    request.news.map(|news| forget_when(journal_handle.clone(), finished.clone(), news));
                // The caller may have dropped its future.
                let _ = reply.send(Ok(already(finished)));
                return (None, forget.into_iter().collect());
            }
            Err(error) => {
                // The caller may have dropped its future.
                let _ = reply.send(Err(error));
                return (None, Vec::new());
            }
        };
        let wants_digests = settings.checksum != Checksum::Never && claimed.journal_entry.is_some();
        let redactor = settings.redactor.with(token_of(&claimed.destination));
        let tasks = [Some(next_halt(id, halted.clone())), claimed.inbox.map(|inbox| next_filling(id, inbox))];
        let (cancel, _) = watch::channel(false);
        let mut transfer = Transfer {
            keeps_digests: wants_digests && claimed.source.pass_through(),
            session: Session::new(claimed.spec, Instant::now()),
            lanes: HashMap::new(),
            used_authorization: None,
            made_container: claimed.made == CreatedBy::ByUs,
            source: claimed.source,
            destination: claimed.destination,
            redactor,
            file_name: claimed.file_name.clone(),
            watchdog: Watchdog::new(Instant::now()),
            journal_entry: claimed.journal_entry,
            left_mark: claimed.left_mark,
            video: None,
            reply,
            publish,
            on_progress,
            cancel,
            begun: Instant::now(),
            news: request.news,
            again,
            unproved,
            compared: None,
            has_reported_touched: false,
            with_own_token,
            wasted,
            event_sink: EventSink::new(claimed.file_name, followers),
            told: AnnouncedDelay::default(),
            source_check: Check::Due,
            halted,
        };
        if claimed.may_have_strayed {
            transfer.event_sink.tell(UploadEvent::StrayVideo);
        }
        let proof = claimed.doubt.and_then(|doubt| transfer.resolve(id, doubt, settings.patience.stall));
        (Some(transfer), tasks.into_iter().flatten().chain(proof).collect())
    }

    /// Whether its requests prove themselves with the API key.
    pub(crate) fn needs_key(&self) -> bool {
        !matches!(self.destination, Destination::Delegated { .. })
    }

    /// The container to create, written down before it is.
    pub(crate) fn creation(&mut self, marks: MarkJournal) -> Result<Creation> {
        let plan = self.session.chunks().plan();
        let mark = self.left_mark.take().map_or_else(Mark::draw, Mark::Left);
        if let Some(journal_entry) = &mut self.journal_entry {
            journal_entry.creating(plan, mark.text())?;
        }
        Ok(Creation { video: titled(&self.destination, &self.file_name), mark, marks })
    }

    /// The container exists, or could not be created.
    pub(crate) fn created(&mut self, created: Result<Created>) {
        let created = created.and_then(|Created { video_id, mark_entry }| {
            self.made_container = true;
            self.record_container(&video_id)?;
            mark_entry.into_iter().for_each(|entry| entry.dispelled());
            Ok(video_id)
        });
        self.session.handle_created(created);
    }

    fn record_container(&mut self, video_id: &str) -> Result<()> {
        let plan = self.session.chunks().plan();
        match &mut self.journal_entry {
            Some(journal_entry) => journal_entry.container(plan, video_id, CreatedBy::ByUs),
            None => Ok(()),
        }
    }

    /// A lane is done with a chunk.
    pub(crate) fn done(&mut self, done: ChunkResult, now: Instant, jitter: f64) {
        self.used_authorization = done.authorization;
        self.video = done.video.map(|video| *video).or(self.video.take());
        let had_container = self.session.video_id().is_some();
        let outcome = self.without_secrets(done.outcome);
        self.session.handle_outcome(done.index, outcome, now, jitter);
        // The first chunk of a delegated upload makes the video.
        let is_first = !had_container && self.session.video_id().is_some();
        self.made_container |= is_first;
        match self.session.is_complete() {
            false => {
                if is_first {
                    self.write_down_container();
                }
                self.write_down_chunk(done.index);
            }
            true if self.is_told_by_the_journal_only() => self.write_down_last(done.index),
            true => {}
        }
        self.release_stored();
        self.report_touched();
    }

    /// What is whole leaves the journal in a moment, or once somebody has heard of it. Until then the
    /// service can be asked, though not with an upload token.
    fn is_told_by_the_journal_only(&self) -> bool {
        self.news.is_some() && !self.needs_key()
    }

    /// A container of ours, before more goes into it.
    fn write_down_container(&mut self) {
        let Some(video_id) = self.session.video_id().map(str::to_owned) else { return };
        if self.made_container
            && let Err(error) = self.record_container(&video_id)
        {
            self.session.handle_failure(error);
        }
    }

    fn write_down_chunk(&mut self, index: u32) {
        if self.session.may_be_journalled(index)
            && let Some(journal_entry) = &mut self.journal_entry
        {
            journal_entry.acknowledged(index);
        }
    }

    fn write_down_last(&mut self, index: u32) {
        let plan = self.session.chunks().plan();
        match (&mut self.journal_entry, self.session.video_id()) {
            (Some(journal_entry), Some(video_id)) if self.made_container => {
                journal_entry.completed(plan, video_id, index)
            }
            _ => self.write_down_chunk(index),
        }
    }

    /// The order for a chunk of it.
    pub(crate) fn order(
        &self,
        id: SessionId,
        dispatch: ChunkToSend,
        authorization: Option<HeaderValue>,
    ) -> Option<ChunkRequest> {
        let supply = self.source.supply(dispatch.chunk.index)?;
        let (target, video_id_field) = match (&self.destination, dispatch.video_id) {
            (Destination::Delegated { token, .. }, video_id) => (delegated_path(token), video_id),
            (Destination::NewVideo(_) | Destination::Video(_), video_id) => (source_path(&video_id?), None),
        };
        Some(ChunkRequest {
            session: id,
            doing: self.doing(dispatch.chunk.index),
            chunk: dispatch.chunk,
            supply,
            target,
            content_range: dispatch.content_range,
            authorization,
            redactor: self.redactor.clone(),
            video_id_field,
            file_name: self.file_name.clone(),
            // A file that goes in one request is sent again whole in any case.
            digests: self.keeps_digests && self.session.chunks().known() > 1,
            cancelled: self.cancel.subscribe(),
        })
    }

    /// A connection's error may repeat what the request held; an answer's has been redacted where it was read.
    fn without_secrets(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed { error, fate } => Outcome::Failed { error: self.redactor.clean(error), fate },
            accepted => accepted,
        }
    }

    fn doing(&self, index: u32) -> String {
        let (chunks, file_name) = (self.session.chunks(), &self.file_name);
        let what = match chunks.total_bytes() {
            Some(_) if chunks.known() == 1 => format!("send {file_name}"),
            Some(_) => format!("send chunk {} of {} of {file_name}", index + 1, chunks.known()),
            None => format!("send chunk {} of {file_name}", index + 1),
        };
        match &self.destination {
            Destination::Video(video_id) | Destination::Delegated { video_id: Some(video_id), .. } => {
                format!("{what} to video {video_id}")
            }
            Destination::NewVideo(_) | Destination::Delegated { video_id: None, .. } => what,
        }
    }

    /// What the service has need not be held any longer.
    fn release_stored(&mut self) {
        if let UploadSource::Stream { held, .. } = &mut self.source {
            let chunks = self.session.chunks();
            held.retain(|&index, _| !chunks.is_stored(index));
        }
    }

    /// Takes in what the stream gave, and waits for more.
    pub(crate) fn take_filling(
        &mut self,
        id: SessionId,
        filling: StreamEvent,
        inbox: mpsc::Receiver<StreamEvent>,
    ) -> LocalBoxFuture<'static, EngineEvent> {
        match filling {
            StreamEvent::Chunk(chunk) => {
                let (extent, last) = (chunk.extent(), chunk.place().into());
                if let UploadSource::Stream { held, .. } = &mut self.source {
                    held.insert(self.session.chunks().known(), chunk);
                }
                self.session.handle_filled(extent, last);
            }
            StreamEvent::Failed(error) => self.session.handle_failure(error),
        }
        next_filling(id, inbox)
    }

    /// The stream gives nothing more. Unless it said that it is over, whoever read it has panicked.
    pub(crate) fn dried(&mut self) {
        if self.session.chunks().total_bytes().is_none() {
            let error = Error::new(ErrorKind::Internal, format!("read {}", self.file_name));
            self.session.handle_failure(error.because("its reader ended before the stream did"));
        }
    }

    /// Ends it early as its handle asks, and waits for the next word.
    pub(crate) fn halt(
        &mut self,
        id: SessionId,
        halt: StopRequest,
        halted: watch::Receiver<StopRequest>,
    ) -> Option<LocalBoxFuture<'static, EngineEvent>> {
        match halt {
            StopRequest::No => {}
            StopRequest::AfterChunks if !self.is_proving() => self.session.stop(),
            // Nothing is under way while chunks are compared.
            StopRequest::AfterChunks => {
                self.session.disprove(Error::new(ErrorKind::Cancelled, "finish the upload"))
            }
            StopRequest::Now => {
                let error = Error::new(ErrorKind::Cancelled, "finish the upload");
                if self.is_proving() {
                    self.session.disprove(error);
                } else {
                    self.session.handle_failure(error);
                }
                return None;
            }
        }
        Some(next_halt(id, halted))
    }

    fn retries(&self) -> u32 {
        self.wasted.retries + self.session.retries()
    }

    fn resent_bytes(&self) -> u64 {
        self.wasted.bytes + self.session.resent_bytes()
    }
}

fn forget_when(
    journal_handle: JournalHandle,
    finished: Finished,
    news: watch::Receiver<ReceiptState>,
) -> LocalBoxFuture<'static, EngineEvent> {
    Box::pin(journal_handle.forget_when(finished, news).map(|()| EngineEvent::ChunkResult))
}

/// What an unfinished command uploaded, for the caller that asks for it again.
fn already(finished: Finished) -> Uploaded {
    let Finished { video_id, bytes, plan, .. } = finished;
    Uploaded {
        video_id,
        video: None,
        bytes,
        chunks: plan.map_or(1, |plan| plan.chunks()),
        addressing: plan.map_or(Addressing::Single, |plan| plan.addressing()),
        reader: None,
        retries: 0,
        resent_bytes: 0,
        elapsed: Duration::ZERO,
        already: true,
    }
}

fn token_of(destination: &Destination) -> Option<&Secret> {
    match destination {
        Destination::Delegated { token, .. } => Some(token),
        Destination::NewVideo(_) | Destination::Video(_) => None,
    }
}

fn next_filling(
    id: SessionId,
    mut inbox: mpsc::Receiver<StreamEvent>,
) -> LocalBoxFuture<'static, EngineEvent> {
    Box::pin(async move {
        match inbox.recv().await {
            Some(filling) => EngineEvent::Filled(id, filling, inbox),
            None => EngineEvent::Dried(id),
        }
    })
}

fn next_halt(
    id: SessionId,
    mut halted: watch::Receiver<StopRequest>,
) -> LocalBoxFuture<'static, EngineEvent> {
    Box::pin(async move {
        let halt = match halted.changed().await {
            Ok(()) => *halted.borrow_and_update(),
            Err(_) => StopRequest::Now,
        };
        EngineEvent::Halted(id, halt, halted)
    })
}
