//! Queries to the demonstration's server: `HEAD /videos/{videoId}/source`, its own addition to the API.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use ringlift::internals::source_path;
use ringlift::internals::{Dialer, Lane};
use ringlift::server::Server;
use ringlift::{Client, DialSettings, Error, Timeouts, Trust};

use crate::cli::exit::{CommandError, Exit};

/// Returns the SHA-256 of a stored video, in hex.
pub(super) async fn sha256(server: &Server, video_id: &str) -> Result<String, CommandError> {
    let dialer = Dialer::new(server.url(), &trust(server), DialSettings::default()).map_err(Error::from)?;
    let credentials = BASE64_STANDARD.encode(format!("{}:", server.api_key()));
    let request = Request::head(dialer.path(&source_path(video_id)))
        .header(header::HOST, dialer.authority())
        .header(header::AUTHORIZATION, format!("Basic {credentials}"))
        .body(Empty::new())
        .map_err(|error| unreadable(video_id, &error.to_string()))?;
    let mut lane: Lane<Empty<Bytes>> = dialer.dial().await.map_err(Error::from)?;
    let answer = lane.send(request, &Timeouts::default()).await.map_err(Error::from)?;
    match answer.headers().get(CONTENT_SHA256).map(|digest| digest.to_str()) {
        Some(Ok(digest)) => Ok(digest.to_owned()),
        _ => Err(unreadable(video_id, &format!("the server answered {}", answer.status()))),
    }
}

/// Deletes a video to free its disk space.
pub(super) async fn delete(server: &Server, video_id: &str) -> Result<(), CommandError> {
    let trust = trust(server);
    let client = Client::builder()
        .endpoint_url(server.url())
        .api_key(server.api_key())
        .with(|settings| settings.trust = trust)
        .build()?;
    Ok(client.delete_video(video_id).await?)
}

fn trust(server: &Server) -> Trust {
    Trust { ca_certs: server.ca_path().map(Into::into).into_iter().collect() }
}

fn unreadable(video_id: &str, why: &str) -> CommandError {
    CommandError::Other(Exit::Failed, format!("could not read the digest of video {video_id}: {why}"))
}

const CONTENT_SHA256: &str = "x-content-sha256";
