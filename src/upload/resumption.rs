//! The decision to resume an upload of the journal, for commands, restarts and workers alike.

use std::path::Path;

use crate::api::{Credentials, Secret};
use crate::engine::options::{ChunkSize, Mode, UploadOptions};
use crate::engine::settings::Settings;
use crate::error::{Error, ErrorKind, Hint};
use crate::journal::{
    Comparison, Entry, EntryDestination, EntrySource, EntryState, SourceIdentity, TokenDigest, compare,
};
use crate::source::SourceFile;
use crate::wire::Addressing;

/// The reason why an upload of the journal cannot be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// The source was a stream.
    #[error("a stream cannot be read again")]
    Stream,
    /// A process is uploading the file.
    #[error("{} is already uploading this file", running_process(.pid))]
    Running {
        /// The id of that process, if it is known.
        pid: Option<u32>,
    },
    /// The lock file belongs to another user. A process of that user may be uploading the file.
    #[error("its lock file belongs to another user")]
    OutOfReach,
    /// The upload was abandoned. Its video can be deleted.
    #[error("the upload was abandoned")]
    Abandoned,
    /// The upload goes to another service.
    #[error("it is an upload to {endpoint}")]
    OtherEndpoint {
        /// The base URL of that service.
        endpoint: String,
    },
    /// The upload was started with the API key, and the settings have none.
    #[error("it needs the API key")]
    NoKey,
    /// The upload was started with an upload token, and none was given.
    #[error("it needs {}", if *.any { "an upload token of the same account" } else { "the upload token with which it was started" })]
    NoToken {
        /// `true` if any upload token of the same account suffices.
        any: bool,
    },
    /// The upload was started with another upload token than the given one.
    #[error("it needs the upload token with which it was started; the given token is a different one")]
    OtherToken,
    /// The journal has lost the properties of the video to create.
    #[error("the journal does not contain the metadata of the video")]
    NoMetadata,
    /// The file cannot be opened, or it is not the one whose chunks are stored.
    #[error(transparent)]
    File(#[from] Error),
}

fn running_process(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Entry {
    /// Returns the path of the file; `None` for a stream.
    pub fn file(&self) -> Option<&Path> {
        match &self.key.source {
            EntrySource::File { path, .. } => Some(path),
            EntrySource::Stream => None,
        }
    }

    /// Returns the options that resume this upload from the file at `path`, which may have moved since.
    ///
    /// `settings` gives the endpoint and the credentials, `token` replaces the API key. Opens the file, and so blocks
    /// while its disk does not respond. The answer holds at the moment only: another process may claim the upload
    /// before it is resumed ([`Upload::only_if_begun`](crate::Upload::only_if_begun)).
    ///
    /// # Errors
    /// The first reason that applies, in the order of [`SkipReason`].
    pub fn resumability(
        &self,
        path: &Path,
        settings: &Settings,
        token: Option<&Secret>,
    ) -> Result<UploadOptions, SkipReason> {
        let EntrySource::File { path: original_path, identity } = &self.key.source else {
            return Err(SkipReason::Stream);
        };
        match self.state {
            EntryState::Interrupted => {}
            EntryState::Running { pid } => return Err(SkipReason::Running { pid }),
            EntryState::OutOfReach => return Err(SkipReason::OutOfReach),
            EntryState::Abandoned => return Err(SkipReason::Abandoned),
        }
        if !self.is_at(&settings.endpoint_url) {
            return Err(SkipReason::OtherEndpoint { endpoint: self.key.endpoint.clone() });
        }
        let options = self.options(settings, token)?;
        let is_same_path = std::path::absolute(path).is_ok_and(|path| path == *original_path);
        check_file(path, identity, is_same_path)?;
        Ok(options)
    }

    /// Returns the options with which the upload was started, and the credentials to resume it.
    fn options(&self, settings: &Settings, token: Option<&Secret>) -> Result<UploadOptions, SkipReason> {
        let (video_id, token) = match &self.key.destination {
            EntryDestination::NewVideo => (None, key(settings)?),
            EntryDestination::Video { video_id } => (Some(video_id.clone()), key(settings)?),
            EntryDestination::Token(digest) => (None, Some(self.known_token(token, digest)?)),
            EntryDestination::TokenAndVideo { token: digest, video_id } => {
                (Some(video_id.clone()), Some(self.known_token(token, digest)?))
            }
        };
        let mut options = self.recorded_options()?;
        options.video_id = video_id;
        options.upload_token = token;
        // Under another plan the indexes of the stored chunks mean other bytes.
        if let Some(plan) = self.plan {
            options.mode = mode(plan.addressing());
            options.chunk_size = ChunkSize::Bytes(plan.chunk_bytes());
        }
        Ok(options)
    }

    /// Returns the token if it is the one with which the upload was started, or a permitted replacement.
    fn known_token(&self, token: Option<&Secret>, digest: &TokenDigest) -> Result<Secret, SkipReason> {
        let any = self.continues_with_any_token();
        match token {
            Some(token) if any || TokenDigest::of(token.reveal()) == *digest => Ok(token.clone()),
            Some(_) => Err(SkipReason::OtherToken),
            None => Err(SkipReason::NoToken { any }),
        }
    }

    /// Returns the options in the journal. Only a new video needs its metadata from there.
    fn recorded_options(&self) -> Result<UploadOptions, SkipReason> {
        match (serde_json::from_str(&self.arguments), &self.key.destination) {
            (Ok(options), _) => Ok(options),
            (Err(_), EntryDestination::NewVideo) => Err(SkipReason::NoMetadata),
            (Err(_), _) => Ok(UploadOptions::default()),
        }
    }
}

/// Checks that the API key is present. Returns `None`, as no token is needed.
fn key(settings: &Settings) -> Result<Option<Secret>, SkipReason> {
    match settings.credentials {
        Credentials::None => Err(SkipReason::NoKey),
        _ => Ok(None),
    }
}

fn mode(addressing: Addressing) -> Mode {
    match addressing {
        Addressing::Single => Mode::Single,
        Addressing::ByteRange => Mode::Bytes,
        Addressing::Part => Mode::Parts,
    }
}

/// Checks that the file is still the one whose chunks are stored. Chunks of two different files would make a
/// corrupt video.
fn check_file(path: &Path, original: &SourceIdentity, is_same_path: bool) -> Result<(), Error> {
    let file = SourceFile::open(path).map_err(|error| {
        let error = Error::from(error);
        if error.kind() == ErrorKind::NoSuchFile { error.with_hint(Hint::MovedFile) } else { error }
    })?;
    // With `true` for the digests: they are compared with the file when the upload resumes.
    match compare(original, &SourceIdentity::from(&file), is_same_path, true) {
        Comparison::Same | Comparison::Prove | Comparison::Anew => Ok(()),
        Comparison::Another => {
            Err(Error::new(ErrorKind::SourceChanged, format!("resume {}", path.display()))
                .because("the file is not the one whose upload was started, or it has changed since")
                .with_hint(Hint::NewUpload))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::journal::{ContainerState, Key};

    fn entry(path: &Path, destination: EntryDestination) -> Entry {
        let identity = SourceIdentity::from(&SourceFile::open(path).unwrap());
        let source = EntrySource::File { path: path.to_owned(), identity };
        Entry {
            id: 1,
            key: Key { endpoint: "http://127.0.0.1:1".to_owned(), source, destination },
            state: EntryState::Interrupted,
            container: ContainerState::None,
            plan: None,
            stored_chunks: 0,
            arguments: r#"{"title": "Summer"}"#.to_owned(),
            began: SystemTime::UNIX_EPOCH,
        }
    }

    fn settings() -> Settings {
        Settings {
            endpoint_url: "http://127.0.0.1:1/".to_owned(),
            credentials: Credentials::ApiKey(Secret::new("key")),
            ..Settings::default()
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn an_interrupted_upload_is_resumed_with_its_recorded_options() {
        let file = file("film");
        let entry = entry(file.path(), EntryDestination::NewVideo);
        let options = entry.resumability(file.path(), &settings(), None).unwrap();
        assert_eq!((options.video.title.as_str(), options.video_id), ("Summer", None));
    }

    #[test]
    fn each_obstacle_has_its_reason() {
        let file = file("film");
        let why = |change: &dyn Fn(&mut Entry, &mut Settings)| {
            let (mut entry, mut settings) = (entry(file.path(), EntryDestination::NewVideo), settings());
            change(&mut entry, &mut settings);
            entry.resumability(file.path(), &settings, None).unwrap_err().to_string()
        };
        let running = EntryState::Running { pid: Some(7) };
        assert_eq!(why(&|entry, _| entry.state = running), "process 7 is already uploading this file");
        assert_eq!(why(&|entry, _| entry.state = EntryState::Abandoned), "the upload was abandoned");
        assert_eq!(why(&|_, settings| settings.credentials = Credentials::None), "it needs the API key");
        assert_eq!(why(&|entry, _| entry.key.source = EntrySource::Stream), "a stream cannot be read again");
        let lost = why(&|entry, _| entry.arguments.clear());
        assert_eq!(lost, "the journal does not contain the metadata of the video");
        let elsewhere = why(&|_, settings| settings.endpoint_url = "http://127.0.0.1:2".to_owned());
        assert_eq!(elsewhere, "it is an upload to http://127.0.0.1:1");
    }

    #[test]
    fn another_token_suffices_only_once_the_video_is_known() {
        let file = file("film");
        let digest = TokenDigest::of("first");
        let entry = entry(file.path(), EntryDestination::Token(digest));
        let resumed = |token: Option<&str>| {
            let token = token.map(Secret::new);
            entry.resumability(file.path(), &settings(), token.as_ref())
        };
        assert!(resumed(Some("first")).unwrap().upload_token.is_some());
        assert!(matches!(resumed(Some("second")), Err(SkipReason::OtherToken)));
        assert!(matches!(resumed(None), Err(SkipReason::NoToken { any: false })));
    }

    #[test]
    fn a_replaced_or_missing_file_is_refused_with_a_way_out() {
        let (file, other) = (file("film"), file("another film"));
        let entry = entry(file.path(), EntryDestination::NewVideo);
        let refused = |path: &Path| match entry.resumability(path, &settings(), None) {
            Err(SkipReason::File(error)) => (error.kind(), error.hint()),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(other.path()), (ErrorKind::SourceChanged, Some(Hint::NewUpload)));
        assert_eq!(refused(Path::new("/nowhere")), (ErrorKind::NoSuchFile, Some(Hint::MovedFile)));
    }
}
