//! The jobs that inputs give.

use std::path::Path;

use super::input_failure::InputFailure;
use super::planned_job::PlannedJob;
use super::signed_url::has_secret;
use crate::api::Secret;
use crate::bulk::absolute_path::absolute_path;
use crate::bulk::entry::{EntryKeys, ManifestEntry, ManifestSource};
use crate::bulk::file_stamp::FileStamp;
use crate::bulk::job::JobSpec;
use crate::bulk::job_id::{Account, JobId, Pool};
use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobFailure;
use crate::bulk::order::OrderBy;
use crate::bulk::sidecar::{SidecarError, read_sidecar};
use crate::bulk::template::{Template, TemplateValues};
use crate::bulk::walk::FoundFile;
use crate::upload::{ChunkSize, Settings, UploadOptions};

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
    /// `true` if other hosts work on the jobs, too. The chunk size is chosen with the job then, as every host has to cut
    /// the file alike, and jobs with a secret are refused.
    pub is_shared: bool,
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
            is_shared: false,
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
        let keys = self.with_sidecar(keys, path).map_err(|error| fail("sidecar", error.to_string()))?;
        let absolute = absolute_path(path)
            .map_err(|error| fail("source_unreadable", format!("{}: {error}", path.display())))?;
        let values = TemplateValues::new(path, relative, index);
        let mut options = self.rendered(&values);
        keys.apply_to(&mut options);
        let content = ContentStamp { size: stamp.bytes, mtime_ns: stamp.modified_ns };
        let source = JobSource::File { path: absolute };
        let spec = self.spec(source, Some(content), options, keys);
        let spec = spec.map_err(|message| fail("bad_line", message))?;
        Ok(PlannedJob { spec, stamp: Some(stamp), is_reported: false, place: None })
    }

    /// Adds the keys of the file's sidecar, if sidecars are read.
    fn with_sidecar(&self, keys: EntryKeys, path: &Path) -> Result<EntryKeys, SidecarError> {
        if !self.has_sidecars {
            return Ok(keys);
        }
        Ok(keys.or(read_sidecar(path)?.unwrap_or_default()))
    }

    fn url(&self, url: String, keys: EntryKeys, index: u64) -> Result<PlannedJob, Box<InputFailure>> {
        let source = JobSource::Url { url: url.clone() };
        // Without the login and the query, which may be a signature: a secret must not become a title.
        let place =
            source.name().split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_owned();
        let path = Path::new(&place);
        let values = TemplateValues::new(path, path.file_name().map(Path::new).unwrap_or(path), index);
        let mut options = self.rendered(&values);
        keys.apply_to(&mut options);
        if options.video.title.is_empty() {
            options.video.title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        options.video.source = Some(url.clone());
        let id = keys.id.clone();
        let spec = self.spec(source, None, options, keys);
        let spec = spec.map_err(|message| {
            let failure = JobFailure::permanent("bad_line", message);
            InputFailure::new(id, Some(ManifestSource::Url(url)), failure)
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
        mut options: UploadOptions,
        keys: EntryKeys,
    ) -> Result<JobSpec, String> {
        if self.is_shared {
            refuse_secrets(&source, &options)?;
            fix_chunks(&mut options, stamp);
        }
        let given: Option<&Secret> = keys.upload_token.as_ref();
        if given.is_some() && keys.upload_token != self.defaults.upload_token {
            // The store never keeps a token, so that the next process could not go on with this job.
            return Err("upload_token: a queue keeps no tokens; give one token for all files".to_owned());
        }
        let id = keys.id.as_deref().map(JobId::new).transpose().map_err(|flaw| flaw.to_string())?;
        let id = id.unwrap_or_else(|| JobId::derive(&self.account, &self.pool, &source, stamp));
        let mut spec = JobSpec::new(id, self.pool.clone(), source, stamp, options);
        spec.sha256 = keys.sha256;
        spec.priority = keys.priority.unwrap_or(0);
        spec.sort_key = self.order_by.key(&spec.id, &spec.source, stamp);
        Ok(spec)
    }
}

/// Refuses a job whose record would show a secret to all who can read a shared queue.
fn refuse_secrets(source: &JobSource, options: &UploadOptions) -> Result<(), String> {
    if options.upload_token.is_some() {
        return Err(
            "upload_token: a shared queue keeps no secrets; use the API key of the workers".to_owned()
        );
    }
    let JobSource::Url { url } = source else { return Ok(()) };
    if has_secret(url) {
        return Err("source_url: a shared queue keeps no secrets, and this URL is signed; give a public URL"
            .to_owned());
    }
    Ok(())
}

/// Sets the chunk size that a host would choose that uploads this file alone.
fn fix_chunks(options: &mut UploadOptions, stamp: Option<ContentStamp>) {
    let (ChunkSize::Auto, Some(stamp)) = (options.chunk_size, stamp) else { return };
    // A file that no plan fits fails when it is uploaded, with the reason.
    if let Ok(plan) = Settings::default().plan(stamp.size, options.mode, ChunkSize::Auto) {
        options.chunk_size = ChunkSize::Bytes(plan.chunk_bytes());
    }
}

/// Returns the stamp of a regular file. Nothing else is opened: the opening of a FIFO waits for its writer.
pub(super) fn regular_stamp(path: &Path) -> Result<FileStamp, Box<JobFailure>> {
    let text = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    Err(Box::new(match path.metadata() {
        Ok(metadata) if metadata.is_file() => return Ok(FileStamp::from(&metadata)),
        Ok(_) => JobFailure::permanent("source_unreadable", text(&"is no regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            JobFailure::permanent("no_such_file", text(&"there is no such file"))
        }
        // Like a read that fails: the mount or the permission may be there with the next attempt.
        Err(error) => JobFailure::temporary("source_unreadable", text(&error)),
    }))
}

fn failed(path: &Path, id: Option<String>, failure: JobFailure) -> Box<InputFailure> {
    // For a message and a row of the report, where the name as given will do.
    let absolute = absolute_path(path).unwrap_or_else(|_| path.to_owned());
    InputFailure::new(id, Some(ManifestSource::Path(absolute)), failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planner(is_shared: bool) -> JobPlanner {
        let (account, pool) = (Account::named("a").unwrap(), Pool::new("p").unwrap());
        JobPlanner { is_shared, ..JobPlanner::new(account, pool, UploadOptions::default()) }
    }

    fn spec(planner: &JobPlanner, source: JobSource, options: UploadOptions) -> Result<JobSpec, String> {
        let stamp = ContentStamp { size: 3 << 30, mtime_ns: 5 };
        planner.spec(source, Some(stamp), options, EntryKeys::default())
    }

    #[test]
    fn the_chunks_of_a_shared_job_are_chosen_with_the_job() {
        let file = || JobSource::File { path: "/films/a.mp4".into() };
        let alone = spec(&planner(false), file(), UploadOptions::default()).unwrap();
        assert_eq!(alone.options.chunk_size, ChunkSize::Auto);
        let shared = spec(&planner(true), file(), UploadOptions::default()).unwrap();
        assert!(matches!(shared.options.chunk_size, ChunkSize::Bytes(bytes) if bytes > 0));
        let given = UploadOptions { chunk_size: ChunkSize::Bytes(50 << 20), ..UploadOptions::default() };
        let given = spec(&planner(true), file(), given).unwrap();
        assert_eq!(given.options.chunk_size, ChunkSize::Bytes(50 << 20));
    }

    #[test]
    fn a_shared_queue_takes_no_signed_url_and_no_token() {
        let url = |url: &str| {
            let source = JobSource::Url { url: url.to_owned() };
            spec(&planner(true), source, UploadOptions::default()).map(drop)
        };
        for signed in [
            "https://b.example/a.mp4?X-Amz-Signature=1",
            "https://b.example/a.mp4?sv=1&sig=2",
            "https://kim:secret@b.example/a.mp4",
        ] {
            assert!(url(signed).unwrap_err().contains("public URL"), "{signed}");
        }
        url("https://b.example/a@b.mp4?version=3").unwrap();
        let options = UploadOptions { upload_token: Some("to1".into()), ..UploadOptions::default() };
        let source = JobSource::File { path: "/films/a.mp4".into() };
        assert!(spec(&planner(true), source, options).unwrap_err().starts_with("upload_token"));
    }
}
