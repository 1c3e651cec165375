//! Shows how a program tests its own uploads against the local server, with a fault of the service.
//!
//! Runs as a program: `cargo run --example test_with_server`. In a project the functions below are tests.

use std::error::Error;
use std::path::Path;

use ringlift::server::{Fault, FaultAction, RouteClass, Server, ServerSettings};
use ringlift::{Client, ErrorKind};

/// The function under test. It takes the client, so that a test can pass one for the local server.
fn publish(client: &Client, path: &Path) -> ringlift::Result<String> {
    let uploaded = client.upload(path).title("Trailer").send_blocking()?;
    Ok(uploaded.video_id)
}

/// A server with its data in `folder`, and a client for it. The port is free: tests can run at the same time.
fn server(folder: &Path, faults: Vec<Fault>) -> Result<(Server, Client), Box<dyn Error>> {
    let mut settings = ServerSettings::new(folder.join("server"));
    settings.faults = faults.into();
    let server = Server::start(settings)?;
    let client = Client::builder().endpoint_url(server.url()).api_key(server.api_key()).build()?;
    Ok((server, client))
}

fn a_published_file_becomes_one_video(folder: &Path, movie: &Path) -> Result<(), Box<dyn Error>> {
    let (server, client) = server(folder, Vec::new())?;
    let video_id = publish(&client, movie)?;
    let video = pollster::block_on(client.video(&video_id))?;
    assert_eq!(video.title.as_deref(), Some("Trailer"));
    assert_eq!(server.stats().videos_created, 1);
    Ok(())
}

fn a_service_that_fails_once_is_tried_again(folder: &Path, movie: &Path) -> Result<(), Box<dyn Error>> {
    let once = Fault::new(RouteClass::Chunk, FaultAction::unavailable());
    let (server, client) = server(folder, vec![once])?;
    publish(&client, movie)?;
    assert_eq!(server.stats().faults, 1, "the fault took effect");
    Ok(())
}

fn a_missing_file_creates_nothing(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (server, client) = server(folder, Vec::new())?;
    let refused = publish(&client, &folder.join("no such file.mp4"));
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::NoSuchFile));
    assert_eq!(server.stats().videos_created, 0);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let movie = folder.path().join("movie.mp4");
    std::fs::write(&movie, vec![7; 1 << 20])?;
    a_published_file_becomes_one_video(folder.path(), &movie)?;
    a_service_that_fails_once_is_tried_again(folder.path(), &movie)?;
    a_missing_file_creates_nothing(folder.path())?;
    println!("three tests passed");
    Ok(())
}
