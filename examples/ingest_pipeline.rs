//! Uploads several files at once, shows their progress, and stops cleanly at a deadline.
//!
//! Runs against the local server: `cargo run --example ingest_pipeline`. With files as arguments it uploads those.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use ringlift::server::{Server, ServerSettings};
use ringlift::{Client, Uploaded};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The service's protocol on loopback, without an account. For the service itself, leave `endpoint_url` out.
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerSettings::new(folder.path().join("server")))?;
    let client = Client::builder()
        .endpoint_url(server.url())
        .api_key(server.api_key())
        // With a journal, files that were interrupted continue where they stopped when the program runs again.
        .with(|settings| settings.journal = Some(folder.path().join("journal.db")))
        .build()?;

    // All uploads of a client share its connections and its request budget, so that starting all at once is fine.
    let mut uploads = JoinSet::new();
    for path in files(folder.path())? {
        uploads.spawn(upload(client.clone(), path));
    }

    let deadline = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            finished = uploads.join_next() => match finished {
                Some(finished) => report(finished?),
                None => return Ok(()),
            },
            // Dropping the set drops the uploads, which closes their connections. The journal keeps their progress.
            // `tokio::signal::ctrl_c()` (feature `signal` of tokio) fits in here in the same way.
            () = &mut deadline => return Err("out of time: run it again to continue".into()),
        }
    }
}

/// Uploads one file and prints its progress.
async fn upload(client: Client, path: PathBuf) -> (PathBuf, ringlift::Result<Uploaded>) {
    let uploaded = async {
        let running = client.upload(&path).start().await?;
        let mut progress = running.progress();
        // The stream ends with the upload. A slow reader misses states in between, never the last one.
        while let Some(now) = progress.next().await {
            if let Some(total) = now.total_bytes.filter(|total| *total > 0) {
                println!("{}: {} %", path.display(), 100 * now.acknowledged_bytes / total);
            }
        }
        running.join().await
    };
    let uploaded = uploaded.await;
    (path, uploaded)
}

fn report((path, uploaded): (PathBuf, ringlift::Result<Uploaded>)) {
    match uploaded {
        Ok(uploaded) => println!("{}: video {}", path.display(), uploaded.video_id),
        // One file that fails does not end the others.
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            if let Some(advice) = error.advice() {
                eprintln!("  {advice}");
            }
        }
    }
}

/// Returns the files on the command line, or some made-up ones.
fn files(folder: &std::path::Path) -> std::io::Result<Vec<PathBuf>> {
    let named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    (1..=3)
        .map(|number| {
            let path = folder.join(format!("movie-{number}.mp4"));
            std::fs::write(&path, vec![number; 3 << 20])?;
            Ok(path)
        })
        .collect()
}
