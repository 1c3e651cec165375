//! A test server, sample files and digests.

pub mod command;
pub mod disk;
pub mod fault_proxy;
pub mod middlebox;
pub mod queue;
pub mod real_proxy;
pub mod relay;
pub mod terminal;
pub mod way;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use ring::digest::{Context, SHA256};
use ringlift::internals::{Dialer, Lane};
use ringlift::server::{self, Fault, RequestLogEntry, Server};
use ringlift::{Client, ClientBuilder, Settings, Timeouts, Trust};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

/// The scheme of the server's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// A local server with its data folder. Dropping it stops the server and deletes the folder.
pub struct TestServer {
    pub server: Server,
    pub folder: TempDir,
}

/// The data folder and the address of a stopped server.
pub struct StoppedServer {
    pub folder: TempDir,
    scheme: Scheme,
    addr: SocketAddr,
}

impl TestServer {
    pub fn new(scheme: Scheme) -> TestServer {
        TestServer::with(scheme, |_| {})
    }

    pub fn with(scheme: Scheme, change: impl FnOnce(&mut server::ServerSettings)) -> TestServer {
        TestServer::start(tempfile::tempdir().unwrap(), scheme, change)
    }

    /// Starts a server that injects these faults.
    pub fn faulty(scheme: Scheme, faults: Vec<Fault>) -> TestServer {
        TestServer::with(scheme, |settings| settings.faults = faults.into())
    }

    fn start(
        folder: TempDir,
        scheme: Scheme,
        change: impl FnOnce(&mut server::ServerSettings),
    ) -> TestServer {
        let mut settings = server::ServerSettings::new(folder.path().join("data"));
        settings.tls = match scheme {
            Scheme::Http => server::TlsMode::Off,
            Scheme::Https => server::TlsMode::OwnAuthority,
        };
        change(&mut settings);
        TestServer { server: Server::start(settings).unwrap(), folder }
    }

    pub fn scheme(&self) -> Scheme {
        if self.server.ca_path().is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Stops the server and keeps its data.
    pub fn close(self) -> StoppedServer {
        let (scheme, addr) = (self.scheme(), self.server.addr());
        self.server.stop();
        StoppedServer { folder: self.folder, scheme, addr }
    }

    /// Returns a client that trusts the server and has its API key.
    pub fn client(&self) -> ClientBuilder {
        let client = Client::builder().endpoint_url(self.server.url()).api_key(self.server.api_key());
        match self.ca() {
            Some(ca) => client.ca_cert(ca),
            None => client,
        }
    }

    /// Returns a client with three lanes and short pauses.
    pub fn short_pause_client(&self) -> ClientBuilder {
        self.client().lanes(3).with(short_pauses)
    }

    /// Creates an upload token.
    pub fn upload_token(&self) -> String {
        let client = self.client().build().unwrap();
        pollster::block_on(client.create_upload_token(None)).unwrap().token.reveal().to_owned()
    }

    /// Returns the requests with chunks, oldest first.
    pub fn chunk_requests(&self) -> Vec<RequestLogEntry> {
        let carries = |request: &RequestLogEntry| {
            request.method == "POST" && (request.path.ends_with("/source") || request.path == "/upload")
        };
        self.server.requests().into_iter().filter(carries).collect()
    }

    /// Asserts that no chunk was sent again after the server had acknowledged it.
    pub fn assert_nothing_was_sent_twice(&self) {
        let mut had = HashSet::new();
        for RequestLogEntry { path, content_range, status, .. } in self.chunk_requests() {
            let chunk = (path, content_range);
            assert!(!had.contains(&chunk), "{chunk:?} was sent though the server had said that it has it");
            if status.is_some_and(|status| status < 300) {
                had.insert(chunk);
            }
        }
    }

    pub fn assert_created(&self, videos: u64) {
        assert_eq!(self.server.stats().videos_created, videos, "{:?}", self.server.stats());
    }

    pub fn ca(&self) -> Option<PathBuf> {
        self.server.ca_path().map(Path::to_owned)
    }

    /// Returns the length and the SHA-256 in hex of the stored file.
    pub fn stored(&self, video_id: &str) -> (u64, String) {
        let trust = Trust { ca_certs: self.ca().into_iter().collect() };
        let dialer = Dialer::new(self.server.url(), &trust, Default::default()).unwrap();
        let key = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("{}:", self.server.api_key()),
        );
        let request = http::Request::head(dialer.path(&format!("/videos/{video_id}/source")))
            .header("host", dialer.authority())
            .header("authorization", format!("Basic {key}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let mut lane: Lane<Empty<Bytes>> = dialer.dial().await.unwrap();
            lane.send(request, &Timeouts::default()).await.unwrap()
        });
        assert_eq!(answer.status(), 200, "{video_id} is not stored");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        (header("content-length").parse().unwrap(), header("x-content-sha256"))
    }

    /// Asserts that the server has stored exactly the file's bytes.
    pub fn assert_holds(&self, video_id: &str, path: &Path) {
        let len = std::fs::metadata(path).unwrap().len();
        assert_eq!(self.stored(video_id), (len, digest(path)), "{}", path.display());
    }
}

impl StoppedServer {
    /// Starts the server again at the same address.
    pub fn open(self) -> TestServer {
        TestServer::start(self.folder, self.scheme, |settings| settings.listen = self.addr)
    }

    /// Deletes the pieces of every video from this place (first byte or part number) on.
    pub fn forget_pieces_from(&self, place: u64) {
        let db = rusqlite::Connection::open(self.folder.path().join("data").join("server.db")).unwrap();
        let lost = db.execute("DELETE FROM pieces WHERE place >= ?1", [place]).unwrap();
        assert!(lost > 0, "nothing was there to be lost");
    }
}

/// Sets short pauses, because the server is on the same machine.
pub fn short_pauses(settings: &mut Settings) {
    settings.retry.first_pause = Duration::from_millis(10);
    settings.retry.longest_pause = Duration::from_millis(200);
    settings.retry.grace = Duration::from_millis(20);
    settings.retry.max_time = Duration::from_secs(60);
}

/// A file of `len` random bytes, deleted on drop.
pub struct Sample {
    path: PathBuf,
    pub len: u64,
    _folder: TempDir,
}

impl Sample {
    pub fn new(len: u64) -> Sample {
        let (sample, mut file) = Sample::empty(len);
        let mut random = fastrand::Rng::with_seed(len);
        let mut block = vec![0; 1 << 18];
        let mut left = len as usize;
        while left > 0 {
            let n = left.min(block.len());
            random.fill(&mut block[..n]);
            file.write_all(&block[..n]).unwrap();
            left -= n;
        }
        sample
    }

    /// Creates a sparse file of `len` bytes with marks at both ends and around 2^32.
    pub fn sparse(len: u64) -> Sample {
        use std::os::unix::fs::FileExt;
        let (sample, file) = Sample::empty(len);
        file.set_len(len).unwrap();
        for offset in [0, (1 << 32) - 3, (1 << 32) + 5, len - 8] {
            if offset + 8 <= len {
                file.write_all_at(&offset.to_be_bytes(), offset).unwrap();
            }
        }
        sample
    }

    fn empty(len: u64) -> (Sample, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("movie.mp4");
        let file = File::create(&path).unwrap();
        (Sample { path, len, _folder: folder }, file)
    }

    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Returns the path as a command-line argument.
    pub fn arg(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Returns the SHA-256 of a file in hex.
pub fn digest(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).unwrap() {
            0 => break,
            n => context.update(&block[..n]),
        }
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs all cases in parallel, because they mostly wait.
pub fn each_in_parallel<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| cases.into_iter().for_each(|case| drop(scope.spawn(move || test(case)))));
}
