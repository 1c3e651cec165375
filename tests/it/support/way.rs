//! The upload methods: addressing, and key or token.

use ringlift::limits::MIN_CHUNK_BYTES;
use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{ChunkSize, Client, Mode, Upload};

use super::{Sample, TestServer};

/// The smallest allowed chunk, for many chunks with few bytes.
pub const CHUNK: u64 = MIN_CHUNK_BYTES;

/// One upload method. The delegated ones use an upload token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Bytes,
    Parts,
    Single,
    DelegatedBytes,
    DelegatedParts,
}

impl Way {
    pub const ALL: [Way; 5] = [Way::Bytes, Way::Parts, Way::Single, Way::DelegatedBytes, Way::DelegatedParts];

    pub const CHUNKED: [Way; 4] = [Way::Bytes, Way::Parts, Way::DelegatedBytes, Way::DelegatedParts];

    pub fn is_delegated(self) -> bool {
        matches!(self, Way::DelegatedBytes | Way::DelegatedParts)
    }

    pub fn mode(self) -> Mode {
        match self {
            Way::Single => Mode::Single,
            Way::Bytes | Way::DelegatedBytes => Mode::Bytes,
            Way::Parts | Way::DelegatedParts => Mode::Parts,
        }
    }

    /// Returns the value of `--mode`.
    pub fn mode_name(self) -> &'static str {
        match self {
            Way::Single => "single",
            Way::Bytes | Way::DelegatedBytes => "bytes",
            Way::Parts | Way::DelegatedParts => "parts",
        }
    }

    /// Creates a file of `chunks` chunks with a short last chunk.
    pub fn sample(self, chunks: u64) -> Sample {
        match self {
            Way::Single => Sample::new(CHUNK + 4_321),
            _ => Sample::new((chunks - 1) * CHUNK + 4_321),
        }
    }

    /// Returns a fault that happens once, to the chunk at `index`.
    pub fn fault(self, index: u32, action: FaultAction) -> Fault {
        let fault = Fault::new(RouteClass::Chunk, action);
        match self {
            Way::Single => fault,
            Way::Bytes | Way::DelegatedBytes => fault.offset(u64::from(index) * CHUNK),
            Way::Parts | Way::DelegatedParts => fault.part(index + 1),
        }
    }

    /// Creates an upload token if the method needs one.
    pub fn token(self, test_server: &TestServer) -> Option<String> {
        self.is_delegated().then(|| test_server.upload_token())
    }

    /// Returns the upload of `sample` with this method, with a new token if the method needs one.
    pub fn upload(self, test_server: &TestServer, client: &Client, sample: &Sample) -> Upload {
        self.upload_with(self.token(test_server).as_deref(), client, sample)
    }

    /// Returns the upload of `sample` with this method and token.
    pub fn upload_with(self, token: Option<&str>, client: &Client, sample: &Sample) -> Upload {
        let upload = client.upload(sample.path()).mode(self.mode()).chunk_size(ChunkSize::Bytes(CHUNK));
        match token {
            Some(token) => upload.upload_token(token),
            None => upload,
        }
    }
}
