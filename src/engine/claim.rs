//! The claim of an upload in the journal.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api::NewVideo;
use crate::engine::journal_entry::{JournalEntryGuard, JournalHandle, Recovered};
use crate::engine::options::{Destination, UploadOptions};
use crate::engine::proof::Unproved;
use crate::engine::request::{IfNotBegun, JournalTerms};
use crate::engine::settings::Settings;
use crate::engine::source::{OpenedSource, UploadSource};
use crate::engine::stream_reader::StreamEvent;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{ClaimOptions, CreatedBy, Finished};
use crate::session::chunks::Layout;
use crate::session::{CredentialKind, SessionConfig};

/// An upload with an open source, claimed in the journal if there is one.
pub(crate) struct ClaimedUpload {
    pub(crate) spec: SessionConfig,
    pub(crate) source: UploadSource,
    pub(crate) destination: Destination,
    pub(crate) file_name: Arc<str>,
    pub(crate) inbox: Option<mpsc::Receiver<StreamEvent>>,
    pub(crate) journal_entry: Option<JournalEntryGuard>,
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
    pub(crate) fn of(
        opened: OpenedSource,
        options: &UploadOptions,
        terms: JournalTerms,
        settings: &Settings,
        journal_handle: &JournalHandle,
    ) -> Result<ClaimOutcome> {
        let destination = options.destination();
        let OpenedSource { cut, source, file_name, inbox } = opened;
        let (access, video_id) = match &destination {
            Destination::NewVideo(_) => (CredentialKind::Key, None),
            Destination::Video(video_id) => (CredentialKind::Key, Some(video_id.clone())),
            Destination::Delegated { video_id, .. } => (CredentialKind::Token, video_id.clone()),
        };
        let arguments = serde_json::to_string(&options.titled(&file_name)).unwrap_or_default();
        let claim = ClaimOptions { again: terms.again, own_token_only: terms.own_token_only };
        let endpoint = &settings.endpoint_url;
        let (journal_entry, continued) =
            journal_handle.claim(endpoint, source.file(), &destination, &arguments, claim)?;
        if let Recovered::Finished(finished) = continued {
            return Ok(ClaimOutcome::Finished(finished));
        }
        let mut journal_entry = allowed(journal_entry, terms.if_not_begun, &file_name)?;
        let policy = settings.retry.clone();
        let (mut left_mark, mut may_have_orphan, mut doubts) = (None, false, None);
        let (spec, made) = match continued {
            Recovered::Container { video_id, made, plan, resumed, doubt } => {
                doubts = doubt;
                // The plan of the earlier run: its chunk indexes mean other bytes under another chunk size.
                let (cut, video_id, resumed) = (Layout::Planned(plan), Some(video_id), Some(resumed));
                (SessionConfig { cut, access, video_id, resumed, policy }, made)
            }
            Recovered::Intended { mark } => {
                // `creation` searches for this mark before it creates a container.
                left_mark = Some(mark);
                (SessionConfig { cut, access, video_id, resumed: None, policy }, CreatedBy::Given)
            }
            nothing @ (Recovered::Nothing | Recovered::PossibleOrphan | Recovered::Finished(_)) => {
                may_have_orphan = matches!(nothing, Recovered::PossibleOrphan);
                if let Some(journal_entry) = &mut journal_entry {
                    // Before the first byte: a crash must leave an entry that names the container.
                    journal_entry.begin(cut.plan(), video_id.as_deref())?;
                }
                (SessionConfig { cut, access, video_id, resumed: None, policy }, CreatedBy::Given)
            }
        };
        Ok(ClaimOutcome::Ours(Box::new(ClaimedUpload {
            spec,
            source,
            destination,
            file_name,
            inbox,
            journal_entry,
            left_mark,
            may_have_orphan,
            made,
            doubt: doubts,
        })))
    }
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
