//! The claim of an upload in the journal.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api::NewVideo;
use crate::engine::checkpoint::Checkpoint;
use crate::engine::journal_entry::{JournalEntryGuard, JournalHandle, Recovered};
use crate::engine::options::{Destination, UploadOptions};
use crate::engine::proof::Unproved;
use crate::engine::request::{IfNotBegun, UploadRequest};
use crate::engine::resume;
use crate::engine::settings::Settings;
use crate::engine::source::{OpenedSource, UploadSource};
use crate::engine::stream_reader::StreamEvent;
use crate::engine::upload_record::{CheckpointSender, UploadRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{ClaimOptions, ContainerState, CreatedBy, Finished};
use crate::session::chunks::Layout;
use crate::session::{CredentialKind, Resumed, SessionConfig};
use crate::source::SourceFile;

/// An upload with an open source, claimed in the journal if there is one.
pub(crate) struct ClaimedUpload {
    pub(crate) spec: SessionConfig,
    pub(crate) source: UploadSource,
    pub(crate) destination: Destination,
    pub(crate) file_name: Arc<str>,
    pub(crate) inbox: Option<mpsc::Receiver<StreamEvent>>,
    pub(crate) record: UploadRecord,
    pub(crate) left_mark: Option<String>,
    /// `true` if an earlier run may have created a video whose id is unknown.
    pub(crate) may_have_orphan: bool,
    pub(crate) made: CreatedBy,
    /// Present if chunks of an earlier run are not yet proved to match the file.
    pub(crate) doubt: Option<Unproved>,
}

/// The result of a claim.
pub(crate) enum ClaimOutcome {
    Ours(Box<ClaimedUpload>),
    /// An unfinished command has uploaded the file already.
    Finished(Finished),
}

impl ClaimedUpload {
    /// Claims the upload in the journal, and takes over what an earlier run left of it.
    ///
    /// # Errors
    /// If another process has the upload, the journal fails, or there is nothing to continue although the request asks
    /// for that.
    pub(crate) fn of(
        opened: OpenedSource,
        request: &UploadRequest,
        settings: &Settings,
        journal_handle: &JournalHandle,
        checkpoints: CheckpointSender,
    ) -> Result<ClaimOutcome> {
        let UploadRequest { options, terms, checkpoint, .. } = request;
        let destination = options.destination();
        let OpenedSource { cut, source, file_name, inbox } = opened;
        let spec = session_config(request, settings, &destination, cut);
        let arguments = serde_json::to_string(&options.titled(&file_name)).unwrap_or_default();
        let claim = ClaimOptions { again: terms.again, own_token_only: terms.own_token_only };
        let endpoint = &settings.endpoint_url;
        let begin = || journal_handle.claim(endpoint, source.file(), &destination, &arguments, claim);
        let (mut journal_entry, mut continued) = begin()?;
        if is_replaced(&continued, request) {
            // Two videos would be filled with one file. This host's is left to `clean`.
            journal_entry.into_iter().for_each(JournalEntryGuard::abandoned);
            (journal_entry, continued) = begin()?;
        }
        if let Recovered::Finished(finished) = continued {
            return Ok(ClaimOutcome::Finished(finished));
        }
        let is_journalled = matches!(continued, Recovered::Container { .. });
        let (journal_entry, continued) = match checkpoint {
            None => (allowed(journal_entry, terms.if_not_begun, &file_name)?, continued),
            Some(theirs) => resume::joined(journal_entry, continued, theirs, endpoint, source.file())?,
        };
        // The journal lacks only what it has not recorded itself.
        let is_ahead = checkpoint.is_some() && !is_journalled;
        let known = known_so_far(endpoint, options.titled(&file_name), source.file(), cut, &continued);
        let mut record = UploadRecord::new(journal_entry, known, checkpoints);
        if let (true, Recovered::Container { plan, doubt, .. }) = (is_ahead, &continued) {
            record.set_ahead_of_journal();
            // A file in doubt gets into the journal after its proof, see `Transfer::proved`.
            if doubt.is_none() {
                record.catch_up(Some(*plan))?;
            }
        }
        if let Recovered::Nothing | Recovered::PossibleOrphan = continued {
            // Before the first byte: a crash must leave an entry that names the container.
            record.begin(cut.plan(), spec.video_id.as_deref())?;
        }
        let mut claimed = ClaimedUpload {
            spec,
            source,
            destination,
            file_name,
            inbox,
            record,
            left_mark: None,
            may_have_orphan: false,
            made: CreatedBy::Given,
            doubt: None,
        };
        claimed.continue_from(continued);
        Ok(ClaimOutcome::Ours(Box::new(claimed)))
    }

    /// Takes over the state that an earlier process left.
    fn continue_from(&mut self, continued: Recovered) {
        match continued {
            Recovered::Container { video_id, made, plan, resumed, doubt, .. } => {
                // The plan of the earlier run: its chunk indexes mean other bytes under another chunk size.
                self.spec.cut = Layout::Planned(plan);
                (self.spec.video_id, self.spec.resumed) = (Some(video_id), Some(resumed));
                (self.made, self.doubt) = (made, doubt);
            }
            // `creation` searches for this mark before it creates a container.
            Recovered::Intended { mark } => self.left_mark = Some(mark),
            Recovered::PossibleOrphan => self.may_have_orphan = true,
            Recovered::Nothing | Recovered::Finished(_) => {}
        }
    }
}

/// Returns the configuration of a session that continues no upload of this host.
fn session_config(
    request: &UploadRequest,
    settings: &Settings,
    destination: &Destination,
    cut: Layout,
) -> SessionConfig {
    let (access, video_id) = access_to(destination);
    let mark = request.job_mark.as_ref();
    // Another host of the job began to fill the video that the options name.
    let has_begun = mark.is_some_and(|mark| mark.has_begun) && matches!(destination, Destination::Video(_));
    SessionConfig {
        cut,
        access,
        resumed: has_begun.then(Resumed::default),
        is_shared: mark.is_some() && video_id.is_none() && access == CredentialKind::Key,
        video_id,
        policy: settings.retry.clone(),
    }
}

/// Returns the kind of credential that the destination needs, and the video that it names.
fn access_to(destination: &Destination) -> (CredentialKind, Option<String>) {
    match destination {
        Destination::NewVideo(_) => (CredentialKind::Key, None),
        Destination::Video(video_id) => (CredentialKind::Key, Some(video_id.clone())),
        Destination::Delegated { video_id, .. } => (CredentialKind::Token, video_id.clone()),
    }
}

/// Returns `true` if the journal has the upload in another video than the hosts of its job have agreed on.
fn is_replaced(continued: &Recovered, request: &UploadRequest) -> bool {
    let agreed = request.job_mark.as_ref().and_then(|mark| mark.container.as_deref());
    match (continued, agreed) {
        (Recovered::Container { video_id, .. }, Some(agreed)) => video_id != agreed,
        _ => false,
    }
}

/// Returns the checkpoint of what is known before anything is sent; `None` for a source that cannot be resumed.
fn known_so_far(
    endpoint: &str,
    options: UploadOptions,
    file: Option<&SourceFile>,
    cut: Layout,
    continued: &Recovered,
) -> Option<Checkpoint> {
    let plan = match continued {
        Recovered::Container { plan, .. } => *plan,
        _ => cut.plan()?,
    };
    let mut checkpoint = Checkpoint::begin(endpoint, options, file?, plan);
    match continued {
        Recovered::Container { video_id, made, resumed, digests, .. } => {
            checkpoint.set_container(ContainerState::Known { video_id: video_id.clone(), made: *made });
            resumed.stored.iter().for_each(|&index| checkpoint.insert_acknowledged(index));
            digests.iter().for_each(|&(index, digest)| checkpoint.insert_digest(index, digest));
        }
        Recovered::Intended { mark } => {
            checkpoint.set_container(ContainerState::Intended { mark: mark.clone() });
        }
        Recovered::Nothing | Recovered::PossibleOrphan | Recovered::Finished(_) => {}
    }
    Some(checkpoint)
}

/// Refuses an upload without an entry if it was to be continued. Another process may have finished or removed the
/// upload since it was listed.
fn allowed(
    journal_entry: Option<JournalEntryGuard>,
    if_not_begun: IfNotBegun,
    file_name: &str,
) -> Result<Option<JournalEntryGuard>> {
    match (if_not_begun, journal_entry) {
        (IfNotBegun::Begin, journal_entry) => Ok(journal_entry),
        (IfNotBegun::Refuse, Some(journal_entry)) if !journal_entry.is_new() => Ok(Some(journal_entry)),
        (IfNotBegun::Refuse, journal_entry) => {
            if let Some(journal_entry) = journal_entry {
                // The claim has just added this entry, so it holds nothing to keep.
                journal_entry.finished();
            }
            let reason = "the journal has nothing of it: it was finished or removed, or never begun";
            Err(Error::new(ErrorKind::Journal, format!("continue {file_name}")).because(reason))
        }
    }
}

/// Returns the container to create. Its title is the file's name if none was given.
pub(crate) fn titled(destination: &Destination, file_name: &str) -> NewVideo {
    let mut video = match destination {
        Destination::NewVideo(video) => NewVideo::clone(video),
        Destination::Video(_) | Destination::Delegated { .. } => NewVideo::default(),
    };
    if video.title.is_empty() {
        video.title = file_name.to_owned();
    }
    video
}
