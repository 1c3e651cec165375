//! The path of an upload request, and its answer.

use bytes::Bytes;
use http::Response;
use serde::Deserialize;

use super::de::{self, id};
use super::path_builder::{PathBuilder, escape};
use super::problem::{malformed, refused};
use super::redactor::Redactor;
use super::secret::Secret;
use super::video::Video;
use crate::error::Result;

/// The service's answer to an accepted chunk.
///
/// Any 2xx is accepted. Every answer names the video. Only the answer to the chunk that completes the file, which
/// may have any number, describes the video.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct UploadAnswer {
    /// The id of the video. A delegated upload without a video id gets a new video.
    pub video_id: String,
    /// The description of the video, if the file is complete.
    pub complete: Option<Video>,
}

impl UploadAnswer {
    /// Reads the answer to an upload request.
    ///
    /// # Errors
    /// The refusal if the answer is not 2xx, or [`MalformedAnswer`](crate::error::ErrorKind::MalformedAnswer).
    /// The caller sets the operation. No text of the error holds a secret of `redactor`.
    pub(crate) fn read(answer: &Response<Bytes>, redactor: &Redactor) -> Result<UploadAnswer> {
        if !answer.status().is_success() {
            return Err(redactor.clean(refused(DOING, answer, redactor)));
        }
        UploadAnswer::parse(answer, redactor)
    }

    /// Reads the body of a 2xx.
    ///
    /// # Errors
    /// [`MalformedAnswer`](crate::error::ErrorKind::MalformedAnswer) if the answer names no video. The outcome of
    /// the chunk is then unknown.
    pub(crate) fn parse(answer: &Response<Bytes>, redactor: &Redactor) -> Result<UploadAnswer> {
        let malformed = |cause| redactor.clean(malformed(DOING, answer, redactor).with_source(cause));
        // The answer to a chunk that does not complete the file has nothing but the id.
        let value = de::read_value(answer.body()).map_err(malformed)?;
        let VideoIdOnly { video_id } = VideoIdOnly::deserialize(&value).map_err(malformed)?;
        // Only the description of a complete upload has `assets`.
        // A description that cannot be read leaves an acknowledged chunk.
        let complete = serde_json::from_value(value).ok().filter(|video: &Video| video.assets.is_some());
        Ok(UploadAnswer { video_id, complete })
    }
}

/// Returns the path of a video's source: `POST /videos/{videoId}/source`.
pub(crate) fn source_path(video_id: &str) -> String {
    format!("/videos/{}/source", escape(video_id))
}

/// Returns the path of a delegated upload: `POST /upload?token=`. Contains the token: do not log it.
pub(crate) fn delegated_path(token: &Secret) -> String {
    PathBuilder::new("/upload").add("token", token.reveal()).into_path()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VideoIdOnly {
    #[serde(deserialize_with = "id")]
    video_id: String,
}

const DOING: &str = "upload a chunk";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::scripted::response;
    use crate::error::ErrorKind;

    fn read(answer: &Response<Bytes>) -> Result<UploadAnswer> {
        UploadAnswer::read(answer, &Redactor::new())
    }

    #[test]
    fn a_chunk_is_answered_with_an_id_and_the_one_that_completes_the_file_with_a_video() {
        for status in [200, 201, 202, 206] {
            let answer = read(&response(status, json!({"videoId": "vi1"}))).unwrap();
            assert_eq!(answer, UploadAnswer { video_id: "vi1".into(), complete: None });
        }
        let video =
            json!({"videoId": "vi1", "title": "A", "assets": {"player": "https://embed.api.video/vod/vi1"}});
        let answer = read(&response(201, video)).unwrap();
        assert_eq!(answer.complete.unwrap().title.as_deref(), Some("A"));
        for video in [json!({"videoId": "vi1", "assets": null}), json!({"videoId": "vi1", "title": "A"})] {
            assert_eq!(read(&response(201, video)).unwrap().complete, None);
        }
    }

    #[test]
    fn an_answer_without_an_id_is_malformed() {
        for body in
            ["", "<html>", "{}", "[]", r#"{"videoId": ""}"#, r#"{"title": "an error", "status": 400}"#]
        {
            let error = read(&response(201, body)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MalformedAnswer, "{body}");
        }
    }

    #[test]
    fn a_refusal_is_read_as_one() {
        let page = "https://docs.api.video/reference/video-content-range-by-part-part-already-sent";
        let error = read(&response(400, json!({ "type": page }))).unwrap_err();
        assert_eq!(error.doing("send chunk 3 of 9").kind(), ErrorKind::AlreadySent);
    }

    #[test]
    fn ids_and_tokens_stay_inside_their_place() {
        assert_eq!(source_path("vi1"), "/videos/vi1/source");
        assert_eq!(source_path("a/../b?c"), "/videos/a%2F%2E%2E%2Fb%3Fc/source");
        assert_eq!(delegated_path(&Secret::new("to1&videoId=x")), "/upload?token=to1%26videoId%3Dx");
    }
}
