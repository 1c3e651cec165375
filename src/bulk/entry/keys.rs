//! The optional keys of a job, and their precedence over defaults.

use std::collections::BTreeMap;

use super::flaw::EntryFlaw;
use crate::api::{Metadata, Secret};
use crate::upload::{ChunkSize, Mode, UploadOptions};

/// The keys of a manifest line or of a sidecar file, all but the source. A key that is not given is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EntryKeys {
    /// The job's id; the default is a digest of the account and the file.
    pub id: Option<String>,
    /// The title of the video.
    pub title: Option<String>,
    /// The description of the video.
    pub description: Option<String>,
    /// The tags of the video. An empty list removes the default tags.
    pub tags: Option<Vec<String>>,
    /// The metadata of the video. Other keys of the defaults stay.
    pub metadata: BTreeMap<String, String>,
    /// `true` to make the video private.
    pub private: Option<bool>,
    /// `true` if the video is panoramic.
    pub panoramic: Option<bool>,
    /// `true` to create an MP4 version.
    pub mp4: Option<bool>,
    /// The language as a two-letter code in lower case.
    pub language: Option<String>,
    /// The id of the player.
    pub player_id: Option<String>,
    /// An existing, empty container.
    pub video_id: Option<String>,
    /// The upload token. Neither `Debug` nor serde shows it.
    pub upload_token: Option<Secret>,
    /// The addressing of the chunks.
    pub mode: Option<Mode>,
    /// The chunk size.
    pub chunk_size: Option<ChunkSize>,
    /// The priority: higher ones first, the default is 0.
    pub priority: Option<i32>,
    /// The SHA-256 digest of the file: 64 hexadecimal digits in lower case.
    pub sha256: Option<String>,
}

impl EntryKeys {
    /// Returns `defaults` with the keys that are given here in their place. Metadata is merged key by key.
    pub fn over(&self, defaults: &UploadOptions) -> UploadOptions {
        let mut options = defaults.clone();
        self.apply_to(&mut options);
        options
    }

    /// Fails if a key is given that has no meaning for a URL, which the service fetches by itself.
    pub(super) fn check_with_url(&self) -> Result<(), EntryFlaw> {
        let conflicts = [
            ("video_id", self.video_id.is_some()),
            ("upload_token", self.upload_token.is_some()),
            ("sha256", self.sha256.is_some()),
        ];
        match conflicts.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(EntryFlaw::NotWithUrl { key }),
            None => Ok(()),
        }
    }

    /// Puts the keys that are given here into `options`. Metadata is merged key by key.
    pub(crate) fn apply_to(&self, options: &mut UploadOptions) {
        let video = &mut options.video;
        set(&mut video.title, &self.title);
        set(&mut video.tags, &self.tags);
        set_some(&mut video.description, &self.description);
        set_some(&mut video.public, &self.private.map(|private| !private));
        set_some(&mut video.panoramic, &self.panoramic);
        set_some(&mut video.mp4_support, &self.mp4);
        set_some(&mut video.language, &self.language);
        set_some(&mut video.player_id, &self.player_id);
        for (key, value) in &self.metadata {
            match video.metadata.iter_mut().find(|pair| pair.key == *key) {
                Some(pair) => pair.value.clone_from(value),
                None => video.metadata.push(Metadata { key: key.clone(), value: value.clone() }),
            }
        }
        set_some(&mut options.video_id, &self.video_id);
        set_some(&mut options.upload_token, &self.upload_token);
        set(&mut options.mode, &self.mode);
        set(&mut options.chunk_size, &self.chunk_size);
    }

    /// Returns these keys, and those of `lower` that are not given here. Metadata is merged key by key.
    #[must_use]
    pub fn or(self, lower: EntryKeys) -> EntryKeys {
        let mut metadata = lower.metadata;
        metadata.extend(self.metadata);
        EntryKeys {
            id: self.id.or(lower.id),
            title: self.title.or(lower.title),
            description: self.description.or(lower.description),
            tags: self.tags.or(lower.tags),
            metadata,
            private: self.private.or(lower.private),
            panoramic: self.panoramic.or(lower.panoramic),
            mp4: self.mp4.or(lower.mp4),
            language: self.language.or(lower.language),
            player_id: self.player_id.or(lower.player_id),
            video_id: self.video_id.or(lower.video_id),
            upload_token: self.upload_token.or(lower.upload_token),
            mode: self.mode.or(lower.mode),
            chunk_size: self.chunk_size.or(lower.chunk_size),
            priority: self.priority.or(lower.priority),
            sha256: self.sha256.or(lower.sha256),
        }
    }
}

fn set<T: Clone>(field: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        field.clone_from(given);
    }
}

fn set_some<T: Clone>(field: &mut Option<T>, given: &Option<T>) {
    if given.is_some() {
        field.clone_from(given);
    }
}
