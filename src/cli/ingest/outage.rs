//! The output about a queue or a service that does not answer, and about videos that were left.

use ringlift::bulk::event::{millis, odd_name};
use ringlift::bulk::{IngestEvent, IngestJob, OrphanFate};

use crate::cli::console::{Console, counted, duration};
use crate::cli::escape::visible;
use crate::cli::events::CommandEvent;

/// Shows the begin or the end of an outage.
pub(super) fn show_outage(event: &IngestEvent, console: &Console) {
    match event {
        IngestEvent::StoreAway { error } => {
            let message = error.to_string();
            console.emit(&CommandEvent::QueueAway { message: &message });
            console.alert(format_args!("{message}; uploads under way go on while their leases last"));
        }
        IngestEvent::StoreBack { elapsed } => {
            console.emit(&CommandEvent::QueueBack { elapsed_ms: millis(*elapsed) });
            console.note(format_args!("the queue answers again, after {}", duration(*elapsed)));
        }
        IngestEvent::ServiceAway { jobs, rest } => {
            console.emit(&CommandEvent::ServiceAway { jobs: *jobs, rest_ms: millis(*rest) });
            console.alert(format_args!(
                "the service does not answer: {} free for other workers, next look in {}",
                counted(*jobs as u64, "file"),
                duration(*rest)
            ));
        }
        IngestEvent::ServiceBack => {
            console.emit(&CommandEvent::ServiceBack);
            console.note("the service answers again");
        }
        _ => {}
    }
}

/// Shows a job that this worker no longer holds, and the video that the job has begun to fill.
pub(super) fn show_lost(job: &IngestJob, reason: &str, video_id: Option<&str>, console: &Console) {
    let event = CommandEvent::Lost { file: &job.name, video_id, message: reason };
    let _ = console.emit_for_file(job.path().and_then(odd_name), &event);
    let video = video_id.map(|video_id| format!("; its video is {video_id}")).unwrap_or_default();
    console.alert(format_args!("{}: given up: {reason}{video}", visible(&job.name)));
}

/// Shows a video that another one of the same job has replaced. Returns `true` if the video is kept.
pub(super) fn show_orphan(job: &IngestJob, video_id: &str, fate: &OrphanFate, console: &Console) -> bool {
    let (name, file) = (visible(&job.name), job.name.as_str());
    let (is_kept, message) = match fate {
        OrphanFate::Kept { reason } => {
            console.alert(format_args!(
                "{name}: video {video_id} is left beside the one of its job: {reason}; delete it with \
                 `ringlift video delete` if it is not needed"
            ));
            (true, reason.as_str())
        }
        _ => {
            console.note(format_args!(
                "{name}: deleted the empty video {video_id}, which another worker's has replaced"
            ));
            (false, "another worker's video has replaced it")
        }
    };
    let event = CommandEvent::Orphan { file, video_id, deleted: !is_kept, message };
    let _ = console.emit_for_file(job.path().and_then(odd_name), &event);
    is_kept
}
