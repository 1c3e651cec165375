//! A simple client with reqwest: one streamed multipart body per chunk.

use std::io::SeekFrom;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Client};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::Result;

/// Creates a video and uploads its chunks one after the other over one connection.
pub(crate) fn upload(path: &Path, url: &str, chunk_bytes: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(upload_chunks(path, url, chunk_bytes))
}

async fn upload_chunks(path: &Path, url: &str, chunk_bytes: u64) -> Result<()> {
    let client = Client::new();
    let key = std::env::var("APIVIDEO_API_KEY")?;
    let created = client
        .post(format!("{url}/videos"))
        .basic_auth(&key, Some(""))
        .header("content-type", "application/json")
        .body(r#"{"title":"a movie"}"#)
        .send()
        .await?
        .error_for_status()?;
    let video: Value = serde_json::from_slice(&created.bytes().await?)?;
    let id = video["videoId"].as_str().ok_or("no videoId in the answer")?;
    let total = tokio::fs::metadata(path).await?.len();
    for offset in (0..total).step_by(chunk_bytes as usize) {
        let len = chunk_bytes.min(total - offset);
        let answer = client
            .post(format!("{url}/videos/{id}/source"))
            .basic_auth(&key, Some(""))
            .header("content-range", format!("bytes {offset}-{}/{total}", offset + len - 1))
            .multipart(form(path, offset, len).await?)
            .send()
            .await?
            .error_for_status()?;
        answer.bytes().await?;
    }
    Ok(())
}

async fn form(path: &Path, offset: u64, len: u64) -> Result<Form> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    let part = Part::stream_with_length(Body::wrap_stream(blocks(file, len)), len).file_name("movie.mp4");
    Ok(Form::new().part("file", part))
}

fn blocks(file: File, len: u64) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    stream::unfold(file.take(len), |mut file| async {
        let mut block = BytesMut::with_capacity(BLOCK_BYTES);
        match file.read_buf(&mut block).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(block.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    })
}

/// The fastest of the usual sizes for this client.
const BLOCK_BYTES: usize = 256 << 10;
