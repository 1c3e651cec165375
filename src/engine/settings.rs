//! The settings of a client, and the chunk plan that follows from them.

use std::num::NonZeroU64;
use std::path::PathBuf;

use crate::api::{Credentials, Origin, Redactor};
use crate::engine::backlog::Backlog;
use crate::engine::options::{Checksum, ChunkSize, Mode, UploadOptions};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::pacing::{Caps, ChunkSizing, QuotaPreset, SharedBudget, Workload, chunk_bytes_for};
use crate::session::retry::RetryPolicy;
use crate::source::{MemoryBudget, Reader, SigbusHandler, SourceError};
use crate::transport::{Bandwidth, DialSettings, Endpoint, Timeouts, Trust};
use crate::wire::limits::{MAX_PARTS, MAX_SINGLE_BYTES, MIB, MIN_CHUNK_BYTES};
use crate::wire::{Addressing, Plan, PlanError, StreamAddressing, StreamPlan};

/// The service's production address (`/reference/README`).
pub const PRODUCTION_URL: &str = "https://ws.api.video";

/// The service's sandbox: videos are cut to 30 s, watermarked, deleted after a day (`/reference/README`).
pub const SANDBOX_URL: &str = "https://sandbox.api.video";

/// The settings of a client. Start from [`Settings::default`] or use [`Client::builder`](crate::Client::builder).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The URL of the service, `http` or `https`, with an optional path prefix.
    pub endpoint_url: String,
    /// The credentials for the service.
    pub credentials: Credentials,
    /// The secrets that are removed from errors: the client adds its credentials and the tokens that it is granted. A
    /// program can use a clone to remove them from its own output.
    pub redactor: Redactor,
    /// The origin headers of the requests.
    pub origin: Origin,
    /// The certificates to trust over TLS.
    pub trust: Trust,
    /// The settings of new connections, with the proxy.
    pub dial: DialSettings,
    /// The time limits of requests.
    pub patience: Timeouts,
    /// The retry policy.
    pub retry: RetryPolicy,
    /// The reader of files.
    pub reader: Reader,
    /// The permission to install a process-wide SIGBUS handler, which [`Reader::Auto`] needs to read cached files
    /// through a map over TLS.
    pub sigbus: SigbusHandler,
    /// The number of connections that carry chunks, at least 1; with [`LaneControl::Automatic`] the most of them.
    pub lanes: usize,
    /// The choice of the number of connections in use.
    pub lane_control: LaneControl,
    /// The number of uploads at once, at least 1; further uploads wait in a queue. A low limit of open files
    /// reduces the number.
    ///
    /// With more than one, some files of at most [`Settings::SMALL_FILE_BYTES`] may be open besides: they are checked and
    /// recorded while others are sent. The number of these depends on the limit of open files, and is 0 for a limit of 256
    /// or less.
    pub transfers: usize,
    /// The path of the journal, which records every container and every acknowledged chunk so that an upload can be
    /// resumed after a crash. `None` keeps no journal: an upload is resumed by another process only from a
    /// [`Checkpoint`](crate::Checkpoint).
    ///
    /// Needs the feature `journal`: a program that was built without it gets [`ErrorKind::Journal`](crate::ErrorKind)
    /// when it creates the client.
    pub journal: Option<PathBuf>,
    /// The policy for digests of the chunks of files in the journal.
    pub checksum: Checksum,
    /// The caller's limits on requests.
    pub caps: Caps,
    /// The request budget that the account's clients in other processes share.
    pub shared_budget: SharedBudget,
    /// The uploads that the caller will start later. Keep a clone to change the announcement.
    pub backlog: Backlog,
    /// The bandwidth limit of all lanes together. Keep a clone to change the limit later.
    pub bandwidth: Bandwidth,
    /// The memory in bytes for chunks of streams, all streams together. A stream without memory waits. It takes
    /// memory for a whole chunk when the chunk's first byte arrives, and 64 KiB in addition.
    pub buffer_bytes: u64,
}

/// The choice of the number of connections in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaneControl {
    /// All of [`Settings::lanes`] are used.
    #[default]
    Fixed,
    /// From 1 to [`Settings::lanes`] are used, beginning with 8: the smallest number that is about as fast as the best. It
    /// is found while the uploads run, by the bytes that the service has acknowledged, and adapted when the link changes.
    ///
    /// The number is kept while the request budget, the bandwidth limit or the memory for streams binds, and is halved when
    /// the service answers 429 or 503.
    Automatic,
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
            patience: Timeouts::default(),
            retry: RetryPolicy::default(),
            reader: Reader::Auto,
            sigbus: SigbusHandler::Leave,
            lanes: DEFAULT_LANES,
            lane_control: LaneControl::Fixed,
            transfers: DEFAULT_TRANSFERS,
            journal: None,
            checksum: Checksum::Auto,
            caps: Caps::default(),
            shared_budget: SharedBudget::default(),
            backlog: Backlog::default(),
            bandwidth: Bandwidth::unlimited(),
            buffer_bytes: DEFAULT_BUFFER_BYTES,
        }
    }
}

impl Settings {
    /// The most bytes of a small file, which takes one request and may be open beside [`Settings::transfers`].
    pub const SMALL_FILE_BYTES: u64 = 1 << 20;

    /// Returns the chunk plan and the addressing for a file of `len` bytes, beside the uploads in
    /// [`Settings::backlog`] and under a request budget that is not used yet.
    ///
    /// A client plans each upload when it begins, with the uploads and the budget that it then knows.
    ///
    /// # Errors
    /// If the file or the chunk size is outside the limits of [`limits`](crate::wire::limits).
    pub fn plan(&self, len: u64, mode: Mode, chunk_size: ChunkSize) -> Result<Plan> {
        self.plan_among(len, mode, chunk_size, self.workload())
    }

    /// Returns the chunk plan and the addressing for a file of `len` bytes beside other work.
    ///
    /// # Errors
    /// If the file or the chunk size is outside the limits of [`limits`](crate::wire::limits).
    pub fn plan_among(&self, len: u64, mode: Mode, chunk_size: ChunkSize, work: Workload) -> Result<Plan> {
        let chunk_bytes = match chunk_size {
            ChunkSize::Auto => {
                let lanes = self.planned_lanes(&work);
                let bytes_per_second = self.bandwidth.limit().map(NonZeroU64::get);
                chunk_bytes_for(&ChunkSizing { work, bytes_per_second, ..ChunkSizing::new(len, lanes) })
            }
            ChunkSize::Bytes(bytes) => bytes,
        };
        Ok(plan_of(len, chunk_bytes, mode)?)
    }

    /// Returns the number of lanes that are used at the start.
    pub(crate) fn first_lanes(&self) -> usize {
        match self.lane_control {
            LaneControl::Fixed => self.lanes,
            LaneControl::Automatic => self.lanes.min(DEFAULT_LANES),
        }
    }

    /// Returns the number of lanes for which a file is cut.
    fn planned_lanes(&self, work: &Workload) -> u32 {
        let lanes = match self.lane_control {
            LaneControl::Fixed => self.lanes,
            // More lanes than the budget has requests for would be of no use. With a known bandwidth, the size accounts for
            // the budget whatever the number of lanes.
            LaneControl::Automatic
                if work.uploads_per_minute.is_some() && self.bandwidth.limit().is_none() =>
            {
                self.first_lanes()
            }
            // The lanes of a changing number do not end together, and the shorter the chunks, the shorter is the time in
            // which the last ones are alone.
            LaneControl::Automatic => self.lanes.saturating_add(self.lanes / 2),
        };
        // `Settings::check` refuses so many lanes, but a plan may be made without it.
        u32::try_from(lanes).unwrap_or(u32::MAX)
    }

    /// Returns the work that is known before a client exists: the backlog, and a budget that is not used yet.
    pub fn workload(&self) -> Workload {
        let mut work = Workload::alone(self.effective_caps().most_uploads_a_minute());
        work.waiting = self.backlog.uploads();
        work.waiting_bytes = self.backlog.bytes();
        work
    }

    /// Returns the limits on requests. The service's own two addresses have published budgets, which hold unless the
    /// settings name others.
    pub(crate) fn effective_caps(&self) -> Caps {
        let endpoint = Endpoint::parse(&self.endpoint_url);
        let published = match endpoint.as_ref().map(|endpoint| endpoint.canonical()) {
            Ok(PRODUCTION_URL) => Some(QuotaPreset::Production),
            Ok(SANDBOX_URL) => Some(QuotaPreset::Sandbox),
            Ok(_) | Err(_) => None,
        };
        Caps { preset: self.caps.preset.or(published), ..self.caps.clone() }
    }

    /// Returns the plan for a stream of unknown length. `name` names the stream in errors. Every chunk is held in
    /// memory.
    ///
    /// # Errors
    /// If the mode needs the length: [`Mode::Single`], and [`Mode::Bytes`] with an upload token; if the chunks would be
    /// outside the limits of [`limits`](crate::wire::limits); or if [`Settings::buffer_bytes`] is too small for one chunk.
    pub fn plan_stream(&self, name: &str, options: &UploadOptions) -> Result<StreamPlan> {
        let UploadOptions { mode, chunk_size, expected_bytes, .. } = *options;
        let addressing = match mode {
            Mode::Single => return Err(needs_parts(name, "its length is unknown, which one request needs")),
            // The service describes its route for upload tokens without ranges of unknown length.
            Mode::Bytes if options.upload_token.is_some() => {
                let reason = "its length is unknown, and with an upload token only parts support that";
                return Err(needs_parts(name, reason));
            }
            Mode::Bytes => StreamAddressing::ByteRange,
            Mode::Auto | Mode::Parts => StreamAddressing::Part,
        };
        let chunk_bytes = match chunk_size {
            // Without an expectation the limit of parts asks for no longer chunks.
            ChunkSize::Auto => self.stream_chunk_bytes(expected_bytes.unwrap_or(0)),
            ChunkSize::Bytes(bytes) => bytes,
        };
        let plan = StreamPlan::new(chunk_bytes, addressing)?;
        // Too many parts would otherwise show only after gigabytes were sent.
        if let Some(len @ 1..) = expected_bytes {
            Plan::new(len, chunk_bytes, plan.addressing())?;
        }
        self.check_memory(name, chunk_bytes)?;
        Ok(plan)
    }

    /// Returns the plan for a stream of exactly `len` bytes. `name` names the stream in errors. Every chunk is held in
    /// memory.
    ///
    /// # Errors
    /// If the stream or the chunk size is outside the limits of [`limits`](crate::wire::limits), or if
    /// [`Settings::buffer_bytes`] is too small for one chunk.
    pub fn plan_sized_stream(&self, name: &str, len: u64, options: &UploadOptions) -> Result<Plan> {
        let chunk_bytes = match options.chunk_size {
            ChunkSize::Auto => self.stream_chunk_bytes(len),
            ChunkSize::Bytes(bytes) => bytes,
        };
        let plan = plan_of(len, chunk_bytes, options.mode)?;
        // No chunk is longer than the first one.
        self.check_memory(name, plan.chunk(0).extent.len())?;
        Ok(plan)
    }

    /// Checks that the memory for streams can hold one chunk.
    fn check_memory(&self, name: &str, chunk_bytes: u64) -> Result<()> {
        let (needed, budget_bytes) = (MemoryBudget::least_for(chunk_bytes), self.buffer_bytes);
        if budget_bytes < needed {
            return Err(SourceError::Budget { name: name.into(), chunk_bytes, needed, budget_bytes }.into());
        }
        Ok(())
    }

    /// Returns the default chunk size, reduced to the memory available, and raised if there would be too many parts.
    fn stream_chunk_bytes(&self, expected_bytes: u64) -> u64 {
        // The budget grants memory in blocks of 1 MiB.
        let room = self.buffer_bytes / MIB * MIB;
        // The service refuses shorter chunks; `check_memory` refuses the stream if the memory does not hold even one.
        let usual = STREAM_CHUNK_BYTES.min(room).max(MIN_CHUNK_BYTES);
        expected_bytes.div_ceil(MAX_PARTS).max(usual)
    }
}

/// Divides a source of known length as `mode` says. [`Mode::Auto`] sends it in one request up to the chunk size.
fn plan_of(len: u64, chunk_bytes: u64, mode: Mode) -> std::result::Result<Plan, PlanError> {
    let addressing = match mode {
        Mode::Single => Addressing::Single,
        Mode::Bytes => Addressing::ByteRange,
        Mode::Parts => Addressing::Part,
        Mode::Auto if len <= chunk_bytes.min(MAX_SINGLE_BYTES) => Addressing::Single,
        Mode::Auto => Addressing::ByteRange,
    };
    Plan::new(len, chunk_bytes, addressing)
}

/// Returns the refusal of a mode that a stream of unknown length cannot use.
fn needs_parts(name: &str, reason: &str) -> Error {
    let refused = Error::new(ErrorKind::PlanImpossible, format!("upload {name}"));
    refused.because(reason).with_hint(Hint::SendInParts)
}

/// Enough to hide a round trip per chunk on fast links, and few enough for the service's limits.
const DEFAULT_LANES: usize = 8;
/// One lane each, since a file of one chunk uses one lane.
const DEFAULT_TRANSFERS: usize = DEFAULT_LANES;
const DEFAULT_BUFFER_BYTES: u64 = 256 << 20;

/// The default chunk size of a stream in bytes: each lane holds one chunk in memory.
const STREAM_CHUNK_BYTES: u64 = 16 * MIB;
