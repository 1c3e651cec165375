//! Bulk ingestion as a library: one program submits jobs to a queue, another one works on them and reads the events.
//!
//! Runs against the local server: `cargo run --example bulk_pipeline`. With folders as arguments it uploads the videos in
//! those.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{Stream, StreamExt};
use ringlift::bulk::{
    Account, IngestEnd, IngestEvent, IngestInput, IngestOptions, Inputs, JobPlanner, JobStore, OwnerId, Pool,
    Report, Shutdown, SqliteJobStore, SqliteOptions, Walk, WalkOptions, submit, work,
};
use ringlift::server::{Server, ServerSettings};
use ringlift::{Client, UploadOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The service's protocol on loopback, without an account. For the service itself, leave `endpoint_url` out.
    let folder = tempfile::tempdir()?;
    let server = Server::start(ServerSettings::new(folder.path().join("server")))?;
    let client = Client::builder()
        .endpoint_url(server.url())
        .api_key(server.api_key())
        // The journal has the progress of the jobs under way. All processes of this host should use the same one.
        .with(|settings| settings.journal = Some(folder.path().join("jobs.journal.db")))
        .build()?;

    // Jobs of different keys never mix: the account is a part of each job's identity.
    let account = Account::of_key(server.url(), server.api_key());
    let options = SqliteOptions::new(folder.path().join("jobs.db"), account.clone());
    let store: Arc<dyn JobStore> = Arc::new(SqliteJobStore::open(options)?);

    submit_all(&folders(folder.path())?, account, store.clone()).await?;
    let report = Report::open(folder.path().join("report.csv"))?;
    let mut shutdown = Shutdown::new();
    let events = work(store, &client, options_of_run()?, Some(report), shutdown.signal());
    let ended = follow(events, &mut shutdown).await;
    print!("{}", std::fs::read_to_string(folder.path().join("report.csv"))?);
    match ended {
        Some(IngestEnd::Drained) => Ok(()),
        other => Err(format!("jobs are left for the next run: {other:?}").into()),
    }
}

/// Submits the videos of the folders. Nothing is collected: a million files take as much memory as ten.
async fn submit_all(
    folders: &[PathBuf],
    account: Account,
    store: Arc<dyn JobStore>,
) -> Result<(), Box<dyn Error>> {
    let mut defaults = UploadOptions::default();
    defaults.video.tags = vec!["archive".to_owned()];
    let mut planner = JobPlanner::new(account, pool()?, defaults);
    planner.title = Some("{stem} ({index})".parse()?);
    let walks = folders.iter().map(|path| Walk::new(path, WalkOptions::default()));
    let inputs = Inputs::new(planner, walks.map(|walk| IngestInput::Walk(Box::new(walk))));
    let mut events = Box::pin(submit(inputs, store, options_of_run()?, None));
    while let Some(event) = events.next().await {
        match event {
            IngestEvent::Submitted { id, .. } => println!("queued {id}"),
            // A job that is done, or a file that gives no job, is no reason to stop.
            IngestEvent::Skipped(job) => println!("{}: {}", job.name, job.reason),
            IngestEvent::InputFailed(failed) => println!("{}", failed.failure.message),
            IngestEvent::Ended(IngestEnd::Store(error)) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Prints the events of the run, and stops the run at a deadline. Returns the reason of its end.
async fn follow(events: impl Stream<Item = IngestEvent>, shutdown: &mut Shutdown) -> Option<IngestEnd> {
    let mut events = Box::pin(events);
    let deadline = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(deadline);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // The run advances only while its stream is polled.
            event = events.next() => match event? {
                IngestEvent::Done { job, result, .. } => println!("{}: {}", job.name, result.video_id),
                IngestEvent::Deferred { job, failure, delay } => {
                    println!("{}: {}; again in {delay:?}", job.name, failure.message);
                }
                IngestEvent::Failed { job, failure, .. } => println!("{}: {}", job.name, failure.message),
                IngestEvent::Ended(end) => return Some(end),
                _ => {}
            },
            // Active chunks may finish. Their jobs go back to the queue, and the next run goes on with them.
            () = &mut deadline, if !is_stopping => {
                is_stopping = true;
                shutdown.stop(Duration::from_secs(10), Instant::now());
            }
        }
    }
}

fn options_of_run() -> Result<IngestOptions, Box<dyn Error>> {
    // Distinguishes this process from others on the queue, also from later ones with the same process id.
    let random = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let owner = OwnerId::new("pipeline", std::process::id(), random);
    Ok(IngestOptions::new(pool()?, owner, SystemTime::now))
}

fn pool() -> Result<Pool, Box<dyn Error>> {
    Ok(Pool::new("pipeline")?)
}

/// Returns the folders of the command line, else one with three samples.
fn folders(parent: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if !given.is_empty() {
        return Ok(given);
    }
    let samples = parent.join("films");
    std::fs::create_dir(&samples)?;
    for name in ["dawn.mp4", "noon.mov", "dusk.mkv"] {
        std::fs::write(samples.join(name), name.repeat(1000))?;
    }
    Ok(vec![samples])
}
