//! A failure as part of a JSON event.

use std::borrow::Cow;

use serde::Serialize;

use super::job_state::JobFailure;
use crate::error::{Error, Refusal};

/// A failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorEvent {
    /// Id of the affected video, including a video that was created and not filled.
    pub video_id: Option<String>,
    /// The error.
    pub error: ErrorFields,
}

/// The fields of an error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorFields {
    /// Stable name of the kind.
    pub kind: Cow<'static, str>,
    /// The error on one line.
    pub message: String,
    /// The chain of causes, nearest first.
    pub causes: Vec<String>,
    /// Explanation of the service's refusal.
    pub meaning: Option<String>,
    /// Suggested action.
    pub advice: Option<String>,
    /// `true` if the same operation may succeed later.
    pub temporary: bool,
    /// The service's refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

impl ErrorEvent {
    /// Creates the event of a failure that is not one of this library.
    pub fn other(kind: &'static str, message: String) -> ErrorEvent {
        ErrorEvent {
            video_id: None,
            error: ErrorFields {
                kind: Cow::Borrowed(kind),
                message,
                causes: Vec::new(),
                meaning: None,
                advice: None,
                temporary: false,
                refusal: None,
            },
        }
    }

    /// Creates the event of the failure of a job.
    pub fn of_job(failure: &JobFailure) -> ErrorEvent {
        let mut event = ErrorEvent::other("failed", failure.message.clone());
        // A text, as a store of another version may have other kinds.
        event.error.kind = Cow::Owned(failure.kind.clone());
        event.error.temporary = !failure.permanent;
        event.error.advice.clone_from(&failure.advice);
        event.of_video(failure.video_id.as_deref())
    }

    /// Sets the id of the video, unless the failure has one.
    pub fn of_video(self, video_id: Option<&str>) -> ErrorEvent {
        ErrorEvent { video_id: self.video_id.or(video_id.map(str::to_owned)), ..self }
    }
}

impl From<&Error> for ErrorEvent {
    fn from(error: &Error) -> ErrorEvent {
        ErrorEvent {
            video_id: error.video_id().map(str::to_owned),
            error: ErrorFields {
                kind: Cow::Borrowed(error.kind().name()),
                message: error.to_string(),
                causes: error.causes(),
                meaning: error.meaning().map(str::to_owned),
                advice: error.advice().map(str::to_owned),
                temporary: error.is_temporary(),
                refusal: error.refusal().cloned(),
            },
        }
    }
}
