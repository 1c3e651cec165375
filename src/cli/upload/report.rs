//! The reports of finished jobs: events, results and messages.

use std::rc::Rc;
use std::time::Instant;

use ringlift::Uploaded;
use ringlift::bulk::event::millis;
use ringlift::bulk::{DoneJob, FileDone, JsonEvent};

use crate::cli::console::{UploadRemains, duration, speed};
use crate::cli::escape::visible;
use crate::cli::events::error_event;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::output::PendingWrite;
use crate::cli::values::Size;

use super::context::UploadRun;
use super::plan::UploadJob;

/// Reports that an uploaded file is being processed.
pub(super) fn waiting(run: &UploadRun<'_>, uploaded: &Uploaded) {
    let Uploaded { video_id, bytes, .. } = uploaded;
    run.console.note(format_args!("{video_id}: {} uploaded; waiting for the first rendition", Size(*bytes)));
}

/// Reports a completed job. Returns the handle of the line with the video's id.
pub(super) fn done(run: &UploadRun<'_>, done: &DoneJob<Rc<UploadJob>>) -> Option<PendingWrite> {
    let DoneJob { key: job, uploaded, sha256, .. } = done;
    if uploaded.already {
        let Uploaded { video_id, chunks, bytes, .. } = uploaded;
        let resumed = JsonEvent::Resumed { file: &job.name, video_id, chunks: *chunks, bytes: *bytes };
        let _ = job.emit(run.console, &resumed);
    }
    let event = JsonEvent::FileDone(FileDone::new(&job.name, uploaded, sha256.as_deref()));
    let event = job.emit(run.console, &event);
    let result = print_id(run, &job.name, &uploaded.video_id);
    let last = other_names(run, done);
    if uploaded.already {
        run.console.note(format_args!(
            "{}: uploaded before by an interrupted command; --force uploads it again",
            visible(&job.name)
        ));
    } else {
        run.console.note(format_args!(
            "{}: {}",
            visible(&job.name),
            described(run, uploaded, sha256.as_deref())
        ));
    }
    // A queue keeps its order: once the last line is written, all before it are.
    last.or(event).or(result)
}

/// Describes an upload: `37.10 MiB sent of 370.98 MiB in 0.3 s (123.67 MiB/s), verified`.
fn described(run: &UploadRun<'_>, uploaded: &Uploaded, sha256: Option<&str>) -> String {
    let Uploaded { bytes, sent_bytes, elapsed, .. } = *uploaded;
    let size = if sent_bytes == bytes {
        Size(bytes).to_string()
    } else {
        format!("{} sent of {}", Size(sent_bytes), Size(bytes))
    };
    let retries = match uploaded.retries {
        0 => String::new(),
        retries => format!(", {retries} retries"),
    };
    let verified = if run.options.after.verify { ", verified" } else { "" };
    let sha256 = sha256.map(|sha256| format!(", SHA-256 {sha256}")).unwrap_or_default();
    let speed = speed(sent_bytes, elapsed);
    format!("{size} in {} ({speed}){retries}{verified}{sha256}", duration(elapsed))
}

/// Prints the id of a video, after the name of its file if the run has several: the ids come in the order of
/// completion.
fn print_id(run: &UploadRun<'_>, name: &str, video_id: &str) -> Option<PendingWrite> {
    if run.has_several_files {
        run.console.pending_result(format_args!("{}\t{video_id}", visible(name)))
    } else {
        run.console.pending_result(video_id)
    }
}

/// Reports the result for each further name of the same file. Returns the handle of the last line.
fn other_names(run: &UploadRun<'_>, done: &DoneJob<Rc<UploadJob>>) -> Option<PendingWrite> {
    let (job, mut already) = (&done.key, done.uploaded.clone());
    already.already = true;
    already.sent_bytes = 0;
    let mut last = None;
    for name in &job.also {
        run.console.emit(&JsonEvent::FileDone(FileDone::new(name, &already, done.sha256.as_deref())));
        last = print_id(run, name, &already.video_id);
        run.console.note(format_args!(
            "{}: the same file as {}, named twice; uploaded once",
            visible(name),
            visible(&job.name)
        ));
    }
    last
}

/// Prints an id that could not be written to standard output and would otherwise be lost.
pub(super) fn lost(run: &UploadRun<'_>, job: &UploadJob, video_id: &str) {
    let again = match run.resume_hint(job) {
        UploadRemains::Resumable { .. } => "; run the same command again to print the id",
        _ => "",
    };
    run.console.alert(format_args!(
        "{}: is uploaded as video {video_id}, which could not be written to standard output{again}",
        job.name,
    ));
}

/// Reports a job that is still active and no longer waited for.
pub(super) fn abandoned(
    run: &UploadRun<'_>,
    job: &UploadJob,
    failure: &CommandError,
    video_id: Option<&str>,
    remains: UploadRemains<'_>,
) {
    let resumable = matches!(remains, UploadRemains::Resumable { .. });
    let error = error_event(failure).of_video(video_id);
    let _ =
        job.emit(run.console, &JsonEvent::FileFailed { file: &job.name, elapsed_ms: 0, resumable, error });
    run.console.print_file_error(&job.name, failure, remains);
}

/// Reports a failed job. `uploaded` is its upload if a step after it failed.
pub(super) fn failed(
    run: &UploadRun<'_>,
    job: &UploadJob,
    failure: &CommandError,
    uploaded: Option<&Uploaded>,
    started: Instant,
) -> Option<PendingWrite> {
    let remains = match (failure, uploaded) {
        (CommandError::Library(error), None) => run.remains(job, error),
        (_, Some(_)) if is_temporary(failure) => run.resume_hint(job),
        _ => UploadRemains::Nothing,
    };
    let resumable = matches!(remains, UploadRemains::Resumable { .. });
    let video_id = uploaded.map(|uploaded| uploaded.video_id.as_str());
    let elapsed_ms = millis(started.elapsed());
    let event = |file| {
        let error = error_event(failure).of_video(video_id);
        JsonEvent::FileFailed { file, elapsed_ms, resumable, error }
    };
    let write = job.emit(run.console, &event(&job.name));
    job.also.iter().for_each(|name| run.console.emit(&event(name)));
    run.console.print_file_error(&job.name, failure, remains);
    write
}

/// Returns `true` if the same command finds the file uploaded and repeats only the failed check.
pub(super) fn is_temporary(failure: &CommandError) -> bool {
    matches!(failure.exit(), Exit::Temporary | Exit::Interrupted(_))
}
