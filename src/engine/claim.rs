//! An upload becomes ours: opened, and claimed in the journal where one is kept.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api::NewVideo;
use crate::engine::feed::Filling;
use crate::engine::proof::Doubt;
use crate::engine::record::{Continued, Logbook, Record};
use crate::engine::request::{Destination, Unbegun};
use crate::engine::settings::Settings;
use crate::engine::supplies::{Opened, Supplies};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Finished, Made, Terms};
use crate::session::chunks::Cut;
use crate::session::{Access, Spec};

/// An upload that is ours: opened, and claimed in the journal where one is kept.
pub(crate) struct Claimed {
    pub(crate) spec: Spec,
    pub(crate) supplies: Supplies,
    pub(crate) destination: Destination,
    pub(crate) file_name: Arc<str>,
    pub(crate) inbox: Option<mpsc::Receiver<Filling>>,
    pub(crate) record: Option<Record>,
    pub(crate) left_mark: Option<String>,
    /// Whether an earlier run may have made a video that nothing names.
    pub(crate) may_have_strayed: bool,
    pub(crate) made: Made,
    /// Why the chunks of an earlier run are not believed yet.
    pub(crate) doubt: Option<Doubt>,
}

/// What became of the claim of an upload.
pub(crate) enum Beginning {
    Ours(Box<Claimed>),
    /// An unfinished command has uploaded the file.
    Finished(Finished),
}

impl Claimed {
    pub(crate) fn of(
        opened: Opened,
        destination: Destination,
        (unbegun, terms): (Unbegun, Terms),
        settings: &Settings,
        logbook: &Logbook,
    ) -> Result<Beginning> {
        let Opened { cut, supplies, file_name, inbox } = opened;
        let (access, video_id) = match &destination {
            Destination::NewVideo(_) => (Access::Key, None),
            Destination::Video(video_id) => (Access::Key, Some(video_id.clone())),
            Destination::Delegated { video_id, .. } => (Access::Token, video_id.clone()),
        };
        let arguments = serde_json::to_string(&titled(&destination, &file_name)).unwrap_or_default();
        let endpoint = &settings.endpoint_url;
        let (record, continued) =
            logbook.claim(endpoint, supplies.file(), &destination, &arguments, terms)?;
        if let Continued::Finished(finished) = continued {
            return Ok(Beginning::Finished(finished));
        }
        let mut record = allowed(record, unbegun, &file_name)?;
        let policy = settings.retry.clone();
        let (mut left_mark, mut may_have_strayed, mut doubts) = (None, false, None);
        let (spec, made) = match continued {
            Continued::Container { video_id, made, plan, resumed, doubt } => {
                doubts = doubt;
                let (cut, video_id, resumed) = (Cut::Planned(plan), Some(video_id), Some(resumed));
                (Spec { cut, access, video_id, resumed, policy }, made)
            }
            Continued::Intended { mark } => {
                left_mark = Some(mark);
                (Spec { cut, access, video_id, resumed: None, policy }, Made::Given)
            }
            nothing @ (Continued::Nothing | Continued::Strayed | Continued::Finished(_)) => {
                may_have_strayed = matches!(nothing, Continued::Strayed);
                if let Some(record) = &mut record {
                    record.begin(cut.plan(), video_id.as_deref())?;
                }
                (Spec { cut, access, video_id, resumed: None, policy }, Made::Given)
            }
        };
        Ok(Beginning::Ours(Box::new(Claimed {
            spec,
            supplies,
            destination,
            file_name,
            inbox,
            record,
            left_mark,
            may_have_strayed,
            made,
            doubt: doubts,
        })))
    }
}

/// What was to be continued may have been finished, or removed, since somebody saw it in the journal.
fn allowed(record: Option<Record>, unbegun: Unbegun, file_name: &str) -> Result<Option<Record>> {
    match (unbegun, record) {
        (Unbegun::Begin, record) => Ok(record),
        (Unbegun::Refuse, Some(record)) if !record.is_new() => Ok(Some(record)),
        (Unbegun::Refuse, record) => {
            if let Some(record) = record {
                record.finished();
            }
            let reason = "the journal has nothing of it: it was finished or removed, or never begun";
            Err(Error::new(ErrorKind::Journal, format!("continue {file_name}")).because(reason))
        }
    }
}

/// The container to create, titled after the file where nothing else was said.
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
