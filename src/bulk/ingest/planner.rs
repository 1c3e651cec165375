//! The jobs that inputs give.

use std::path::Path;
use std::sync::Arc;

use crate::api::Secret;
use crate::bulk::entry::{EntryKeys, ManifestEntry, ManifestSource};
use crate::bulk::file_stamp::FileStamp;
use crate::bulk::job::JobSpec;
use crate::bulk::job_id::{Account, JobId, Pool};
use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobFailure;
use crate::bulk::order::OrderBy;
use crate::bulk::sidecar::read_sidecar;
use crate::bulk::template::{Template, TemplateValues};
use crate::bulk::walk::FoundFile;
use crate::upload::UploadOptions;

/// The rules by which files and lines of manifests become jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobPlanner {
    /// The account of the jobs.
    pub account: Account,
    /// The pool of the jobs.
    pub pool: Pool,
    /// The options of every job, unless a sidecar or a manifest has others.
    pub defaults: UploadOptions,
    /// The title; `None` for the file's name.
    pub title: Option<Template>,
    /// The metadata that depend on the file.
    pub metadata: Vec<(String, Template)>,
    /// `true` to read sidecar files.
    pub has_sidecars: bool,
    /// The order of the jobs.
    pub order_by: OrderBy,
}

/// A job of the inputs that is not submitted yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedJob {
    /// The job.
    pub spec: JobSpec,
    /// The file as it was found; `None` for a URL.
    pub stamp: Option<FileStamp>,
    /// `true` for a row of an earlier report, which has no metadata.
    pub is_reported: bool,
    /// The line of a manifest that gives the job.
    pub(super) place: Option<LinePlace>,
}

/// A line of a manifest.
#[derive(Clone, Debug)]
pub(super) struct LinePlace {
    pub(super) manifest: Arc<str>,
    pub(super) line: u64,
}

impl LinePlace {
    /// Names the line in the text of a failure.
    pub(super) fn name_in(&self, mut failure: Box<InputFailure>) -> Box<InputFailure> {
        let LinePlace { manifest, line } = self;
        failure.failure.message = format!("{manifest}:{line}: {}", failure.failure.message);
        failure
    }
}

/// A file or a line of the inputs that gives no job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InputFailure {
    /// The id that a manifest gives.
    pub id: Option<String>,
    /// The file or the URL; `None` if a line could not be read.
    pub source: Option<ManifestSource>,
    /// The failure. Its text names the line or the file.
    pub failure: JobFailure,
}

impl JobPlanner {
    /// Creates a planner of jobs that are claimed in the order of submission.
    pub fn new(account: Account, pool: Pool, defaults: UploadOptions) -> JobPlanner {
        JobPlanner {
            account,
            pool,
            defaults,
            title: None,
            metadata: Vec::new(),
            has_sidecars: false,
            order_by: OrderBy::Submission,
        }
    }

    /// Returns the job of a file of a folder. `index` counts the files of the run from 1. Reads the sidecar file.
    ///
    /// # Errors
    /// If the sidecar cannot be used, or the path cannot be made absolute.
    pub fn file(&self, found: &FoundFile, index: u64) -> Result<PlannedJob, Box<InputFailure>> {
        let keys = EntryKeys::default();
        self.job(&found.path, &found.relative, found.stamp, keys, index)
    }

    /// Returns the job of a line of a manifest. Examines the file and reads its sidecar file.
    ///
    /// # Errors
    /// If the file cannot be found or examined, its id cannot be one, or the sidecar cannot be used.
    pub fn entry(
        &self,
        entry: ManifestEntry,
        is_reported: bool,
        index: u64,
    ) -> Result<PlannedJob, Box<InputFailure>> {
        let ManifestEntry { source, keys } = entry;
        match source {
            ManifestSource::Url(url) => self.url(url, keys, index),
            ManifestSource::Path(path) => {
                let stamp =
                    regular_stamp(&path).map_err(|failure| failed(&path, keys.id.clone(), *failure))?;
                let name = path.file_name().map(Path::new).unwrap_or(&path);
                let job = self.job(&path, name, stamp, keys, index)?;
                Ok(PlannedJob { is_reported, ..job })
            }
        }
    }

    fn job(
        &self,
        path: &Path,
        relative: &Path,
        stamp: FileStamp,
        keys: EntryKeys,
        index: u64,
    ) -> Result<PlannedJob, Box<InputFailure>> {
        let id = keys.id.clone();
        let fail = |kind, message| failed(path, id.clone(), JobFailure::permanent(kind, message));
        let keys = if self.has_sidecars {
            let sidecar = read_sidecar(path).map_err(|error| fail("sidecar", error.to_string()))?;
            keys.or(sidecar.unwrap_or_default())
        } else {
            keys
        };
        let absolute = std::path::absolute(path)
            .map_err(|error| fail("source_unreadable", format!("{}: {error}", path.display())))?;
        let values = TemplateValues::new(path, relative, index);
        let options = keys.over(&self.rendered(&values));
        let content = ContentStamp { size: stamp.bytes, mtime_ns: stamp.modified_ns };
        let source = JobSource::File { path: absolute };
        let spec = self.spec(source, Some(content), options, keys);
        let spec = spec.map_err(|message| fail("bad_line", message))?;
        Ok(PlannedJob { spec, stamp: Some(stamp), is_reported: false, place: None })
    }

    fn url(&self, url: String, keys: EntryKeys, index: u64) -> Result<PlannedJob, Box<InputFailure>> {
        let place = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_owned();
        let path = Path::new(&place);
        let values = TemplateValues::new(path, path.file_name().map(Path::new).unwrap_or(path), index);
        let mut options = keys.over(&self.rendered(&values));
        if options.video.title.is_empty() {
            options.video.title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        options.video.source = Some(url.clone());
        let id = keys.id.clone();
        let spec = self.spec(JobSource::Url { url: url.clone() }, None, options, keys);
        let spec = spec.map_err(|message| {
            let failure = JobFailure::permanent("bad_line", message);
            Box::new(InputFailure { id, source: Some(ManifestSource::Url(url)), failure })
        })?;
        Ok(PlannedJob { spec, stamp: None, is_reported: false, place: None })
    }

    /// Returns the default options with the templates filled in.
    fn rendered(&self, values: &TemplateValues<'_>) -> UploadOptions {
        let mut options = self.defaults.clone();
        if let Some(title) = &self.title {
            options.video.title = title.render(values);
        }
        for (key, template) in &self.metadata {
            options.video = options.video.metadata(key, template.render(values));
        }
        options
    }

    fn spec(
        &self,
        source: JobSource,
        stamp: Option<ContentStamp>,
        options: UploadOptions,
        keys: EntryKeys,
    ) -> Result<JobSpec, String> {
        let given: Option<&Secret> = keys.upload_token.as_ref();
        if given.is_some() && keys.upload_token != self.defaults.upload_token {
            // The store never keeps a token, so that the next process could not go on with this job.
            return Err("upload_token: a queue keeps no tokens; give one token for all files".to_owned());
        }
        let id = match &keys.id {
            Some(id) => JobId::new(id).map_err(|flaw| flaw.to_string())?,
            None => JobId::derive(&self.account, &self.pool, &source, stamp),
        };
        let mut spec = JobSpec::new(id, self.pool.clone(), source, stamp, options);
        spec.sha256 = keys.sha256;
        spec.priority = keys.priority.unwrap_or(0);
        spec.sort_key = self.order_by.key(&spec.id, &spec.source, stamp);
        Ok(spec)
    }
}

/// Returns the stamp of a regular file. Nothing else is opened: the opening of a FIFO waits for its writer.
pub(super) fn regular_stamp(path: &Path) -> Result<FileStamp, Box<JobFailure>> {
    let (kind, reason) = match path.metadata() {
        Ok(metadata) if metadata.is_file() => return Ok(FileStamp::from(&metadata)),
        Ok(_) => ("source_unreadable", "is no regular file".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ("no_such_file", "there is no such file".to_owned())
        }
        Err(error) => ("source_unreadable", error.to_string()),
    };
    Err(Box::new(JobFailure::permanent(kind, format!("{}: {reason}", path.display()))))
}

fn failed(path: &Path, id: Option<String>, failure: JobFailure) -> Box<InputFailure> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Box::new(InputFailure { id, source: Some(ManifestSource::Path(absolute)), failure })
}
