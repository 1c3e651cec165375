//! One job from its plan to its result.

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringlift::source::probe;
use ringlift::{Error, ErrorKind, Happening, OnChange, Receipt, Running, Upload, Uploaded};

use crate::cli::digest::{FileDigest, StreamDigest};
use crate::cli::events::{ErrorEvent, Event, FileDone, millis};
use crate::cli::exit::{Exit, Failure, Interrupt};
use crate::cli::names::visible;
use crate::cli::output::Ticket;
use crate::cli::screen::{Leftover, speed};
use crate::cli::values::Size;

use super::halt::Stage;
use super::plan::{self, Errand, Input, Item, Unbegun};
use super::stdin::Stdin;
use super::{Desk, Memory, after};

/// Result of a job.
pub(super) struct End {
    /// Number of names on the command line: more than one if several names lead to the same file.
    pub(super) files: usize,
    pub(super) result: Result<Done, Failure>,
    /// Completed upload of a job that failed afterwards.
    finished: Option<Uploaded>,
}

/// A completed job.
pub(super) struct Done {
    pub(super) uploaded: Uploaded,
    pub(super) sha256: Option<String>,
    /// Confirmed once the result was written.
    receipt: Receipt,
}

impl Done {
    /// Returns the bytes sent by this run.
    pub(super) fn sent_bytes(&self) -> u64 {
        if self.uploaded.already { 0 } else { self.uploaded.bytes }
    }
}

impl End {
    /// Removes the file from the journal after the whole command has succeeded.
    pub(super) fn forget(&self) {
        if let Ok(done) = &self.result {
            done.receipt.confirm();
        }
    }

    pub(super) fn exit(&self) -> Exit {
        self.result.as_ref().map_or_else(Failure::exit, |_| Exit::Done)
    }

    /// Returns the video of a failed job: the one that holds the file, or an incomplete one.
    pub(super) fn video_id(&self) -> Option<String> {
        match (&self.finished, &self.result) {
            (Some(uploaded), _) => Some(uploaded.video_id.clone()),
            (None, Err(Failure::Library(error))) => error.video_id().map(str::to_owned),
            (None, _) => None,
        }
    }

    /// Returns the bytes of the file that the service has confirmed.
    pub(super) fn bytes(&self) -> u64 {
        let uploaded = self.result.as_ref().map(|done| &done.uploaded).ok().or(self.finished.as_ref());
        uploaded.map_or(0, |uploaded| uploaded.bytes)
    }
}

/// Runs a job and reports its result.
pub(super) async fn upload(desk: &Desk<'_>, item: Item) -> End {
    let begun = Instant::now();
    let result = carry_out(desk, &item).await;
    // A slow reader of the output delays the next file and everything except signals.
    desk.screen.output().room().await;
    let end = match result {
        Ok(done) => {
            let files = item.files();
            if is_told(tell_done(desk, &item, &done)).await {
                match desk.rules.memory {
                    Memory::None => done.receipt.confirm(),
                    Memory::UntilTheEnd | Memory::Kept => done.receipt.remember(),
                }
            } else {
                tell_lost(desk, &item, &done.uploaded.video_id);
            }
            End { files, result: Ok(done), finished: None }
        }
        Err(failed) => {
            let ticket = tell_failed(desk, &item, &failed, begun);
            if !failed.is_about_later() && is_told(ticket).await {
                failed.confirm();
            }
            let finished = failed.upload.into_uploaded();
            End { files: item.files(), result: Err(failed.failure), finished }
        }
    };
    desk.open_items.borrow_mut().remove(&item.index);
    end
}

/// Returns `true` if the line with the video's id was written. Otherwise the journal keeps the upload, so
/// that the same command prints the id later.
async fn is_told(ticket: Option<Ticket>) -> bool {
    match ticket {
        Some(ticket) => ticket.is_written().await,
        None => true,
    }
}

/// Error of a job and the state of its upload.
struct Failed {
    failure: Failure,
    upload: Standing,
}

/// State of the upload when the job failed.
enum Standing {
    Unfinished,
    Finished(Box<Uploaded>, Receipt),
}

impl Standing {
    fn uploaded(&self) -> Option<&Uploaded> {
        match self {
            Standing::Finished(uploaded, _) => Some(uploaded),
            Standing::Unfinished => None,
        }
    }

    fn into_uploaded(self) -> Option<Uploaded> {
        match self {
            Standing::Finished(uploaded, _) => Some(*uploaded),
            Standing::Unfinished => None,
        }
    }
}

impl Failed {
    /// Returns `true` if the same command finds the file uploaded and repeats only the failed check.
    fn is_about_later(&self) -> bool {
        matches!(self.failure.exit(), Exit::Temporary | Exit::Interrupted(_))
    }

    fn confirm(&self) {
        match &self.upload {
            Standing::Finished(_, receipt) if !self.is_about_later() => receipt.confirm(),
            Standing::Finished(..) | Standing::Unfinished => {}
        }
    }
}

impl<E: Into<Failure>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed { failure: error.into(), upload: Standing::Unfinished }
    }
}

async fn carry_out(desk: &Desk<'_>, item: &Item) -> Result<Done, Failed> {
    if let Some(interrupt) = desk.halt.interrupt() {
        return Err(Failure::Interrupted(interrupt).into());
    }
    if desk.screen.shows_events() {
        let ring = desk.ring.get_or_init(probe::ring);
        desk.screen.output().room().await;
        let plan = async {
            let _turn = desk.plans.acquire().await;
            plan::planned_in_time(item, desk.settings, ring).await
        };
        let planned = desk.halt.or_interrupted(plan).await;
        let planned = planned.unwrap_or_else(|interrupt| Err(Failure::Interrupted(interrupt)));
        let _ = item.event(desk.screen, &Event::Planned(planned?));
    }
    let digest = Digest::of(desk, item)?;
    let (upload, receipt) = describe(&item.errand, source(desk, item, &digest)).with_receipt();
    let uploaded = follow(desk, item, upload.start().await?).await?;
    let finished = async {
        let sha256 = digest.finish(desk.settings.patience.body).await?;
        after::settle(&desk.client, &uploaded, desk.rules.after, desk.screen).await?;
        Ok(sha256)
    };
    let interrupted = |interrupt: Interrupt| Err(Failure::Interrupted(interrupt));
    let sha256 = desk.halt.or_interrupted(finished).await.unwrap_or_else(interrupted);
    match sha256 {
        Ok(sha256) => Ok(Done { uploaded, sha256, receipt }),
        Err(failure) => Err(Failed { failure, upload: Standing::Finished(Box::new(uploaded), receipt) }),
    }
}

/// Computation of the digest of a job.
enum Digest {
    NotAsked,
    File(FileDigest),
    /// Starts after the upload, because the file may change until then.
    Later(PathBuf),
    Stream(StreamDigest),
}

impl Digest {
    fn of(desk: &Desk<'_>, item: &Item) -> Result<Digest, Failure> {
        match &item.input {
            _ if !desk.rules.after.sha256 => Ok(Digest::NotAsked),
            Input::File(path) if item.errand.on_change == OnChange::Restart => {
                Ok(Digest::Later(path.clone()))
            }
            Input::File(path) => FileDigest::start(path).map(Digest::File),
            Input::Stdin => Ok(Digest::Stream(StreamDigest::new())),
        }
    }

    async fn finish(self, silence: Duration) -> Result<Option<String>, Failure> {
        match self {
            Digest::NotAsked => Ok(None),
            Digest::File(digest) => digest.finish(silence).await.map(Some),
            Digest::Later(path) => FileDigest::start(&path)?.finish(silence).await.map(Some),
            Digest::Stream(digest) => Ok(Some(digest.value())),
        }
    }
}

fn source(desk: &Desk<'_>, item: &Item, digest: &Digest) -> Upload {
    let stdin = || Stdin::new(desk.halt.stage());
    match (&item.input, digest) {
        (Input::File(path), _) => desk.client.upload(path),
        (Input::Stdin, Digest::Stream(digest)) => desk.client.upload_reader(&item.name, digest.over(stdin())),
        (Input::Stdin, _) => desk.client.upload_reader(&item.name, stdin()),
    }
}

fn describe(errand: &Errand, mut upload: Upload) -> Upload {
    upload = upload
        .video(errand.video.clone())
        .mode(errand.mode)
        .chunk_size(errand.chunk_size)
        .on_change(errand.on_change);
    if let Some(token) = &errand.token {
        upload = upload.upload_token(token.reveal());
    }
    if let Some(video_id) = &errand.video_id {
        upload = upload.video_id(video_id);
    }
    if let Some(bytes) = errand.expected_bytes {
        upload = upload.expected_bytes(bytes);
    }
    if errand.force {
        upload = upload.again();
    }
    match errand.unbegun {
        Unbegun::Begin => upload,
        Unbegun::Refuse => upload.only_if_begun(),
    }
}

/// Follows an upload to its end and forwards shutdown requests.
async fn follow(desk: &Desk<'_>, item: &Item, mut running: Running) -> Result<Uploaded, Failure> {
    let creates = item.errand.video_id.is_none();
    let note = |progress| {
        let video_id = desk.board.borrow_mut().update(item, progress);
        if let Some(video_id) = video_id.filter(|_| creates) {
            let _ = item.event(desk.screen, &Event::Created { file: &item.name, video_id: &video_id });
        }
    };
    let tell = |happening: Happening| {
        if let Some(event) = Event::of(&item.name, &happening) {
            let _ = item.event(desk.screen, &event);
        }
    };
    let stopper = running.stopper();
    let mut stage = desk.halt.stage();
    let (mut progress, mut happenings) = (running.progress(), running.happenings());
    // Events that are not written must not wake this thread.
    let shows_events = desk.screen.shows_events();
    let mut joined = pin!(running.join());
    loop {
        tokio::select! {
            biased;
            Some(newer) = progress.next() => note(newer),
            // Without room in the output queue they stay in the library's queue, which drops and counts the
            // oldest.
            Some(happening) = happenings.next(), if shows_events && desk.screen.output().has_room() => tell(happening),
            uploaded = &mut joined => return Ok(uploaded?),
            Ok(()) = stage.changed() => match *stage.borrow_and_update() {
                Stage::Running => {}
                Stage::Stopping => stopper.stop(),
                Stage::Cancelled => stopper.cancel(),
            },
        }
    }
}

/// Reports a completed job. Returns the handle of the line with the video's id.
fn tell_done(desk: &Desk<'_>, item: &Item, done: &Done) -> Option<Ticket> {
    let Done { uploaded, sha256, .. } = done;
    if uploaded.already {
        let Uploaded { video_id, chunks, bytes, .. } = uploaded;
        let resumed = Event::Resumed { file: &item.name, video_id, chunks: *chunks, bytes: *bytes };
        item.event(desk.screen, &resumed);
    }
    let event = Event::FileDone(FileDone::new(&item.name, uploaded, sha256.as_deref()));
    let event = item.event(desk.screen, &event);
    let result = desk.screen.result_ticket(&uploaded.video_id);
    let last = tell_other_names(desk, item, done);
    if uploaded.already {
        desk.screen.note(format_args!(
            "{}: uploaded before by an interrupted command; --force uploads it again",
            visible(&item.name)
        ));
        return last.or(event).or(result);
    }
    let retries = match uploaded.retries {
        0 => String::new(),
        retries => format!(", {retries} retries"),
    };
    let sha256 = sha256.as_ref().map(|sha256| format!(", SHA-256 {sha256}")).unwrap_or_default();
    desk.screen.note(format_args!(
        "{}: {} in {:.1} s ({}){retries}{sha256}",
        visible(&item.name),
        Size(uploaded.bytes),
        uploaded.elapsed.as_secs_f64(),
        speed(uploaded.bytes, uploaded.elapsed),
    ));
    last.or(event).or(result)
}

/// Reports the result for each further name of the same file. Returns the handle of the last line.
fn tell_other_names(desk: &Desk<'_>, item: &Item, done: &Done) -> Option<Ticket> {
    let mut already = done.uploaded.clone();
    already.already = true;
    let mut last = None;
    for name in &item.also {
        desk.screen.event(&Event::FileDone(FileDone::new(name, &already, done.sha256.as_deref())));
        last = desk.screen.result_ticket(&already.video_id);
        desk.screen.note(format_args!(
            "{}: the same file as {}, named twice; uploaded once",
            visible(name),
            visible(&item.name)
        ));
    }
    last
}

/// Prints an id that could not be written to standard output and would otherwise be lost.
fn tell_lost(desk: &Desk<'_>, item: &Item, video_id: &str) {
    let again = match desk.begun(item) {
        Leftover::Begun { .. } => "; run the same command again to print the id",
        _ => "",
    };
    desk.screen.untold(format_args!(
        "{}: is uploaded as video {video_id}, which could not be written to standard output{again}",
        item.name,
    ));
}

/// Reports a job that is still active and no longer waited for.
pub(super) fn tell_abandoned(desk: &Desk<'_>, item: &Item, interrupt: Interrupt) {
    let failure = Failure::Interrupted(interrupt);
    let video_id = desk.board.borrow().video_id(item.index).map(str::to_owned);
    let leftover = video_id.as_ref().map_or(Leftover::Nothing, |_| desk.begun(item));
    let resumable = matches!(leftover, Leftover::Begun { .. });
    let error = ErrorEvent::new(&failure).of_video(video_id.as_deref());
    let _ = item.event(desk.screen, &Event::FileFailed { file: &item.name, elapsed_ms: 0, resumable, error });
    desk.screen.file_failure(&item.name, &failure, leftover);
}

fn tell_failed(desk: &Desk<'_>, item: &Item, failed: &Failed, begun: Instant) -> Option<Ticket> {
    let Failed { failure, upload } = failed;
    let leftover = match (failure, upload) {
        (Failure::Library(error), Standing::Unfinished) => desk.leftover(item, error),
        (_, Standing::Finished(..)) if failed.is_about_later() => desk.begun(item),
        _ => Leftover::Nothing,
    };
    let resumable = matches!(leftover, Leftover::Begun { .. });
    let video_id = upload.uploaded().map(|uploaded| uploaded.video_id.as_str());
    let elapsed_ms = millis(begun.elapsed());
    let event = |file| {
        let error = ErrorEvent::new(failure).of_video(video_id);
        Event::FileFailed { file, elapsed_ms, resumable, error }
    };
    let ticket = item.event(desk.screen, &event(&item.name));
    item.also.iter().for_each(|name| desk.screen.event(&event(name)));
    desk.screen.file_failure(&item.name, failure, leftover);
    ticket
}

impl Desk<'_> {
    /// Returns the state of a failed upload at the service.
    fn leftover<'a>(&self, item: &Item, error: &'a Error) -> Leftover<'a> {
        let Some(video_id) = error.video_id() else { return Leftover::Nothing };
        // A video that the service does not know cannot be deleted.
        if error.kind() == ErrorKind::NotFound {
            return Leftover::Nothing;
        }
        match self.begun(item) {
            Leftover::Begun { resume } if error.is_resumable() => Leftover::Begun { resume },
            _ if error.is_video_incomplete() => Leftover::Incomplete(video_id),
            _ => Leftover::Unknown(video_id),
        }
    }

    /// Returns how to resume a job according to the journal.
    fn begun(&self, item: &Item) -> Leftover<'static> {
        match &item.input {
            Input::File(path) if self.settings.journal.is_some() => {
                Leftover::Begun { resume: self.rules.resume.of(path) }
            }
            Input::File(_) | Input::Stdin => Leftover::Nothing,
        }
    }
}
