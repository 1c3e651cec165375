//! Why an upload is refused: every reason, with the page that states it.

use crate::extent::Extent;
use crate::wire::limits::{MAX_CHUNK_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, MAX_TOTAL_BYTES, MIN_CHUNK_BYTES};

/// Why an upload is refused; always status 400. [`Refusal::slug`] names the page of each reason
/// below `https://docs.api.video/reference/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
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

impl Refusal {
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Refusal::NoFile => "uploaded-file-no-file",
            Refusal::MultipleFiles => "uploaded-file-multiple-files",
            Refusal::EmptyFile => "uploaded-file-empty",
            Refusal::FileTooLarge { .. } => "uploaded-file-too-large",
            Refusal::AlreadyUploaded => "video-source-already-uploaded",
            Refusal::AlreadyDownloaded => "video-source-already-downloaded",
            Refusal::AlreadyCopied => "video-source-already-copied",
            Refusal::Malformed => "video-content-range-malformed",
            Refusal::AlreadyInitiated => "video-content-range-already-initiated",
            Refusal::StartedWithBytes => "video-content-range-started-with-bytes",
            Refusal::StartedWithPart => "video-content-range-started-with-part",
            Refusal::FromByteTooHigh { .. } => "video-content-range-by-bytes-from-byte-too-high",
            Refusal::RangeMismatch { .. } => "video-content-range-by-bytes-range-mismatch",
            Refusal::RangeOverlap { .. } => "video-content-range-by-bytes-range-overlap",
            Refusal::RangeTooSmall { .. } => "video-content-range-by-bytes-range-too-small",
            Refusal::RangeTooLarge { .. } => "video-content-range-by-bytes-range-too-large",
            Refusal::ToByteTooHighAllowed { .. } => "video-content-range-by-bytes-to-byte-too-high-allowed",
            Refusal::ToByteTooHighTotal { .. } => "video-content-range-by-bytes-to-byte-too-high-total",
            Refusal::TotalBytesZero => "video-content-range-by-bytes-total-bytes-zero",
            Refusal::TotalBytesTooHigh { .. } => "video-content-range-by-bytes-total-bytes-too-high",
            Refusal::TotalBytesTooLow { .. } => "video-content-range-by-bytes-total-bytes-too-low",
            Refusal::DifferentTotalBytes { .. } => "video-content-range-by-bytes-different-total-bytes",
            Refusal::PartZero => "video-content-range-by-part-part-zero",
            Refusal::TotalPartsZero => "video-content-range-by-part-total-parts-zero",
            Refusal::PartTooHighAllowed { .. } => "video-content-range-by-part-part-too-high-allowed",
            Refusal::TotalPartsTooHigh { .. } => "video-content-range-by-part-total-parts-too-high",
            Refusal::PartTooHighTotal { .. } => "video-content-range-by-part-part-too-high-total",
            Refusal::TotalPartsTooLow { .. } => "video-content-range-by-part-total-parts-too-low",
            Refusal::DifferentTotalParts { .. } => "video-content-range-by-part-different-total-parts",
            Refusal::PartAlreadySent { .. } => "video-content-range-by-part-part-already-sent",
            Refusal::PartTooSmall { .. } => "video-content-range-by-part-uploaded-file-too-small",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Refusal::NoFile => "No file was uploaded.",
            Refusal::MultipleFiles => "More than one file was uploaded.",
            Refusal::EmptyFile => "The uploaded file is empty.",
            Refusal::FileTooLarge { .. } => "The uploaded file is too large.",
            Refusal::AlreadyUploaded => "The source of the video is already uploaded.",
            Refusal::AlreadyDownloaded => "The source of the video is already downloaded from a URL.",
            Refusal::AlreadyCopied => "The source of the video is already copied from another video.",
            Refusal::Malformed => "The Content-Range header is malformed.",
            Refusal::AlreadyInitiated => "An upload by Content-Range is already under way.",
            Refusal::StartedWithBytes => "The upload was started by byte ranges.",
            Refusal::StartedWithPart => "The upload was started by parts.",
            Refusal::FromByteTooHigh { .. } => "The first byte comes after the last byte.",
            Refusal::RangeMismatch { .. } => "The range and the length of the file disagree.",
            Refusal::RangeOverlap { .. } => "The range overlaps a range that was received.",
            Refusal::RangeTooSmall { .. } => "The range is too small.",
            Refusal::RangeTooLarge { .. } => "The range is too large.",
            Refusal::ToByteTooHighAllowed { .. } => "The last byte is higher than allowed.",
            Refusal::ToByteTooHighTotal { .. } => "The last byte lies beyond the total.",
            Refusal::TotalBytesZero => "The total of bytes is zero.",
            Refusal::TotalBytesTooHigh { .. } => "The total of bytes is higher than allowed.",
            Refusal::TotalBytesTooLow { .. } => "The total of bytes is below what was received.",
            Refusal::DifferentTotalBytes { .. } => "The total of bytes differs from the earlier one.",
            Refusal::PartZero => "The part number is zero.",
            Refusal::TotalPartsZero => "The total of parts is zero.",
            Refusal::PartTooHighAllowed { .. } => "The part number is higher than allowed.",
            Refusal::TotalPartsTooHigh { .. } => "The total of parts is higher than allowed.",
            Refusal::PartTooHighTotal { .. } => "The part number is higher than the total.",
            Refusal::TotalPartsTooLow { .. } => "The total of parts is below a part that was received.",
            Refusal::DifferentTotalParts { .. } => "The total of parts differs from the earlier one.",
            Refusal::PartAlreadySent { .. } => "The part was already sent.",
            Refusal::PartTooSmall { .. } => "The part is too small.",
        }
    }

    /// The numbers behind it.
    pub(super) fn detail(self) -> Option<String> {
        Some(match self {
            Refusal::FileTooLarge { file_len } => {
                format!("The file has {file_len} bytes, the limit is {MAX_SINGLE_BYTES}.")
            }
            Refusal::FromByteTooHigh { from, to } => format!("The range goes from byte {from} to byte {to}."),
            Refusal::RangeMismatch { range_len, file_len } => {
                format!("The range has {range_len} bytes, the file has {file_len}.")
            }
            Refusal::RangeOverlap { received } => format!(
                "Bytes {} to {} were received before.",
                received.offset(),
                received.end().saturating_sub(1)
            ),
            Refusal::RangeTooSmall { range_len } => {
                format!("The range has {range_len} bytes; all but the last need {MIN_CHUNK_BYTES}.")
            }
            Refusal::RangeTooLarge { range_len } => {
                format!("The range has {range_len} bytes, the limit is {MAX_CHUNK_BYTES}.")
            }
            Refusal::ToByteTooHighAllowed { to } => {
                format!("The last byte is {to}, the limit is {}.", MAX_TOTAL_BYTES - 1)
            }
            Refusal::ToByteTooHighTotal { to, total } => format!("The last byte is {to}, the total {total}."),
            Refusal::TotalBytesTooHigh { total } => {
                format!("The total is {total}, the limit is {MAX_TOTAL_BYTES}.")
            }
            Refusal::TotalBytesTooLow { total, received_to } => {
                format!("The total is {total}, byte {received_to} was received before.")
            }
            Refusal::DifferentTotalBytes { earlier } => format!("The earlier total is {earlier}."),
            Refusal::PartTooHighAllowed { number } => {
                format!("The part number is {number}, the limit is {MAX_PARTS}.")
            }
            Refusal::TotalPartsTooHigh { total } => {
                format!("The total is {total}, the limit is {MAX_PARTS}.")
            }
            Refusal::PartTooHighTotal { number, total } => {
                format!("The part number is {number}, the total is {total}.")
            }
            Refusal::TotalPartsTooLow { total, highest } => {
                format!("The total is {total}, part {highest} was received before.")
            }
            Refusal::DifferentTotalParts { earlier } => format!("The earlier total is {earlier}."),
            Refusal::PartAlreadySent { number } => format!("Part {number} was received before."),
            Refusal::PartTooSmall { file_len } => {
                format!("The part has {file_len} bytes; all but the last need {MIN_CHUNK_BYTES}.")
            }
            _ => return None,
        })
    }

    /// The parameter it is about.
    pub(super) fn name(self) -> &'static str {
        let slug = self.slug();
        if slug.starts_with("uploaded-file") || slug.starts_with("video-source") {
            "file"
        } else {
            "Content-Range"
        }
    }
}
