//! Results of the demonstration, printed as a table and as JSON.

use ringlift::Usage;
use serde::{Deserialize, Serialize};

/// Result of one mode over one scheme.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DemoResult {
    pub(super) way: &'static str,
    pub(super) scheme: Scheme,
    pub(super) bytes: u64,
    #[serde(flatten)]
    pub(super) figures: Figures,
    pub(super) digest: DigestCheck,
}

/// Comparison of the stored video with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DigestCheck {
    Equal,
    Different,
    NotUploaded,
}

/// Figures of one upload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) video_id: String,
    pub(super) chunks: u32,
    pub(super) lanes: usize,
    pub(super) elapsed_ms: u64,
    pub(super) usage: Usage,
}

/// Scheme of the URL of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scheme::Http => "HTTP",
            Scheme::Https => "HTTPS",
        }
    }
}
