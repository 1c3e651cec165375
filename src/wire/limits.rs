//! The numbers of the upload protocol, each with the page that states it.
//!
//! Pages are named by their path below `https://docs.api.video`.

/// One mebibyte, the unit of the service's limits.
pub const MIB: u64 = 1 << 20;

/// The smallest chunk, 5 MiB; only the last chunk in file order may be smaller.
///
/// `/reference/video-content-range-by-bytes-range-too-small`
pub const MIN_CHUNK_BYTES: u64 = 5 * MIB;

/// The largest chunk, 200 MiB of file bytes, without the envelope.
///
/// `/reference/video-content-range-by-bytes-range-too-large`
pub const MAX_CHUNK_BYTES: u64 = 200 * MIB;

/// The largest file in one request without `Content-Range`, 200 MiB.
///
/// `/reference/uploaded-file-too-large`
pub const MAX_SINGLE_BYTES: u64 = 200 * MIB;

/// The highest part number and the highest number of parts.
///
/// `/reference/video-content-range-by-part-part-too-high-allowed`
pub const MAX_PARTS: u64 = 10_000;

/// The largest total a `Content-Range` may state: 10,000 chunks of 5 MiB.
///
/// `/reference/video-content-range-by-bytes-total-bytes-too-high`
pub const MAX_TOTAL_BYTES: u64 = 52_428_800_000;

/// The largest video that the guide supports, 30 GiB. Larger videos are sent with a warning.
///
/// `/vod/video-best-practices`
pub const GUIDE_VIDEO_BYTES: u64 = 30 << 30;

/// The default chunk size in bytes.
///
/// Each chunk is one request against the account's budget (`/reference/README`), so the default is large.
/// For files, the memory in use does not depend on the chunk size.
pub const DEFAULT_CHUNK_BYTES: u64 = 64 * MIB;
