//! Uploads with an upload token: the program that sends the file has no API key.
//!
//! Runs against the local server: `cargo run --example delegated`.

use std::error::Error;
use std::time::Duration;

use ringlift::Client;
use ringlift::server::{Server, ServerSettings};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerSettings::new(folder.path().join("server")))?;

    // Your backend holds the API key. It creates a token and hands it to the device or person that uploads.
    let backend = Client::builder().endpoint_url(server.url()).api_key(server.api_key()).build()?;
    let token = pollster::block_on(backend.create_upload_token(Some(Duration::from_secs(3600))))?;

    // The device has the token only. The first chunk creates the video; all chunks of the file go into it.
    let movie = folder.path().join("movie.mp4");
    std::fs::write(&movie, vec![7; 12 << 20])?;
    let device = Client::builder().endpoint_url(server.url()).build()?;
    let upload = device.upload(&movie).upload_token(token.token.clone());
    let uploaded = upload.send_blocking()?;
    println!("the device has uploaded video {}", uploaded.video_id);

    // A token cannot describe a video or ask for its status. The backend can.
    let video = pollster::block_on(backend.video(&uploaded.video_id))?;
    println!("its title is {}", video.title.unwrap_or_default());
    pollster::block_on(backend.delete_upload_token(token.token))?;
    Ok(())
}
