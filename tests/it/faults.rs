//! Faults between the client and the service, and their effect on the upload.
//!
//! Every test sends real bytes over real sockets to a server that injects faults. All tests check that the file is
//! complete or the error gives the reason, that one video is created and named, that no stored chunk is sent again,
//! and that retries end.

mod changed_files;
mod connections;
mod containers;
mod credentials;
mod resources;
mod responses;
mod servers;
mod service_failures;
mod stalls;
mod throttling;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::internals::Envelope;
use ringlift::server::{
    ConnectionEnd, Fault, FaultAction, Limits, RefusalTiming, RequestBudget, RouteClass, TlsMode,
};
use ringlift::{
    ChunkSize, Client, Credentials, Error, ErrorKind, MinSpeed, Mode, Reader, Running, Secret, Timeouts,
    Upload, Uploaded,
};

use crate::support::command::Restriction;
use crate::support::relay::Relay;
use crate::support::way::{CHUNK, Way};
use crate::support::{MIB, Sample, Scheme, StoppedServer, TestServer, each_in_parallel};

const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https];

/// Uploads `sample` with a client with short pauses, and asserts that it is stored.
fn upload_successfully(test_server: &TestServer, way: Way, sample: &Sample) -> Uploaded {
    let client = test_server.short_pause_client().with(|settings| {
        // Only the end of the ingestion shows that a single request was stored.
        settings.retry.grace *= if way == Way::Single { 20 } else { 1 };
    });
    let client = client.build().unwrap();
    let uploaded = way.upload(test_server, &client, sample).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    uploaded
}

/// Uploads a file of four chunks with a client with short pauses, and returns the error.
fn upload_and_fail(test_server: &TestServer, way: Way) -> Error {
    let client = test_server.short_pause_client().build().unwrap();
    way.upload(test_server, &client, &way.sample(4)).send_blocking().unwrap_err()
}

fn start(upload: Upload) -> Running {
    pollster::block_on(upload.start()).unwrap()
}

/// Waits until the progress of an upload satisfies `is_there`.
fn wait_until(running: &Running, is_there: impl Fn(&ringlift::Progress) -> bool) {
    let begun = Instant::now();
    while !is_there(&running.current()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", running.current());
        sleep(Duration::from_millis(5));
    }
}

fn refusal(status: u16, slug: Option<&str>, timing: RefusalTiming) -> FaultAction {
    FaultAction::Refuse { status, slug: slug.map(str::to_owned), timing }
}

/// A chunk that is larger than every socket buffer.
const LONG_CHUNK: u64 = 32 * MIB;
