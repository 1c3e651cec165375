//! The ways a file can go: how it is cut, how its chunks are named, and who sends it.

use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::wire::limits::MIN_CHUNK_BYTES;
use ringlift::{ChunkSize, Client, Mode, Upload};

use super::{House, Sample};

/// The smallest that the service takes: the most chunks for the least bytes.
pub const CHUNK: u64 = MIN_CHUNK_BYTES;

/// One way for a file to go.
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

    /// As `--mode` says it.
    pub fn mode_name(self) -> &'static str {
        match self {
            Way::Single => "single",
            Way::Bytes | Way::DelegatedBytes => "bytes",
            Way::Parts | Way::DelegatedParts => "parts",
        }
    }

    /// A file of so many chunks, the last of them short.
    pub fn sample(self, chunks: u64) -> Sample {
        match self {
            Way::Single => Sample::new(CHUNK + 4_321),
            _ => Sample::new((chunks - 1) * CHUNK + 4_321),
        }
    }

    /// What happens to the chunk at `index`, once.
    pub fn fault(self, index: u32, action: FaultAction) -> Fault {
        let fault = Fault::new(RouteClass::Chunk, action);
        match self {
            Way::Single => fault,
            Way::Bytes | Way::DelegatedBytes => fault.offset(u64::from(index) * CHUNK),
            Way::Parts | Way::DelegatedParts => fault.part(index + 1),
        }
    }

    /// What such an upload needs beside a client.
    pub fn token(self, house: &House) -> Option<String> {
        self.is_delegated().then(|| house.upload_token())
    }

    /// The upload of `sample` this way, with a token of its own where it needs one.
    pub fn upload(self, house: &House, client: &Client, sample: &Sample) -> Upload {
        self.upload_with(self.token(house).as_deref(), client, sample)
    }

    /// The upload of `sample` this way, with this token.
    pub fn upload_with(self, token: Option<&str>, client: &Client, sample: &Sample) -> Upload {
        let upload = client.upload(sample.path()).mode(self.mode()).chunk_size(ChunkSize::Bytes(CHUNK));
        match token {
            Some(token) => upload.upload_token(token),
            None => upload,
        }
    }
}
