//! The calls about videos.

use std::time::Instant;

use http::Method;
use serde::de::DeserializeOwned;

use super::call::ApiCall;
use super::endpoints::Api;
use super::exchange::Exchange;
use super::page::{Page, SortOrder};
use super::path_builder::{PathBuilder, escape};
use super::video::Video;
use super::video_changes::{NewVideo, VideoPatch};
use crate::error::{Error, ErrorKind, Result};

/// The calls about videos, each one attempt; see [`Api::videos`].
#[derive(Debug)]
pub(crate) struct Videos<'a, E> {
    pub(super) api: &'a Api<E>,
    pub(super) now: Instant,
}

/// A query for videos. A filter that is not set matches every video.
///
/// `GET /videos`, <https://docs.api.video/reference/api/Videos>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VideoQuery {
    /// A part of the title.
    pub title: Option<String>,
    /// Tags that a video must all have.
    pub tags: Vec<String>,
    /// Keys and values that a video must all have.
    pub metadata: Vec<(String, String)>,
    /// A part of the description.
    pub description: Option<String>,
    /// The id of the live stream that was recorded.
    pub live_stream_id: Option<String>,
    /// The sort key.
    pub sort_by: Option<VideoSort>,
    /// The sort order.
    pub sort_order: Option<SortOrder>,
    /// The page, counted from 1.
    pub current_page: Option<u64>,
    /// The number of videos per page, 1 to 100; the service's default is 25.
    pub page_size: Option<u64>,
}

/// The sort key of a list of videos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VideoSort {
    /// The title.
    Title,
    /// The time of creation.
    CreatedAt,
    /// The time of publication.
    PublishedAt,
    /// The time of the last change.
    UpdatedAt,
}

impl<E: Exchange> Api<E> {
    /// Returns the calls about videos. `now` decides whether an access token is due for renewal.
    pub(crate) fn videos(&self, now: Instant) -> Videos<'_, E> {
        Videos { api: self, now }
    }
}

impl<E: Exchange> Videos<'_, E> {
    /// Creates a video without content. The call is not idempotent: a repeated call creates a second video.
    ///
    /// # Errors
    /// Any refusal of the service, and any failure of the exchange.
    pub(crate) async fn create(&self, video: &NewVideo) -> Result<Video> {
        self.ask(&ApiCall::new("create the video", Method::POST, "/videos").json(video)?).await
    }

    /// Fetches the description of the video `video_id`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, or the errors of [`create`](Videos::create).
    pub(crate) async fn get(&self, video_id: &str) -> Result<Video> {
        self.ask(&about("read", video_id, Method::GET, "")?).await
    }

    /// Lists one page of the videos that match `query`. A video that cannot be read is left out and counted.
    ///
    /// # Errors
    /// The same as those of [`create`](Videos::create).
    pub(crate) async fn list(&self, query: &VideoQuery) -> Result<Page<Video>> {
        let page: Page<Video> =
            self.ask(&ApiCall::new("list the videos", Method::GET, query.to_path())).await?;
        if page.unreadable > 0 {
            tracing::warn!("{} videos of the list could not be read, and are left out", page.unreadable);
        }
        Ok(page.with_request(query.current_page, query.page_size))
    }

    /// Changes the video `video_id`, and returns the new description.
    ///
    /// # Errors
    /// The same as those of [`get`](Videos::get).
    pub(crate) async fn update(&self, video_id: &str, patch: &VideoPatch) -> Result<Video> {
        self.ask(&about("change", video_id, Method::PATCH, "")?.json(patch)?).await
    }

    /// Deletes the video `video_id` and its content.
    ///
    /// # Errors
    /// The same as those of [`get`](Videos::get).
    pub(crate) async fn delete(&self, video_id: &str) -> Result<()> {
        let call = about("delete", video_id, Method::DELETE, "")?;
        self.api.call(&call, self.now).await.map(drop)
    }

    /// Makes a call and reads its answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: &ApiCall) -> Result<T> {
        call.read(&self.api.call(call, self.now).await?)
    }
}

/// Creates a call about one video. `below` is the path below that of the video.
pub(super) fn about(verb: &str, video_id: &str, method: Method, below: &str) -> Result<ApiCall> {
    let flaw = match video_id {
        "" => Some("its id is empty"),
        // A proxy may decode even an escaped dot, and read a step in the path.
        "." | ".." => Some("its id is a step in a path"),
        _ => None,
    };
    if let Some(flaw) = flaw {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{verb} a video")).because(flaw));
    }
    Ok(ApiCall::new(
        format!("{verb} video {video_id}"),
        method,
        format!("/videos/{}{below}", escape(video_id)),
    ))
}

impl VideoQuery {
    /// Queries all videos, from the first page.
    pub fn new() -> VideoQuery {
        VideoQuery::default()
    }

    fn to_path(&self) -> String {
        let metadata = |query: PathBuilder, (key, value): &(String, String)| {
            query.add(&format!("metadata[{key}]"), value)
        };
        let query = PathBuilder::new("/videos").add_all("title", &self.title).add_all("tags[]", &self.tags);
        let query = self.metadata.iter().fold(query, metadata);
        query
            .add_all("description", &self.description)
            .add_all("liveStreamId", &self.live_stream_id)
            .add_all("sortBy", self.sort_by.map(VideoSort::name))
            .add_all("sortOrder", self.sort_order.map(SortOrder::name))
            .add_all("currentPage", self.current_page)
            .add_all("pageSize", self.page_size)
            .into_path()
    }
}

impl VideoSort {
    fn name(self) -> &'static str {
        match self {
            VideoSort::Title => "title",
            VideoSort::CreatedAt => "createdAt",
            VideoSort::PublishedAt => "publishedAt",
            VideoSort::UpdatedAt => "updatedAt",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::scripted::{ScriptedServer, response, start};
    use crate::api::{Credentials, Secret};

    fn key() -> Credentials {
        Credentials::ApiKey(Secret::new("key"))
    }

    #[tokio::test]
    async fn a_video_is_created_read_changed_and_deleted() {
        let video = json!({"videoId": "vi1", "title": "A"});
        let service = ScriptedServer::new([
            response(201, &video),
            response(200, &video),
            response(200, &video),
            response(204, ""),
        ])
        .await;
        let api = service.api(key());
        let videos = api.videos(start());
        assert_eq!(videos.create(&NewVideo::new("A").tag("t")).await.unwrap().video_id, "vi1");
        assert_eq!(videos.get("vi1").await.unwrap().title.as_deref(), Some("A"));
        videos.update("vi1", &VideoPatch::new().title("B")).await.unwrap();
        videos.delete("vi1").await.unwrap();
        assert_eq!(
            service.lines(),
            ["POST /videos", "GET /videos/vi1", "PATCH /videos/vi1", "DELETE /videos/vi1"]
        );
        let seen = service.seen();
        assert_eq!(seen[0].json(), json!({"title": "A", "tags": ["t"]}));
        assert_eq!(seen[2].json(), json!({"title": "B"}));
        assert_eq!(seen[1].header("authorization"), "Basic a2V5Og==");
        assert!(seen[3].header("av-origin-client").starts_with("ringlift:"));
        assert_eq!((seen[1].header("content-type"), &*seen[1].body), ("", &b""[..]));
    }

    #[tokio::test]
    async fn a_list_is_asked_for_with_every_condition() {
        let service =
            ScriptedServer::new([response(200, json!({"data": [{"videoId": "vi1"}], "pagination": null}))])
                .await;
        let query = VideoQuery {
            title: Some("a b".into()),
            tags: vec!["x".into(), "y".into()],
            metadata: vec![("k&".into(), "v=".into())],
            description: Some("d".into()),
            live_stream_id: Some("li1".into()),
            sort_by: Some(VideoSort::PublishedAt),
            sort_order: Some(SortOrder::Desc),
            current_page: Some(2),
            page_size: Some(100),
        };
        let page = service.api(key()).videos(start()).list(&query).await.unwrap();
        assert_eq!((page.data[0].video_id.as_str(), page.next_page()), ("vi1", None));
        assert_eq!(
            service.lines(),
            ["GET /videos?title=a%20b&tags%5B%5D=x&tags%5B%5D=y&metadata%5Bk%26%5D=v%3D&description=d\
              &liveStreamId=li1&sortBy=publishedAt&sortOrder=desc&currentPage=2&pageSize=100"],
        );
    }

    #[tokio::test]
    async fn any_2xx_is_a_success_and_any_id_stays_inside_its_path() {
        let service = ScriptedServer::new([
            response(202, json!({"videoId": "vi1"})),
            response(299, json!({"videoId": "vi1"})),
        ])
        .await;
        let api = service.api(key());
        api.videos(start()).create(&NewVideo::new("A")).await.unwrap();
        api.videos(start()).get("../a?b").await.unwrap();
        assert_eq!(service.lines()[1], "GET /videos/%2E%2E%2Fa%3Fb");
        assert_eq!(api.videos(start()).delete("").await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(service.seen().len(), 2);
    }

    #[tokio::test]
    async fn a_success_that_is_none_is_malformed() {
        let service = ScriptedServer::new([
            response(200, "<html>log in first</html>"),
            response(200, json!({"title": "an error", "status": 400})),
            response(200, ""),
        ])
        .await;
        let api = service.api(key());
        for part in ["with <html>log in first</html>", "with {", "with nothing"] {
            let error = api.videos(start()).get("vi1").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MalformedAnswer);
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_description_is_read_field_by_field() {
        let odd = json!({
            "videoId": "vi1", "title": 7, "public": 1, "panoramic": "perhaps", "tags": {}, "assets": [],
            "metadata": {"camera": 7}, "createdAt": 1_720_999_999, "source": "upload", "discarded": [],
        });
        let service = ScriptedServer::new([response(201, odd)]).await;
        let video = service.api(key()).videos(start()).create(&NewVideo::new("A")).await.unwrap();
        assert_eq!((video.video_id.as_str(), video.title.as_deref()), ("vi1", Some("7")));
        assert_eq!((video.public, video.panoramic, video.discarded), (Some(true), None, None));
        assert_eq!(video.created_at.as_deref(), Some("1720999999"));
        assert_eq!((video.metadata[0].key.as_str(), video.metadata[0].value.as_str()), ("camera", "7"));
        assert!(video.tags.is_empty() && video.assets.is_none() && video.source.is_none());
    }

    #[tokio::test]
    async fn an_id_that_cannot_be_one_is_named_by_the_error() {
        for (id, named) in [(json!("vi\u{1b}[2J"), "control characters"), (json!(5), "the id is 5")] {
            let service = ScriptedServer::new([response(201, json!({ "videoId": id }))]).await;
            let error = service.api(key()).videos(start()).create(&NewVideo::new("A")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MalformedAnswer);
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(named), "{cause}");
        }
    }

    #[tokio::test]
    async fn steps_in_a_path_are_no_ids() {
        let service = ScriptedServer::new([]).await;
        for id in [".", ".."] {
            let error = service.api(key()).videos(start()).delete(id).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert!(service.seen().is_empty());
    }

    #[tokio::test]
    async fn a_401_is_cured_by_one_fresh_token_and_the_call_made_again() {
        let expired = || {
            response(
                401,
                json!({"type": "https://docs.api.video/reference/authentication-invalid-access-token"}),
            )
        };
        let fresh =
            |token| response(200, json!({"access_token": token, "refresh_token": "r1", "expires_in": 3600}));
        let service = ScriptedServer::new([
            expired(),
            fresh("a1"),
            response(201, json!({"videoId": "vi1"})),
            expired(),
            fresh("a2"),
            expired(),
        ])
        .await;
        let refresh_token = Some(Secret::new("r0"));
        let api = service.api(Credentials::AccessToken { token: Secret::new("old"), refresh_token });
        api.videos(start()).create(&NewVideo::new("A")).await.unwrap();
        assert_eq!(service.lines(), ["POST /videos", "POST /auth/refresh", "POST /videos"]);
        assert_eq!(service.seen()[2].header("authorization"), "Bearer a1");
        assert_eq!(service.seen()[2].json(), json!({"title": "A"}));
        let error = api.videos(start()).get("vi1").await.unwrap_err();
        assert_eq!((error.kind(), service.seen().len()), (ErrorKind::NotAuthorized, 6));
    }

    #[tokio::test]
    async fn a_401_on_an_api_key_is_final_and_echoes_nothing() {
        let service = ScriptedServer::new([response(401, "Denied: Authorization: Basic a2V5Og==")]).await;
        let error = service.api(key()).videos(start()).get("vi1").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not read video vi1: the service answered 401: Unauthorized Denied: Authorization: Basic ***",
        );
        assert_eq!(service.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_an_error_with_its_cause() {
        let service = ScriptedServer::new([]).await;
        let api = service.api(key());
        drop(service);
        tokio::task::yield_now().await;
        let error = api.videos(start()).get("vi1").await.unwrap_err();
        assert_eq!((error.operation(), error.is_temporary()), ("read video vi1", true));
        assert!(std::error::Error::source(&error).is_some());
    }
}
