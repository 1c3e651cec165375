//! The output about a queue or a service that does not answer, and about videos that were left.

use ringlift::bulk::event::{millis, odd_name};
use std::path::Path;

use ringlift::bulk::{IngestEvent, IngestJob, JobId, OrphanFate};

use crate::cli::console::{Console, counted, duration};
use crate::cli::escape::{quoted, visible};
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
    let line = orphan_line(&job.name, &job.job.spec.id, video_id, fate);
    let deleted = matches!(fate, OrphanFate::Deleted | OrphanFate::Gone);
    if deleted {
        console.note(line)
    } else {
        console.alert(line)
    }
    let unknown;
    let message = match fate {
        OrphanFate::Kept { reason } => reason.as_str(),
        OrphanFate::Unknown { reason } => {
            unknown = format!("it is not known if the record of its job names it: {reason}");
            unknown.as_str()
        }
        _ => "another worker's video has replaced it",
    };
    let event = CommandEvent::Orphan { file: &job.name, video_id, deleted, message };
    let _ = console.emit_for_file(job.path().and_then(odd_name), &event);
    matches!(fate, OrphanFate::Kept { .. })
}

/// Returns the line about a video that another one has replaced, or may have replaced.
fn orphan_line(name: &str, id: &JobId, video_id: &str, fate: &OrphanFate) -> String {
    let name = visible(name);
    match fate {
        OrphanFate::Kept { reason } => format!(
            "{name}: video {video_id} is left beside the one of its job: {reason}; delete it with \
             `ringlift video delete` if it is not needed"
        ),
        // No advice to delete: the video may be the one that the job goes on with.
        OrphanFate::Unknown { reason } => format!(
            "{name}: it is not known if video {video_id} is the one of its job: {reason}; the next worker of the job \
             decides, and `ringlift jobs show {}` names the job's video",
            quoted(Path::new(id.as_str()))
        ),
        _ => format!("{name}: deleted the empty video {video_id}, which another worker's has replaced"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_that_may_be_the_one_of_its_job_is_not_to_be_deleted() {
        let (id, reason) = (JobId::new("the film").unwrap(), "the queue is away".to_owned());
        let line = |fate: OrphanFate| orphan_line("film.mp4", &id, "vi1", &fate);
        let unknown = line(OrphanFate::Unknown { reason: reason.clone() });
        assert!(
            !unknown.contains("delete") && unknown.contains("`ringlift jobs show 'the film'`"),
            "{unknown}"
        );
        assert!(unknown.starts_with("film.mp4: it is not known if video vi1"), "{unknown}");
        let kept = line(OrphanFate::Kept { reason });
        assert!(kept.contains("left beside the one of its job: the queue is away; delete it"), "{kept}");
    }
}
