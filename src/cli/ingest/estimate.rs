//! The work of a run, and the time that it takes at least.

use std::time::Duration;

use ringlift::bulk::{Bottleneck, Capacity, Estimate, PlannedJob, PlannedWork};
use ringlift::{ChunkSize, Class, Mode, Settings, Workload};

use crate::cli::console::{counted, duration};
use crate::cli::events::EstimateEvent;
use crate::cli::values::Size;

/// The sum of the work of a run.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Estimator {
    settings: Settings,
    mode: Mode,
    chunk_size: ChunkSize,
    /// The request budget. Kept, because an endpoint is parsed for it, and a manifest may have a million files.
    budget: Workload,
    files: u64,
    work: PlannedWork,
}

impl Estimator {
    /// Creates the estimate of no work with the usual chunking.
    pub(in crate::cli) fn new(settings: &Settings) -> Estimator {
        let (mode, chunk_size) = (Mode::Auto, ChunkSize::Auto);
        let (settings, budget) = (settings.clone(), settings.workload());
        Estimator { settings, mode, chunk_size, budget, files: 0, work: PlannedWork::default() }
    }

    /// Sets the chunking of the files to come.
    pub(in crate::cli) fn with_chunks(mut self, mode: Mode, chunk_size: ChunkSize) -> Estimator {
        (self.mode, self.chunk_size) = (mode, chunk_size);
        self
    }

    /// Adds a file; `None` for a URL, whose bytes do not pass through this machine. Returns the number of chunks.
    ///
    /// # Errors
    /// If the file cannot be split.
    pub(super) fn add(&mut self, bytes: Option<u64>) -> ringlift::Result<u32> {
        self.add_chunked(bytes, self.mode, self.chunk_size)
    }

    /// Adds a job with the chunking of its own options, as [`Estimator::add`] does.
    ///
    /// # Errors
    /// If the file cannot be split.
    pub(super) fn add_job(&mut self, job: &PlannedJob) -> ringlift::Result<u32> {
        let (bytes, options) = (job.stamp.map(|stamp| stamp.bytes), &job.spec.options);
        self.add_chunked(bytes, options.mode, options.chunk_size)
    }

    fn add_chunked(
        &mut self,
        bytes: Option<u64>,
        mode: Mode,
        chunk_size: ChunkSize,
    ) -> ringlift::Result<u32> {
        let chunks = bytes.map_or(Ok(0), |bytes| self.chunks(bytes, mode, chunk_size));
        self.files += 1;
        self.work.creates += 1;
        self.work.bytes = self.work.bytes.saturating_add(bytes.unwrap_or(0));
        self.work.chunks += u64::from(*chunks.as_ref().unwrap_or(&0));
        chunks
    }

    /// Adds the jobs of a queue, of which only the sum of the sizes is known.
    pub(super) fn add_queue(&mut self, jobs: u64, bytes: u64) {
        // A queue without jobs has no mean.
        let mean = bytes.checked_div(jobs).unwrap_or(0);
        // A mean that cannot be split says nothing about a single file, which fails by itself.
        let chunks = self.chunks(mean, self.mode, self.chunk_size).unwrap_or(1);
        self.files += jobs;
        self.work.creates += jobs;
        self.work.bytes = self.work.bytes.saturating_add(bytes);
        self.work.chunks = self.work.chunks.saturating_add(jobs.saturating_mul(u64::from(chunks)));
    }

    fn chunks(&self, bytes: u64, mode: Mode, chunk_size: ChunkSize) -> ringlift::Result<u32> {
        Ok(self.settings.plan_among(bytes, mode, chunk_size, self.budget)?.chunks())
    }

    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Returns the estimate for programs.
    pub(super) fn event(&self) -> EstimateEvent {
        let estimate = self.estimate();
        EstimateEvent {
            files: self.files,
            bytes: self.work.bytes,
            upload_requests: self.work.chunks,
            seconds: estimate.map(|estimate| estimate.time.as_secs()),
            limited_by: estimate.map(|estimate| match estimate.bottleneck {
                Bottleneck::Bandwidth => "bandwidth",
                Bottleneck::UploadRate => "upload_rate",
                Bottleneck::WriteRate => "write_rate",
                _ => "other",
            }),
        }
    }

    /// Returns the estimate for a person: `3 files, 1.2 GiB, 12 upload requests: at least 1m30s, because of ...`.
    pub(super) fn text(&self) -> String {
        let (files, requests) = (counted(self.files, "file"), counted(self.work.chunks, "upload request"));
        let work = format!("{files}, {}, {requests}", Size(self.work.bytes));
        let Some(estimate) = self.estimate() else { return work };
        let reason = match estimate.bottleneck {
            Bottleneck::Bandwidth => "the bandwidth limit",
            Bottleneck::UploadRate => "the limit of upload requests",
            Bottleneck::WriteRate => "the limit of requests that create videos",
            _ => "a limit",
        };
        // Part of a second says nothing about hours.
        let time = Duration::from_secs(estimate.time.as_secs().max(1));
        format!("{work}: at least {}, because of {reason}", duration(time))
    }

    fn estimate(&self) -> Option<Estimate> {
        let mut capacity = Capacity::default();
        let per_second = self.settings.bandwidth.limit().map(|limit| limit.get() as f64);
        let writes = self.settings.caps.preset.map(|preset| f64::from(preset.per_minute(Class::Writes)));
        let of_all = self.settings.caps.requests_a_second.map(|rate| rate * 60.0);
        capacity.bytes_per_second = per_second;
        capacity.uploads_per_minute = self.budget.uploads_per_minute.map(f64::from);
        capacity.writes_per_minute = writes.into_iter().chain(of_all).reduce(f64::min);
        Estimate::new(&self.work, &capacity)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn the_limit_that_binds_is_named() {
        let settings = Settings::default();
        settings.bandwidth.set(NonZeroU64::new(1 << 20));
        let mut estimator = Estimator::new(&settings);
        estimator.add(Some(90 << 20)).unwrap();
        let text = estimator.text();
        assert!(text.starts_with("1 file, 90 MiB, "), "{text}");
        assert!(text.ends_with(": at least 90.0 s, because of the bandwidth limit"), "{text}");
        assert_eq!(estimator.event().limited_by, Some("bandwidth"));
    }

    #[test]
    fn a_queue_counts_as_many_chunks_as_its_mean_file() {
        let mut settings = Settings::default();
        settings.caps.uploads_a_minute = Some(60);
        let mut estimator = Estimator::new(&settings).with_chunks(Mode::Bytes, ChunkSize::Bytes(10 << 20));
        estimator.add_queue(4, 80 << 20);
        assert_eq!((estimator.event().upload_requests, estimator.event().seconds), (8, Some(8)));
        assert_eq!(estimator.event().limited_by, Some("upload_rate"));
    }
}
