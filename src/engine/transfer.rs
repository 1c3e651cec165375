//! One upload under way: its session, its source, and its caller.

mod completion;
mod end;
mod inputs;
mod proving;
mod recording;
mod reporting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::HeaderValue;
use tokio::sync::{oneshot, watch};

use crate::api::{Redactor, Secret, Video, delegated_path, source_path};
use crate::engine::claim::{ClaimOutcome, ClaimedUpload};
use crate::engine::command::{UploadCommand, WastedWork};
use crate::engine::counters::{CountedEnd, Counters};
use crate::engine::event::{EngineEvent, next_stop_request, next_stream_event};
use crate::engine::event_log::{AnnouncedDelay, EventSink};
use crate::engine::journal_entry::JournalHandle;
use crate::engine::options::{Checksum, Destination};
use crate::engine::progress::{Gauge, Progress};
use crate::engine::receipt::ReceiptState;
use crate::engine::request::{JobMark, OnProgress, StopRequest, UploadRequest, Uploaded};
use crate::engine::restart::RestartPlans;
use crate::engine::settings::Settings;
use crate::engine::source::{OpenedSource, UploadSource};
use crate::engine::upload_record::{CheckpointSender, UploadRecord};
use crate::engine::watchdog::Watchdog;
use crate::engine::worker::{ChunkRequest, ChunkResult, LaneIndex, SessionId};
use crate::error::Result;
use crate::journal::{CreatedBy, Finished};
use crate::session::event::UploadEvent;
use crate::session::{ChunkToSend, Outcome, Session};
use crate::wire::Addressing;

pub(crate) use end::TransferEnd;
use end::{CreationState, SourceCheck};

/// An upload under way.
pub(crate) struct Transfer {
    pub(crate) session: Session,
    /// The lanes that send chunks of this upload, with the chunk's index.
    pub(crate) lanes: HashMap<LaneIndex, (u32, Gauge)>,
    /// The `Authorization` header of the last attempt, whether it was refused or accepted.
    pub(crate) used_authorization: Option<HeaderValue>,
    /// `true` if this upload created its container.
    pub(crate) made_container: bool,
    source: UploadSource,
    destination: Destination,
    redactor: Redactor,
    file_name: Arc<str>,
    watchdog: Watchdog,
    record: UploadRecord,
    /// The mark of a container that an earlier process may have created.
    left_mark: Option<String>,
    /// The mark that other hosts use for the same job.
    job_mark: Option<JobMark>,
    video: Option<Video>,
    reply: oneshot::Sender<Result<Uploaded>>,
    publish: watch::Sender<Progress>,
    on_progress: Option<OnProgress>,
    cancel: watch::Sender<bool>,
    begun: Instant,
    /// The state of the caller's receipt; `None` if success needs no receipt.
    receipt: Option<watch::Receiver<ReceiptState>>,
    plans: RestartPlans,
    /// The bytes compared so far with the chunks of an earlier process; `None` unless a comparison runs.
    compared: Option<Arc<AtomicU64>>,
    /// `true` if the journal keeps digests of the chunks.
    keeps_digests: bool,
    /// `true` once a change of the file's attributes was reported.
    has_reported_touched: bool,
    wasted: WastedWork,
    event_sink: EventSink,
    /// The pauses that were reported to the followers, by class of requests.
    announced: [AnnouncedDelay; 3],
    counters: Arc<Counters>,
    /// The retries and the repeated bytes that are counted already.
    counted: (u64, u64),
    source_check: SourceCheck,
    creation: CreationState,
    /// `true` if an earlier process may have created a video that nothing names.
    may_have_orphan: bool,
    /// The caller's request to end the upload early.
    pub(crate) halted: watch::Receiver<StopRequest>,
}

impl Transfer {
    /// Claims an upload whose source is open in the journal, before anything is created or sent.
    ///
    /// Returns the upload with the tasks that feed it. Returns no upload, after a reply to the caller, if that fails or
    /// if the file was uploaded before.
    pub(crate) fn prepare(
        id: SessionId,
        command: UploadCommand,
        opened: Result<OpenedSource>,
        settings: &Settings,
        journal_handle: &JournalHandle,
        counters: &Arc<Counters>,
    ) -> (Option<Box<Transfer>>, Vec<LocalBoxFuture<'static, EngineEvent>>) {
        let claimed = opened.and_then(|opened| {
            claim(opened, &command.request, settings, journal_handle, command.checkpoints.clone())
        });
        let mut claimed = match claimed {
            Ok(ClaimOutcome::Ours(claimed)) => *claimed,
            Ok(ClaimOutcome::Finished(finished)) => {
                let forget = command.request.receipt.map(|receipt| -> LocalBoxFuture<'static, EngineEvent> {
                    let forgotten = journal_handle.clone().forget_when(finished.clone(), receipt);
                    Box::pin(forgotten.map(|()| EngineEvent::TaskDone))
                });
                counters.ended(CountedEnd::Done);
                // The caller may have dropped its future.
                let _ = command.reply.send(Ok(already_uploaded(finished)));
                return (None, forget.into_iter().collect());
            }
            Err(error) => {
                counters.ended(CountedEnd::of_error(&error));
                // The caller may have dropped its future.
                let _ = command.reply.send(Err(error));
                return (None, Vec::new());
            }
        };
        // Before the request is taken apart.
        let plans = RestartPlans::of(&command, &claimed);
        let stop = next_stop_request(id, command.halted.clone());
        let stream = claimed.inbox.take().map(|inbox| next_stream_event(id, inbox));
        let (doubt, may_have_orphan) = (claimed.doubt.take(), claimed.may_have_orphan);
        let mut transfer = Box::new(Transfer::new(claimed, command, plans, settings, counters));
        if let Some(plan) = transfer.session.chunks().plan() {
            let (bytes, chunk_bytes, chunks) = (plan.len(), plan.chunk_bytes(), plan.chunks());
            transfer.event_sink.emit(UploadEvent::Planned { bytes, chunk_bytes, chunks });
        }
        if may_have_orphan {
            transfer.event_sink.emit(UploadEvent::StrayVideo);
        }
        let proof = doubt.and_then(|doubt| transfer.resolve(id, doubt, settings.patience.stall));
        (Some(transfer), [Some(stop), stream, proof].into_iter().flatten().collect())
    }

    fn new(
        claimed: ClaimedUpload,
        command: UploadCommand,
        plans: RestartPlans,
        settings: &Settings,
        counters: &Arc<Counters>,
    ) -> Transfer {
        let UploadCommand { request, reply, publish, followers, halted, on_progress, wasted, .. } = command;
        let wants_digests = match settings.checksum {
            Checksum::Always => true,
            // Without a journal no later run would compare them.
            Checksum::Auto => claimed.record.entry().is_some(),
            Checksum::Never => false,
        };
        let (cancel, _) = watch::channel(false);
        Transfer {
            keeps_digests: wants_digests && claimed.source.pass_through(),
            session: Session::new(claimed.spec, Instant::now()),
            lanes: HashMap::new(),
            used_authorization: None,
            made_container: claimed.made == CreatedBy::ByUs,
            source: claimed.source,
            redactor: settings.redactor.with(token_of(&claimed.destination)),
            destination: claimed.destination,
            file_name: claimed.file_name.clone(),
            watchdog: Watchdog::new(Instant::now()),
            record: claimed.record,
            left_mark: claimed.left_mark,
            job_mark: request.job_mark,
            video: None,
            reply,
            publish,
            on_progress,
            cancel,
            begun: Instant::now(),
            receipt: request.receipt,
            plans,
            compared: None,
            has_reported_touched: false,
            wasted,
            event_sink: EventSink::new(claimed.file_name, followers, counters.clone()),
            announced: Default::default(),
            counters: counters.clone(),
            counted: (0, 0),
            source_check: SourceCheck::Due,
            creation: CreationState::NotRequested,
            may_have_orphan: claimed.may_have_orphan,
            halted,
        }
    }

    /// Returns `true` if the requests carry the API key rather than an upload token.
    pub(crate) fn needs_key(&self) -> bool {
        !matches!(self.destination, Destination::Delegated { .. })
    }

    /// Returns `true` for a small file, which takes one request.
    pub(crate) fn is_small(&self) -> bool {
        let chunks = self.session.chunks();
        chunks.total() == Some(1)
            && chunks.total_bytes().is_some_and(|bytes| bytes <= Settings::SMALL_FILE_BYTES)
    }

    /// Returns `true` until the video exists that this upload creates by a request of its own.
    pub(crate) fn awaits_video(&self) -> bool {
        self.needs_key() && self.session.video_id().is_none()
    }

    /// Takes in the result of an attempt at a chunk.
    pub(crate) fn done(&mut self, done: ChunkResult, now: Instant, jitter: f64) {
        self.used_authorization = done.authorization;
        // Another lane's answer may follow the one that described the complete video.
        self.video = done.video.map(|video| *video).or(self.video.take());
        let had_container = self.session.video_id().is_some();
        let outcome = self.without_secrets(done.outcome);
        self.session.handle_outcome(done.index, outcome, now, jitter);
        // After the outcome, by which the upload may have become complete.
        self.take_check_of_whole(done.checked);
        // The service creates the video of a delegated upload when its first chunk arrives.
        let is_first = !had_container && self.session.video_id().is_some();
        self.made_container |= is_first;
        // A complete upload leaves the journal in a moment. Its last chunk is recorded only if no status can prove
        // it.
        if !self.session.is_complete() {
            if is_first {
                self.record_own_container();
            }
            self.record_chunk(done.index);
        } else if self.needs_journal_to_prove_success() {
            self.record_last_chunk(done.index);
        }
        // Streams wait for this memory.
        self.release_stored();
        self.report_touched();
    }

    /// Returns the order for a lane to send a chunk; `None` if its bytes or its video are missing.
    pub(crate) fn order(
        &self,
        id: SessionId,
        dispatch: ChunkToSend,
        authorization: Option<HeaderValue>,
    ) -> Option<ChunkRequest> {
        let chunk_source = self.source.chunk_source(dispatch.chunk.index)?;
        let (target, video_id_field) = match (&self.destination, dispatch.video_id) {
            (Destination::Delegated { token, .. }, video_id) => (delegated_path(token), video_id),
            (Destination::NewVideo(_) | Destination::Video(_), video_id) => (source_path(&video_id?), None),
        };
        Some(ChunkRequest {
            session: id,
            doing: self.doing(dispatch.chunk.index),
            chunk: dispatch.chunk,
            chunk_source,
            target,
            content_range: dispatch.content_range,
            authorization,
            redactor: self.redactor.clone(),
            video_id_field,
            file_name: self.file_name.clone(),
            // A single request is always repeated whole, so no later run needs its digest.
            digests: self.keeps_digests && self.session.chunks().known() > 1,
            cancelled: self.cancel.subscribe(),
        })
    }

    /// Removes secrets from a failure. A connection's error may repeat parts of the request; errors read from an
    /// answer are already redacted.
    fn without_secrets(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed { error, fate } => Outcome::Failed { error: self.redactor.clean(error), fate },
            accepted => accepted,
        }
    }

    fn doing(&self, index: u32) -> String {
        let (chunks, file_name) = (self.session.chunks(), &self.file_name);
        let what = match chunks.total() {
            Some(1) => format!("send {file_name}"),
            Some(total) => format!("send chunk {} of {total} of {file_name}", index + 1),
            None => format!("send chunk {} of {file_name}", index + 1),
        };
        match &self.destination {
            Destination::Video(video_id) | Destination::Delegated { video_id: Some(video_id), .. } => {
                format!("{what} to video {video_id}")
            }
            Destination::NewVideo(_) | Destination::Delegated { video_id: None, .. } => what,
        }
    }

    fn retries(&self) -> u32 {
        self.wasted.retries + self.session.retries()
    }

    fn resent_bytes(&self) -> u64 {
        self.wasted.bytes + self.session.resent_bytes()
    }
}

fn claim(
    opened: OpenedSource,
    request: &UploadRequest,
    settings: &Settings,
    journal_handle: &JournalHandle,
    checkpoints: CheckpointSender,
) -> Result<ClaimOutcome> {
    ClaimedUpload::of(opened, request, settings, journal_handle, checkpoints)
}

/// Returns the result for a file that an earlier, unfinished command has uploaded.
fn already_uploaded(finished: Finished) -> Uploaded {
    let Finished { video_id, bytes, plan, .. } = finished;
    Uploaded {
        video_id,
        video: None,
        bytes,
        sent_bytes: 0,
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
