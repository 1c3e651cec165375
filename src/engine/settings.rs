//! The settings of a client, and how an upload with them is cut.

use std::num::NonZeroU64;
use std::path::PathBuf;

use crate::api::{Credentials, Origin, Redactor};
use crate::engine::request::{Checksum, ChunkSize, Mode};
use crate::error::{Error, ErrorKind, Result};
use crate::pacing::{Caps, ChunkSizing, chunk_bytes_for};
use crate::session::retry::RetryPolicy;
use crate::source::{MemoryBudget, Reader, Sigbus, SourceError};
use crate::transport::{Bandwidth, DialSettings, Patience, Trust};
use crate::wire::limits::{MAX_PARTS, MAX_SINGLE_BYTES, MIB, MIN_CHUNK_BYTES};
use crate::wire::{Addressing, Plan, plan};

/// The service's production address (`/reference/README`).
pub const PRODUCTION_URL: &str = "https://ws.api.video";

/// The service's sandbox: videos are cut to 30 s, watermarked, deleted after a day (`/reference/README`).
pub const SANDBOX_URL: &str = "https://sandbox.api.video";

/// How a client works. Start from [`Settings::default`] or use [`Client::builder`](crate::Client::builder).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where the service is, `http` or `https`, with an optional path before its own.
    pub endpoint_url: String,
    /// What proves who asks.
    pub credentials: Credentials,
    /// The secrets that no error holds: the client adds its credentials and the tokens that it is granted. A program
    /// that shares it can take them out of its own output.
    pub redactor: Redactor,
    /// How the requests introduce themselves.
    pub origin: Origin,
    /// Whom to trust over TLS.
    pub trust: Trust,
    /// How connections are made.
    pub dial: DialSettings,
    /// How long to wait for what.
    pub patience: Patience,
    /// How often and how long to try.
    pub retry: RetryPolicy,
    /// How files are read.
    pub reader: Reader,
    /// Whose signal SIGBUS is, on which depends how [`Reader::Auto`] reads cached files over TLS.
    pub sigbus: Sigbus,
    /// Connections that carry chunks, at least 1.
    pub lanes: usize,
    /// Uploads under way at once, at least 1; further ones wait their kind.
    pub transfers: usize,
    /// Where every container and every acknowledged chunk is written down, so that the same upload can be
    /// taken up after a crash; `None` keeps no journal.
    pub journal: Option<PathBuf>,
    /// When the journal keeps digests of the chunks of files.
    pub checksum: Checksum,
    /// How many requests the caller allows.
    pub caps: Caps,
    /// How many bytes a second all lanes together may send. Keep a clone to change it later.
    pub bandwidth: Bandwidth,
    /// Bytes that chunks of streams may hold in memory, all streams together; what has no room waits. A stream
    /// takes room for a whole chunk when the chunk's first byte is there, and 64 KiB of its own beside it.
    pub buffer_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            endpoint_url: PRODUCTION_URL.to_owned(),
            credentials: Credentials::None,
            redactor: Redactor::new(),
            origin: Origin::default(),
            trust: Trust::default(),
            dial: DialSettings::default(),
            patience: Patience::default(),
            retry: RetryPolicy::default(),
            reader: Reader::Auto,
            sigbus: Sigbus::Theirs,
            lanes: DEFAULT_LANES,
            transfers: DEFAULT_TRANSFERS,
            journal: None,
            checksum: Checksum::Auto,
            caps: Caps::default(),
            bandwidth: Bandwidth::unlimited(),
            buffer_bytes: DEFAULT_BUFFER_BYTES,
        }
    }
}

impl Settings {
    /// How an upload with these settings cuts a file of `len` bytes, and names the chunks on the wire.
    ///
    /// # Errors
    /// When the file or the chunk size is outside the limits of [`limits`](crate::wire::limits).
    pub fn plan(&self, len: u64, mode: Mode, chunk_size: ChunkSize) -> Result<Plan> {
        let chunk_bytes = match chunk_size {
            ChunkSize::Auto => {
                let lanes = u32::try_from(self.lanes).unwrap_or(u32::MAX);
                let uploads_per_minute = self.caps.most_uploads_a_minute();
                let bytes_per_second = self.bandwidth.limit().map(NonZeroU64::get);
                chunk_bytes_for(&ChunkSizing {
                    uploads_per_minute,
                    bytes_per_second,
                    ..ChunkSizing::new(len, lanes)
                })
            }
            ChunkSize::Bytes(bytes) => bytes,
        };
        let addressing = match mode {
            Mode::Single => Addressing::Single,
            Mode::Bytes => Addressing::ByteRange,
            Mode::Parts => Addressing::Part,
            Mode::Auto if len <= chunk_bytes.min(MAX_SINGLE_BYTES) => Addressing::Single,
            Mode::Auto => Addressing::ByteRange,
        };
        Ok(Plan::new(len, chunk_bytes, addressing)?)
    }

    /// How many bytes the chunks of a stream have that is called `name` in errors, of which about
    /// `expected_bytes` are expected. Streams go in parts, and every chunk is held in memory.
    ///
    /// # Errors
    /// When a stream cannot go that way, when its chunks would be outside the limits of
    /// [`limits`](crate::wire::limits), or when [`Settings::buffer_bytes`] has no room for one.
    pub fn plan_stream(
        &self,
        name: &str,
        mode: Mode,
        chunk_size: ChunkSize,
        expected_bytes: Option<u64>,
    ) -> Result<u64> {
        if matches!(mode, Mode::Single | Mode::Bytes) {
            let reason = "its length is not known, and only parts (--mode parts) can do without";
            return Err(Error::new(ErrorKind::PlanImpossible, format!("upload {name}")).because(reason));
        }
        let chunk_bytes = match chunk_size {
            ChunkSize::Auto => self.stream_chunk_bytes(expected_bytes.unwrap_or(0)),
            ChunkSize::Bytes(bytes) => bytes,
        };
        plan::check_chunk_bytes(chunk_bytes)?;
        if let Some(len @ 1..) = expected_bytes {
            Plan::new(len, chunk_bytes, Addressing::Part)?;
        }
        let (needed, budget_bytes) = (MemoryBudget::least_for(chunk_bytes), self.buffer_bytes);
        if budget_bytes < needed {
            return Err(SourceError::Budget { name: name.into(), chunk_bytes, needed, budget_bytes }.into());
        }
        Ok(chunk_bytes)
    }

    /// Less than usual where the memory has no room for more, and more where the parts would be too many.
    fn stream_chunk_bytes(&self, expected_bytes: u64) -> u64 {
        let room = self.buffer_bytes / MIB * MIB;
        let usual = STREAM_CHUNK_BYTES.min(room).max(MIN_CHUNK_BYTES);
        expected_bytes.div_ceil(MAX_PARTS).max(usual)
    }
}

/// Enough to hide a round trip per chunk on fast links, and few enough for the service's limits.
const DEFAULT_LANES: usize = 8;
/// As many as lanes: a file of one chunk uses one.
const DEFAULT_TRANSFERS: usize = DEFAULT_LANES;
const DEFAULT_BUFFER_BYTES: u64 = 256 << 20;

/// Chunk bytes of a stream when nobody chose: every lane's chunk is held in memory.
const STREAM_CHUNK_BYTES: u64 = 16 * MIB;
