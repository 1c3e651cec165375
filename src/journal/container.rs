//! The container of a session as far as the journal has recorded it.

use serde::{Deserialize, Serialize};

/// The recorded state of a session's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// There is no container.
    None,
    /// A request to create the container was about to be sent, and no answer is recorded. The container may exist.
    Intended {
        /// The mark by which the service's list of videos identifies the container; empty if there is none.
        mark: String,
    },
    /// The container exists.
    Known {
        /// The id of the container.
        video_id: String,
        /// The creator of the container.
        made: CreatedBy,
    },
}

/// The creator of a container, which decides whether this program may delete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreatedBy {
    /// The session created it.
    ByUs,
    /// The user named it. It must not be deleted.
    Given,
}

impl ContainerState {
    /// Returns the mark of a container that may exist and whose id is unknown.
    pub fn mark(&self) -> Option<&str> {
        match self {
            ContainerState::Intended { mark } if !mark.is_empty() => Some(mark),
            ContainerState::None | ContainerState::Intended { .. } | ContainerState::Known { .. } => None,
        }
    }

    /// Returns the id of a container that the session created.
    pub fn own_video_id(&self) -> Option<&str> {
        match self {
            ContainerState::Known { video_id, made: CreatedBy::ByUs } => Some(video_id),
            ContainerState::None | ContainerState::Intended { .. } | ContainerState::Known { .. } => None,
        }
    }
}
