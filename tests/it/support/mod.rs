//! A server to upload to, files to upload, and digests to compare.

pub mod command;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http_body_util::Empty;
use ringlift::server::{self, Server};
use ringlift::transport::{Dialer, Lane, Patience, Trust};
use ringlift::{Client, ClientBuilder};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

/// How the server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// A server with its folder; both go when it is dropped.
pub struct House {
    pub server: Server,
    pub folder: TempDir,
}

impl House {
    pub fn new(scheme: Scheme) -> House {
        House::with(scheme, |_| {})
    }

    pub fn with(scheme: Scheme, change: impl FnOnce(&mut server::Settings)) -> House {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = server::Settings::new(folder.path().join("data"));
        settings.tls = match scheme {
            Scheme::Http => server::TlsMode::Off,
            Scheme::Https => server::TlsMode::OwnAuthority,
        };
        change(&mut settings);
        House { server: Server::start(settings).unwrap(), folder }
    }

    /// A client that trusts the server and has its key.
    pub fn client(&self) -> ClientBuilder {
        let client = Client::builder().endpoint_url(self.server.url()).api_key(self.server.api_key());
        match self.ca() {
            Some(ca) => client.ca_cert(ca),
            None => client,
        }
    }

    pub fn ca(&self) -> Option<PathBuf> {
        self.server.ca_path().map(Path::to_owned)
    }

    /// Length and SHA-256, in hex, of what the server stored.
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
            lane.send(request, &Patience::default()).await.unwrap()
        });
        assert_eq!(answer.status(), 200, "{video_id} is not stored");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        (header("content-length").parse().unwrap(), header("x-content-sha256"))
    }

    /// Asserts that the server holds exactly the file's bytes.
    pub fn assert_holds(&self, video_id: &str, path: &Path) {
        let len = std::fs::metadata(path).unwrap().len();
        assert_eq!(self.stored(video_id), (len, digest(path)), "{}", path.display());
    }
}

/// A file of `len` bytes that repeat nowhere; gone when it is dropped.
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

    /// A file of `len` bytes, most of them in a hole, with marks at the ends and past 2^32.
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

    /// The path as a command line has it.
    pub fn arg(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// The SHA-256 of a file, in hex.
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
