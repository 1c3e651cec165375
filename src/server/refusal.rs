//! The reasons for refusing an upload, each with its slug, title and detail.

use crate::extent::Extent;
use crate::wire::limits::{MAX_CHUNK_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, MAX_TOTAL_BYTES, MIN_CHUNK_BYTES};

/// A reason for refusing an upload; the status is always 400. [`UploadRefusal::slug`] is the name of its
/// documentation page below `https://docs.api.video/reference/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadRefusal {
    NoFile,
    MultipleFiles,
    EmptyFile,
    FileTooLarge { file_len: u64 },
    AlreadyUploaded,
    AlreadyDownloaded,
    AlreadyCopied,
    Malformed,
    AlreadyInitiated,
    StartedWithBytes,
    StartedWithPart,
    FromByteTooHigh { from: u64, to: u64 },
    RangeMismatch { range_len: u64, file_len: u64 },
    RangeOverlap { received: Extent },
    RangeTooSmall { range_len: u64 },
    RangeTooLarge { range_len: u64 },
    ToByteTooHighAllowed { to: u64 },
    ToByteTooHighTotal { to: u64, total: u64 },
    TotalBytesZero,
    TotalBytesTooHigh { total: u64 },
    TotalBytesTooLow { total: u64, received_to: u64 },
    DifferentTotalBytes { earlier: u64 },
    PartZero,
    TotalPartsZero,
    PartTooHighAllowed { number: u32 },
    TotalPartsTooHigh { total: u32 },
    PartTooHighTotal { number: u32, total: u32 },
    TotalPartsTooLow { total: u32, highest: u32 },
    DifferentTotalParts { earlier: u32 },
    PartAlreadySent { number: u32 },
    PartTooSmall { file_len: u64 },
}

impl UploadRefusal {
    pub(super) const fn slug(self) -> &'static str {
        match self {
            UploadRefusal::NoFile => "uploaded-file-no-file",
            UploadRefusal::MultipleFiles => "uploaded-file-multiple-files",
            UploadRefusal::EmptyFile => "uploaded-file-empty",
            UploadRefusal::FileTooLarge { .. } => "uploaded-file-too-large",
            UploadRefusal::AlreadyUploaded => "video-source-already-uploaded",
            UploadRefusal::AlreadyDownloaded => "video-source-already-downloaded",
            UploadRefusal::AlreadyCopied => "video-source-already-copied",
            UploadRefusal::Malformed => "video-content-range-malformed",
            UploadRefusal::AlreadyInitiated => "video-content-range-already-initiated",
            UploadRefusal::StartedWithBytes => "video-content-range-started-with-bytes",
            UploadRefusal::StartedWithPart => "video-content-range-started-with-part",
            UploadRefusal::FromByteTooHigh { .. } => "video-content-range-by-bytes-from-byte-too-high",
            UploadRefusal::RangeMismatch { .. } => "video-content-range-by-bytes-range-mismatch",
            UploadRefusal::RangeOverlap { .. } => "video-content-range-by-bytes-range-overlap",
            UploadRefusal::RangeTooSmall { .. } => "video-content-range-by-bytes-range-too-small",
            UploadRefusal::RangeTooLarge { .. } => "video-content-range-by-bytes-range-too-large",
            UploadRefusal::ToByteTooHighAllowed { .. } => {
                "video-content-range-by-bytes-to-byte-too-high-allowed"
            }
            UploadRefusal::ToByteTooHighTotal { .. } => "video-content-range-by-bytes-to-byte-too-high-total",
            UploadRefusal::TotalBytesZero => "video-content-range-by-bytes-total-bytes-zero",
            UploadRefusal::TotalBytesTooHigh { .. } => "video-content-range-by-bytes-total-bytes-too-high",
            UploadRefusal::TotalBytesTooLow { .. } => "video-content-range-by-bytes-total-bytes-too-low",
            UploadRefusal::DifferentTotalBytes { .. } => "video-content-range-by-bytes-different-total-bytes",
            UploadRefusal::PartZero => "video-content-range-by-part-part-zero",
            UploadRefusal::TotalPartsZero => "video-content-range-by-part-total-parts-zero",
            UploadRefusal::PartTooHighAllowed { .. } => "video-content-range-by-part-part-too-high-allowed",
            UploadRefusal::TotalPartsTooHigh { .. } => "video-content-range-by-part-total-parts-too-high",
            UploadRefusal::PartTooHighTotal { .. } => "video-content-range-by-part-part-too-high-total",
            UploadRefusal::TotalPartsTooLow { .. } => "video-content-range-by-part-total-parts-too-low",
            UploadRefusal::DifferentTotalParts { .. } => "video-content-range-by-part-different-total-parts",
            UploadRefusal::PartAlreadySent { .. } => "video-content-range-by-part-part-already-sent",
            UploadRefusal::PartTooSmall { .. } => "video-content-range-by-part-uploaded-file-too-small",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            UploadRefusal::NoFile => "No file was uploaded.",
            UploadRefusal::MultipleFiles => "More than one file was uploaded.",
            UploadRefusal::EmptyFile => "The uploaded file is empty.",
            UploadRefusal::FileTooLarge { .. } => "The uploaded file is too large.",
            UploadRefusal::AlreadyUploaded => "The source of the video is already uploaded.",
            UploadRefusal::AlreadyDownloaded => "The source of the video is already downloaded from a URL.",
            UploadRefusal::AlreadyCopied => "The source of the video is already copied from another video.",
            UploadRefusal::Malformed => "The Content-Range header is malformed.",
            UploadRefusal::AlreadyInitiated => "An upload by Content-Range is already under way.",
            UploadRefusal::StartedWithBytes => "The upload was started by byte ranges.",
            UploadRefusal::StartedWithPart => "The upload was started by parts.",
            UploadRefusal::FromByteTooHigh { .. } => "The first byte comes after the last byte.",
            UploadRefusal::RangeMismatch { .. } => "The range and the length of the file disagree.",
            UploadRefusal::RangeOverlap { .. } => "The range overlaps a range that was received.",
            UploadRefusal::RangeTooSmall { .. } => "The range is too small.",
            UploadRefusal::RangeTooLarge { .. } => "The range is too large.",
            UploadRefusal::ToByteTooHighAllowed { .. } => "The last byte is higher than allowed.",
            UploadRefusal::ToByteTooHighTotal { .. } => "The last byte lies beyond the total.",
            UploadRefusal::TotalBytesZero => "The total of bytes is zero.",
            UploadRefusal::TotalBytesTooHigh { .. } => "The total of bytes is higher than allowed.",
            UploadRefusal::TotalBytesTooLow { .. } => "The total of bytes is below what was received.",
            UploadRefusal::DifferentTotalBytes { .. } => "The total of bytes differs from the earlier one.",
            UploadRefusal::PartZero => "The part number is zero.",
            UploadRefusal::TotalPartsZero => "The total of parts is zero.",
            UploadRefusal::PartTooHighAllowed { .. } => "The part number is higher than allowed.",
            UploadRefusal::TotalPartsTooHigh { .. } => "The total of parts is higher than allowed.",
            UploadRefusal::PartTooHighTotal { .. } => "The part number is higher than the total.",
            UploadRefusal::TotalPartsTooLow { .. } => "The total of parts is below a part that was received.",
            UploadRefusal::DifferentTotalParts { .. } => "The total of parts differs from the earlier one.",
            UploadRefusal::PartAlreadySent { .. } => "The part was already sent.",
            UploadRefusal::PartTooSmall { .. } => "The part is too small.",
        }
    }

    /// Returns the numbers that explain the refusal.
    pub(super) fn detail(self) -> Option<String> {
        Some(match self {
            UploadRefusal::FileTooLarge { file_len } => {
                format!("The file has {file_len} bytes, the limit is {MAX_SINGLE_BYTES}.")
            }
            UploadRefusal::FromByteTooHigh { from, to } => {
                format!("The range goes from byte {from} to byte {to}.")
            }
            UploadRefusal::RangeMismatch { range_len, file_len } => {
                format!("The range has {range_len} bytes, the file has {file_len}.")
            }
            UploadRefusal::RangeOverlap { received } => format!(
                "Bytes {} to {} were received before.",
                received.offset(),
                received.end().saturating_sub(1)
            ),
            UploadRefusal::RangeTooSmall { range_len } => {
                format!("The range has {range_len} bytes; all but the last need {MIN_CHUNK_BYTES}.")
            }
            UploadRefusal::RangeTooLarge { range_len } => {
                format!("The range has {range_len} bytes, the limit is {MAX_CHUNK_BYTES}.")
            }
            UploadRefusal::ToByteTooHighAllowed { to } => {
                format!("The last byte is {to}, the limit is {}.", MAX_TOTAL_BYTES - 1)
            }
            UploadRefusal::ToByteTooHighTotal { to, total } => {
                format!("The last byte is {to}, the total {total}.")
            }
            UploadRefusal::TotalBytesTooHigh { total } => {
                format!("The total is {total}, the limit is {MAX_TOTAL_BYTES}.")
            }
            UploadRefusal::TotalBytesTooLow { total, received_to } => {
                format!("The total is {total}, byte {received_to} was received before.")
            }
            UploadRefusal::DifferentTotalBytes { earlier } => format!("The earlier total is {earlier}."),
            UploadRefusal::PartTooHighAllowed { number } => {
                format!("The part number is {number}, the limit is {MAX_PARTS}.")
            }
            UploadRefusal::TotalPartsTooHigh { total } => {
                format!("The total is {total}, the limit is {MAX_PARTS}.")
            }
            UploadRefusal::PartTooHighTotal { number, total } => {
                format!("The part number is {number}, the total is {total}.")
            }
            UploadRefusal::TotalPartsTooLow { total, highest } => {
                format!("The total is {total}, part {highest} was received before.")
            }
            UploadRefusal::DifferentTotalParts { earlier } => format!("The earlier total is {earlier}."),
            UploadRefusal::PartAlreadySent { number } => format!("Part {number} was received before."),
            UploadRefusal::PartTooSmall { file_len } => {
                format!("The part has {file_len} bytes; all but the last need {MIN_CHUNK_BYTES}.")
            }
            _ => return None,
        })
    }

    /// Returns the name of the refused parameter.
    pub(super) fn name(self) -> &'static str {
        let slug = self.slug();
        // The service names the field for problems of the file and of the source, and the header for the others.
        if slug.starts_with("uploaded-file") || slug.starts_with("video-source") {
            "file"
        } else {
            "Content-Range"
        }
    }
}
