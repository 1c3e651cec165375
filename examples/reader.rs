//! Uploads bytes that are in no file: from an asynchronous reader, from a stream of pieces, and from memory.
//!
//! Runs against the local server: `cargo run --example reader`.

use std::error::Error;
use std::io;

use bytes::Bytes;
use futures_util::stream;
use ringlift::Client;
use ringlift::server::{Server, ServerSettings};
use tokio::io::AsyncWriteExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerSettings::new(folder.path()))?;
    let client = Client::builder().endpoint_url(server.url()).api_key(server.api_key()).build()?;

    // An asynchronous reader, such as a socket, the output of a process, or here an in-memory pipe. Its length is
    // unknown; ringlift reads it on a thread of its own and holds at most `Settings::buffer_bytes` of it in memory.
    let (mut camera, reader) = tokio::io::duplex(64 << 10);
    let recording = tokio::spawn(async move {
        for frame in 0..200_u8 {
            camera.write_all(&[frame; 4096]).await?;
        }
        // Dropping the writer ends the stream, and with it the upload.
        Ok::<(), io::Error>(())
    });
    let uploaded = client.upload_async_read("live.mp4", reader).title("Live").send().await?;
    recording.await??;
    println!("reader: video {} has {} bytes", uploaded.video_id, uploaded.bytes);

    // A stream of pieces, such as the body of an HTTP response. If the length is known, state it: the upload is then
    // planned like that of a file, and a body that was cut off is an error in place of a short video.
    let pieces: Vec<io::Result<Bytes>> =
        (0..100_u8).map(|byte| Ok(Bytes::from(vec![byte; 10_000]))).collect();
    let upload = client.upload_stream("download.mp4", stream::iter(pieces)).len(1_000_000);
    let uploaded = upload.send().await?;
    println!("stream: video {} has {} bytes", uploaded.video_id, uploaded.bytes);

    // Bytes in memory are not copied, and are sent again if a request fails.
    let uploaded = client.upload_bytes("clip.mp4", vec![7; 500_000]).send().await?;
    println!("bytes: video {} has {} bytes", uploaded.video_id, uploaded.bytes);
    Ok(())
}
