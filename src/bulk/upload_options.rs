//! The options of one upload, as jobs store them.

use serde::{Deserialize, Serialize};

use crate::api::{NewVideo, Secret};

/// The options of one upload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct UploadOptions {
    /// The properties of the created video. An empty title stands for the name of the file.
    pub video: NewVideo,
    /// An existing, empty container to fill.
    pub video_id: Option<String>,
    /// The upload token. Never serialized.
    #[serde(skip)]
    pub upload_token: Option<Secret>,
}
