//! Some lanes of a measurement, with a client and a video of their own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::upload::{Backlog, ChunkSize, Client, LaneControl, Mode, Running, Settings, Snapshot};

use super::mark::marked_video;

/// Some lanes that send one file, one chunk each. Dropping the value closes their connections and deletes the file;
/// the video stays at the service.
///
/// Each group has a client of its own, so that a measurement adds lanes while others go on with their requests.
#[derive(Debug)]
pub(super) struct LaneGroup {
    client: Client,
    /// `None` only while the group ends.
    running: Option<Running>,
    sample: PathBuf,
    pub(super) lanes: u32,
    /// The bytes of the file.
    pub(super) bytes: u64,
    /// The video, once it is known.
    pub(super) video_id: Option<String>,
}

/// The file that a group sends.
#[derive(Clone, Debug)]
pub(super) struct GroupPlan {
    pub(super) lanes: u32,
    pub(super) chunks: u32,
    pub(super) chunk_bytes: u64,
    /// The path of the file to create.
    pub(super) sample: PathBuf,
}

impl LaneGroup {
    /// Creates the file, and starts to create the video and to send.
    ///
    /// # Errors
    /// If the file cannot be created, or the settings contradict each other.
    pub(super) fn start(settings: &Settings, plan: GroupPlan, run_id: &str) -> Result<LaneGroup> {
        let bytes = plan.chunk_bytes * u64::from(plan.chunks);
        create_sparse(&plan.sample, bytes)?;
        let mut settings = settings.clone();
        settings.lanes = plan.lanes as usize;
        settings.lane_control = LaneControl::Fixed;
        settings.transfers = 1;
        settings.journal = None;
        settings.backlog = Backlog::default();
        // A failure is a result. A repetition would cost requests beyond the budget.
        settings.retry.retries = 0;
        let client = Client::new(settings)?;
        let upload = client.upload(&plan.sample).video(marked_video(run_id)).mode(Mode::Bytes);
        let upload = upload.chunk_size(ChunkSize::Bytes(plan.chunk_bytes));
        let running = pollster::block_on(upload.start())?;
        Ok(LaneGroup {
            client,
            running: Some(running),
            sample: plan.sample,
            lanes: plan.lanes,
            bytes,
            video_id: None,
        })
    }

    /// Returns the numbers of the group's client at this moment.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        if self.video_id.is_none() {
            self.video_id = self.running.as_ref().and_then(|running| running.current().video_id);
        }
        self.client.snapshot()
    }

    /// Waits for the end of the group's upload, and returns its error. For an upload that has failed.
    pub(super) fn into_error(mut self) -> Error {
        let ended = self.running.take().map(Running::join_blocking);
        let unexpected =
            || Error::new(ErrorKind::Internal, "measure the path").because("an upload ended early");
        ended.and_then(Result::err).unwrap_or_else(unexpected)
    }
}

impl Drop for LaneGroup {
    fn drop(&mut self) {
        // Closes the connections at once, so that the next measurement has the link for itself.
        self.running = None;
        // The folder of the file is removed later in any case.
        let _ = fs::remove_file(&self.sample);
    }
}

/// Creates a file without data, so that a measurement of the path does not read a disk.
pub(super) fn create_sparse(path: &Path, bytes: u64) -> Result<()> {
    File::create(path).and_then(|file| file.set_len(bytes)).map_err(|error| {
        Error::new(ErrorKind::SourceUnreadable, format!("create {}", path.display()))
            .because(error.to_string())
            .with_source(error)
    })
}
