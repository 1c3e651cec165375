//! The rules for accepting a chunk. Pure functions of the upload's state and the request.
//!
//! The service documents each refusal but not their order. The order here: the state of the source, the
//! header's syntax, the mode, zeros, bounds, totals, sizes, duplicates, and the body last. All checks but the
//! last can therefore run before the body is read.

use std::collections::BTreeMap;

use crate::extent::Extent;
use crate::wire::ContentRange;
use crate::wire::content_range::ContentRangeError;
use crate::wire::limits::{MAX_CHUNK_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, MAX_TOTAL_BYTES, MIN_CHUNK_BYTES};

pub(super) use super::refusal::UploadRefusal;

/// The origin of a video's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SourceOrigin {
    #[default]
    Upload,
    Url,
    Copy,
}

impl SourceOrigin {
    pub(super) const fn name(self) -> &'static str {
        match self {
            SourceOrigin::Upload => "upload",
            SourceOrigin::Url => "url",
            SourceOrigin::Copy => "copy",
        }
    }

    pub(super) fn from_name(name: &str) -> SourceOrigin {
        match name {
            "url" => SourceOrigin::Url,
            "copy" => SourceOrigin::Copy,
            _ => SourceOrigin::Upload,
        }
    }
}

/// The chunks that a video has received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ReceivedChunks {
    #[default]
    Nothing,
    /// A whole file of this length in bytes, sent in one request.
    Whole(u64),
    /// Byte ranges: the length of each chunk by its offset.
    Bytes { chunks: BTreeMap<u64, u64>, total: Option<u64> },
    /// Parts: the length of each chunk by its number.
    Parts { chunks: BTreeMap<u32, u64>, total: Option<u32> },
}

/// The state of a video's upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UploadState {
    pub(super) origin: SourceOrigin,
    pub(super) received: ReceivedChunks,
}

impl UploadState {
    /// Returns `true` if the whole file was received.
    pub(super) fn is_complete(&self) -> bool {
        match &self.received {
            // A source that was given as a URL or as another video needs no bytes of the client.
            ReceivedChunks::Nothing => self.origin != SourceOrigin::Upload,
            ReceivedChunks::Whole(_) => true,
            ReceivedChunks::Bytes { total, .. } => Some(self.received_bytes()) == *total,
            // Numbers are distinct and at most the total, so that their count is enough.
            ReceivedChunks::Parts { chunks, total } => Some(chunks.len() as u64) == total.map(u64::from),
        }
    }

    /// Returns the number of bytes received.
    pub(super) fn received_bytes(&self) -> u64 {
        match &self.received {
            ReceivedChunks::Nothing => 0,
            ReceivedChunks::Whole(len) => *len,
            ReceivedChunks::Bytes { chunks, .. } => chunks.values().sum(),
            ReceivedChunks::Parts { chunks, .. } => chunks.values().sum(),
        }
    }

    /// Adds a chunk that [`check_header`] and [`check_body`] accepted.
    pub(super) fn add(&mut self, range: Option<ContentRange>, file_len: u64) {
        match range {
            None => self.received = ReceivedChunks::Whole(file_len),
            Some(ContentRange::Bytes { extent, total }) => {
                if self.received == ReceivedChunks::Nothing {
                    self.received = ReceivedChunks::Bytes { chunks: BTreeMap::new(), total: None };
                }
                if let ReceivedChunks::Bytes { chunks, total: known } = &mut self.received {
                    chunks.insert(extent.offset(), file_len);
                    // The first total stays: `check_total_bytes` has refused any other.
                    *known = known.or(total);
                }
            }
            Some(ContentRange::Part { number, total }) => {
                if self.received == ReceivedChunks::Nothing {
                    self.received = ReceivedChunks::Parts { chunks: BTreeMap::new(), total: None };
                }
                if let ReceivedChunks::Parts { chunks, total: known } = &mut self.received {
                    chunks.insert(number, file_len);
                    // The first total stays: `check_total_parts` has refused any other.
                    *known = known.or(total);
                }
            }
        }
    }
}

/// Runs the checks that do not depend on the body, and returns the parsed header.
pub(super) fn check_header(
    upload: &UploadState,
    header: Option<&str>,
) -> Result<Option<ContentRange>, UploadRefusal> {
    check_source(upload)?;
    let range = read_header(header)?;
    match (range, &upload.received) {
        (None, ReceivedChunks::Bytes { .. } | ReceivedChunks::Parts { .. }) => {
            Err(UploadRefusal::AlreadyInitiated)
        }
        (Some(ContentRange::Part { .. }), ReceivedChunks::Bytes { .. }) => {
            Err(UploadRefusal::StartedWithBytes)
        }
        (Some(ContentRange::Bytes { .. }), ReceivedChunks::Parts { .. }) => {
            Err(UploadRefusal::StartedWithPart)
        }
        (Some(ContentRange::Bytes { extent, total }), received) => check_bytes(received, extent, total),
        (Some(ContentRange::Part { number, total }), received) => check_part(received, number, total),
        (None, _) => Ok(()),
    }?;
    Ok(range)
}

/// Checks the header of an upload with an upload token, before the video is known.
///
/// The service's description of this route has no range of unknown total (`^bytes [0-9]*-[0-9]*\/[0-9]*$`). Its clients
/// send parts of an unknown number, which are accepted.
pub(super) fn check_delegated_header(header: Option<&str>) -> Result<(), UploadRefusal> {
    match read_header(header)? {
        Some(ContentRange::Bytes { total: None, .. }) => Err(UploadRefusal::Malformed),
        _ => Ok(()),
    }
}

/// Runs the remaining checks after a file of `file_len` bytes arrived.
pub(super) fn check_body(
    upload: &UploadState,
    range: Option<ContentRange>,
    file_len: u64,
) -> Result<(), UploadRefusal> {
    if file_len == 0 {
        return Err(UploadRefusal::EmptyFile);
    }
    match range {
        Some(ContentRange::Bytes { extent, .. }) if extent.len() != file_len => {
            Err(UploadRefusal::RangeMismatch { range_len: extent.len(), file_len })
        }
        Some(ContentRange::Bytes { .. }) => Ok(()),
        // The header of a part states no length: only the body shows its size.
        Some(ContentRange::Part { .. }) if file_len > MAX_CHUNK_BYTES => {
            Err(UploadRefusal::FileTooLarge { file_len })
        }
        Some(ContentRange::Part { number, total }) => {
            // The total may be unknown (`*`); then no chunk counts as the last one.
            let is_last = total.or(known_parts(&upload.received)) == Some(number);
            if file_len < MIN_CHUNK_BYTES && !is_last {
                return Err(UploadRefusal::PartTooSmall { file_len });
            }
            Ok(())
        }
        None if file_len > MAX_SINGLE_BYTES => Err(UploadRefusal::FileTooLarge { file_len }),
        None => Ok(()),
    }
}

fn check_source(upload: &UploadState) -> Result<(), UploadRefusal> {
    match upload.origin {
        SourceOrigin::Url => Err(UploadRefusal::AlreadyDownloaded),
        SourceOrigin::Copy => Err(UploadRefusal::AlreadyCopied),
        SourceOrigin::Upload if upload.is_complete() => Err(UploadRefusal::AlreadyUploaded),
        SourceOrigin::Upload => Ok(()),
    }
}

fn read_header(header: Option<&str>) -> Result<Option<ContentRange>, UploadRefusal> {
    match header.map(str::parse::<ContentRange>) {
        None => Ok(None),
        Some(Ok(range)) => Ok(Some(range)),
        Some(Err(ContentRangeError::Malformed)) => Err(UploadRefusal::Malformed),
        Some(Err(ContentRangeError::FromByteTooHigh { from, to })) => {
            Err(UploadRefusal::FromByteTooHigh { from, to })
        }
    }
}

fn check_bytes(received: &ReceivedChunks, extent: Extent, total: Option<u64>) -> Result<(), UploadRefusal> {
    // The wire's last byte is inclusive.
    let to = extent.end() - 1;
    if total == Some(0) {
        return Err(UploadRefusal::TotalBytesZero);
    }
    // `/reference/video-content-range-by-bytes-to-byte-too-high-allowed`: the last byte is 52,428,799,999.
    if to >= MAX_TOTAL_BYTES {
        return Err(UploadRefusal::ToByteTooHighAllowed { to });
    }
    if let Some(total) = total.filter(|total| *total > MAX_TOTAL_BYTES) {
        return Err(UploadRefusal::TotalBytesTooHigh { total });
    }
    check_total_bytes(received, total)?;
    let total = total.or(known_bytes(received));
    if let Some(total) = total.filter(|total| to >= *total) {
        return Err(UploadRefusal::ToByteTooHighTotal { to, total });
    }
    if extent.len() > MAX_CHUNK_BYTES {
        return Err(UploadRefusal::RangeTooLarge { range_len: extent.len() });
    }
    // Only the last chunk may be smaller, and only a known total identifies the last chunk.
    if extent.len() < MIN_CHUNK_BYTES && total != Some(extent.end()) {
        return Err(UploadRefusal::RangeTooSmall { range_len: extent.len() });
    }
    check_overlap(received, extent)
}

fn check_total_bytes(received: &ReceivedChunks, total: Option<u64>) -> Result<(), UploadRefusal> {
    let Some(total) = total else { return Ok(()) };
    if let Some(earlier) = known_bytes(received).filter(|earlier| *earlier != total) {
        return Err(UploadRefusal::DifferentTotalBytes { earlier });
    }
    if let ReceivedChunks::Bytes { chunks, .. } = received
        && let Some((offset, len)) = chunks.last_key_value()
        && total < offset + len
    {
        return Err(UploadRefusal::TotalBytesTooLow { total, received_to: offset + len - 1 });
    }
    Ok(())
}

/// Checks that `extent` overlaps no received chunk.
///
/// Received chunks do not overlap each other, so only the last one that starts before the end can
/// overlap `extent`.
fn check_overlap(received: &ReceivedChunks, extent: Extent) -> Result<(), UploadRefusal> {
    if let ReceivedChunks::Bytes { chunks, .. } = received
        && let Some((offset, len)) = chunks.range(..extent.end()).next_back()
        && extent.overlaps(Extent::new(*offset, *len))
    {
        return Err(UploadRefusal::RangeOverlap { received: Extent::new(*offset, *len) });
    }
    Ok(())
}

fn check_part(received: &ReceivedChunks, number: u32, total: Option<u32>) -> Result<(), UploadRefusal> {
    if number == 0 {
        return Err(UploadRefusal::PartZero);
    }
    if total == Some(0) {
        return Err(UploadRefusal::TotalPartsZero);
    }
    if u64::from(number) > MAX_PARTS {
        return Err(UploadRefusal::PartTooHighAllowed { number });
    }
    if let Some(total) = total.filter(|total| u64::from(*total) > MAX_PARTS) {
        return Err(UploadRefusal::TotalPartsTooHigh { total });
    }
    check_total_parts(received, total)?;
    if let Some(total) = total.or(known_parts(received)).filter(|total| number > *total) {
        return Err(UploadRefusal::PartTooHighTotal { number, total });
    }
    match received {
        ReceivedChunks::Parts { chunks, .. } if chunks.contains_key(&number) => {
            Err(UploadRefusal::PartAlreadySent { number })
        }
        _ => Ok(()),
    }
}

/// Checks the stated number of parts. A total equal to the highest received part is valid, because parts may
/// arrive in any order.
fn check_total_parts(received: &ReceivedChunks, total: Option<u32>) -> Result<(), UploadRefusal> {
    let Some(total) = total else { return Ok(()) };
    if let Some(earlier) = known_parts(received).filter(|earlier| *earlier != total) {
        return Err(UploadRefusal::DifferentTotalParts { earlier });
    }
    match received {
        ReceivedChunks::Parts { chunks, .. } => match chunks.last_key_value() {
            Some((highest, _)) if total < *highest => {
                Err(UploadRefusal::TotalPartsTooLow { total, highest: *highest })
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn known_bytes(received: &ReceivedChunks) -> Option<u64> {
    match received {
        ReceivedChunks::Bytes { total, .. } => *total,
        _ => None,
    }
}

fn known_parts(received: &ReceivedChunks) -> Option<u32> {
    match received {
        ReceivedChunks::Parts { total, .. } => *total,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = MIN_CHUNK_BYTES;

    /// Offers each chunk in turn to a new upload, with a file of the given length.
    fn offer_all(chunks: &[(&str, u64)]) -> (UploadState, Result<(), UploadRefusal>) {
        let mut upload = UploadState::default();
        for (header, len) in chunks {
            if let Err(refusal) = offer(&mut upload, Some(header), *len) {
                return (upload, Err(refusal));
            }
        }
        (upload, Ok(()))
    }

    fn offer(upload: &mut UploadState, header: Option<&str>, len: u64) -> Result<(), UploadRefusal> {
        let range = check_header(upload, header)?;
        check_body(upload, range, len)?;
        upload.add(range, len);
        Ok(())
    }

    fn refusal(chunks: &[(&str, u64)]) -> UploadRefusal {
        offer_all(chunks).1.unwrap_err()
    }

    fn complete(chunks: &[(&str, u64)]) -> bool {
        let (upload, result) = offer_all(chunks);
        assert_eq!(result, Ok(()), "{chunks:?}");
        upload.is_complete()
    }

    #[test]
    fn chunks_may_arrive_in_any_order() {
        assert!(complete(&[
            ("bytes 10485760-10485769/10485770", 10),
            ("bytes 0-5242879/*", MIN),
            ("bytes 5242880-10485759/10485770", MIN),
        ]));
        assert!(complete(&[("part 3/*", MIN), ("part 2/*", MIN), ("part 1/3", MIN)]));
        assert!(complete(&[("part 1/*", MIN), ("part 2/2", 1)]));
    }

    #[test]
    fn a_single_small_chunk_is_accepted() {
        assert!(complete(&[("part 1/1", 1)]));
        assert!(complete(&[("bytes 0-0/1", 1)]));
    }

    #[test]
    fn an_unfinished_set_is_not_complete() {
        assert!(!complete(&[("part 1/*", MIN), ("part 2/*", MIN)]));
        assert!(!complete(&[("part 2/2", MIN)]));
        assert!(!complete(&[("bytes 0-5242879/*", MIN)]));
        assert!(!complete(&[("bytes 0-5242879/5242881", MIN)]));
    }

    #[test]
    fn a_complete_upload_accepts_no_more_chunks() {
        let mut upload = UploadState::default();
        offer(&mut upload, None, 7).unwrap();
        for header in [None, Some("part 1/2"), Some("bytes 0-6/7"), Some("nonsense")] {
            assert_eq!(offer(&mut upload, header, MIN), Err(UploadRefusal::AlreadyUploaded));
        }
        assert_eq!(refusal(&[("part 1/1", MIN), ("part 1/1", MIN)]), UploadRefusal::AlreadyUploaded);
    }

    #[test]
    fn a_video_with_another_source_accepts_no_upload() {
        for (origin, expected) in [
            (SourceOrigin::Url, UploadRefusal::AlreadyDownloaded),
            (SourceOrigin::Copy, UploadRefusal::AlreadyCopied),
        ] {
            let mut upload = UploadState { origin, received: ReceivedChunks::Nothing };
            assert_eq!(offer(&mut upload, None, 7), Err(expected));
        }
    }

    #[test]
    fn a_header_outside_the_grammar_is_malformed() {
        for header in ["part%201%2F3", "bytes 0-5242879", "part 1", "", "bytes 0-1/2 "] {
            assert_eq!(refusal(&[(header, MIN)]), UploadRefusal::Malformed, "{header:?}");
        }
    }

    #[test]
    fn a_whole_file_is_refused_after_a_chunk() {
        let (mut upload, _) = offer_all(&[("part 1/2", MIN)]);
        assert_eq!(offer(&mut upload, None, 7), Err(UploadRefusal::AlreadyInitiated));
    }

    #[test]
    fn bytes_and_parts_cannot_be_mixed() {
        assert_eq!(
            refusal(&[("bytes 0-5242879/*", MIN), ("part 1/2", MIN)]),
            UploadRefusal::StartedWithBytes
        );
        assert_eq!(refusal(&[("part 1/2", MIN), ("bytes 0-5242879/*", MIN)]), UploadRefusal::StartedWithPart);
    }

    #[test]
    fn an_empty_file_is_refused_in_every_mode() {
        let mut upload = UploadState::default();
        assert_eq!(offer(&mut upload, None, 0), Err(UploadRefusal::EmptyFile));
        assert_eq!(refusal(&[("part 1/1", 0)]), UploadRefusal::EmptyFile);
        assert_eq!(refusal(&[("bytes 0-0/1", 0)]), UploadRefusal::EmptyFile);
    }

    #[test]
    fn a_file_of_200_mib_is_accepted_and_one_more_byte_is_refused() {
        let file_len = MAX_SINGLE_BYTES + 1;
        let mut upload = UploadState::default();
        assert_eq!(offer(&mut upload, None, file_len), Err(UploadRefusal::FileTooLarge { file_len }));
        assert_eq!(offer(&mut upload, None, MAX_SINGLE_BYTES), Ok(()));
        assert_eq!(refusal(&[("part 1/2", file_len)]), UploadRefusal::FileTooLarge { file_len });
        assert!(!complete(&[("part 1/2", MAX_CHUNK_BYTES)]));
    }

    #[test]
    fn byte_ranges_are_checked() {
        for (chunks, expected) in [
            (&[("bytes 2-1/9", 1)][..], UploadRefusal::FromByteTooHigh { from: 2, to: 1 }),
            (&[("bytes 0-8/9", 8)], UploadRefusal::RangeMismatch { range_len: 9, file_len: 8 }),
            (
                &[("bytes 0-5242879/*", MIN), ("bytes 5242879-10485759/*", MIN)],
                UploadRefusal::RangeOverlap { received: Extent::new(0, MIN) },
            ),
            (
                &[("bytes 0-5242879/*", MIN), ("bytes 0-5242879/*", MIN)],
                UploadRefusal::RangeOverlap { received: Extent::new(0, MIN) },
            ),
            (
                &[("bytes 5242880-10485759/*", MIN), ("bytes 0-20971519/*", 4 * MIN)],
                UploadRefusal::RangeOverlap { received: Extent::new(MIN, MIN) },
            ),
            (&[("bytes 0-5242878/*", MIN - 1)], UploadRefusal::RangeTooSmall { range_len: MIN - 1 }),
            (&[("bytes 0-8/10", 9)], UploadRefusal::RangeTooSmall { range_len: 9 }),
            (&[("bytes 0-209715200/*", 1)], UploadRefusal::RangeTooLarge { range_len: MAX_CHUNK_BYTES + 1 }),
            (
                &[("bytes 52428799999-52428800000/*", 2)],
                UploadRefusal::ToByteTooHighAllowed { to: MAX_TOTAL_BYTES },
            ),
            (&[("bytes 0-9/9", 10)], UploadRefusal::ToByteTooHighTotal { to: 9, total: 9 }),
            (
                &[("bytes 0-5242879/5242889", MIN), ("bytes 5242880-5242889/*", 10)],
                UploadRefusal::ToByteTooHighTotal { to: 5_242_889, total: 5_242_889 },
            ),
            (&[("bytes 0-0/0", 1)], UploadRefusal::TotalBytesZero),
            (
                &[("bytes 0-5242879/52428800001", MIN)],
                UploadRefusal::TotalBytesTooHigh { total: MAX_TOTAL_BYTES + 1 },
            ),
            (
                &[("bytes 5242880-10485759/*", MIN), ("bytes 0-5242878/10485759", MIN)],
                UploadRefusal::TotalBytesTooLow { total: 10_485_759, received_to: 10_485_759 },
            ),
            (
                &[("bytes 0-5242879/10485760", MIN), ("bytes 5242880-10485759/10485761", MIN)],
                UploadRefusal::DifferentTotalBytes { earlier: 10_485_760 },
            ),
        ] {
            assert_eq!(refusal(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn the_largest_upload_is_accepted() {
        assert!(!complete(&[("bytes 52428799999-52428799999/52428800000", 1)]));
        assert!(!complete(&[("part 10000/10000", 1)]));
    }

    #[test]
    fn parts_are_checked() {
        for (chunks, expected) in [
            (&[("part 0/3", MIN)][..], UploadRefusal::PartZero),
            (&[("part 1/0", MIN)], UploadRefusal::TotalPartsZero),
            (&[("part 10001/*", MIN)], UploadRefusal::PartTooHighAllowed { number: 10_001 }),
            (&[("part 1/10001", MIN)], UploadRefusal::TotalPartsTooHigh { total: 10_001 }),
            (&[("part 3/2", MIN)], UploadRefusal::PartTooHighTotal { number: 3, total: 2 }),
            (
                &[("part 1/2", MIN), ("part 3/*", MIN)],
                UploadRefusal::PartTooHighTotal { number: 3, total: 2 },
            ),
            (
                &[("part 3/*", MIN), ("part 1/2", MIN)],
                UploadRefusal::TotalPartsTooLow { total: 2, highest: 3 },
            ),
            (&[("part 1/3", MIN), ("part 2/4", MIN)], UploadRefusal::DifferentTotalParts { earlier: 3 }),
            (&[("part 1/3", MIN), ("part 1/3", MIN)], UploadRefusal::PartAlreadySent { number: 1 }),
            (&[("part 1/3", MIN - 1)], UploadRefusal::PartTooSmall { file_len: MIN - 1 }),
            (&[("part 3/*", 9)], UploadRefusal::PartTooSmall { file_len: 9 }),
        ] {
            assert_eq!(refusal(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn an_upload_token_takes_parts_of_an_unknown_number_and_no_range_of_an_unknown_length() {
        for header in [None, Some("part 1/*"), Some("part 1/1"), Some("bytes 0-5242879/5242880")] {
            assert_eq!(check_delegated_header(header), Ok(()));
        }
        assert_eq!(check_delegated_header(Some("bytes 0-5242879/*")), Err(UploadRefusal::Malformed));
    }

    #[test]
    fn a_range_without_total_is_accepted_after_the_total_is_known() {
        assert!(complete(&[("bytes 5242880-5242888/5242889", 9), ("bytes 0-5242879/*", MIN)]));
        assert!(complete(&[("bytes 0-5242879/*", MIN), ("bytes 5242880-10485759/10485760", MIN)]));
        assert!(!complete(&[("bytes 0-5242879/*", MIN), ("bytes 5242880-10485759/*", MIN)]));
    }

    #[test]
    fn an_earlier_total_allows_a_small_last_chunk_without_total() {
        assert!(complete(&[("part 1/2", MIN), ("part 2/*", 9)]));
        assert!(complete(&[("bytes 0-5242879/5242889", MIN), ("bytes 5242880-5242888/*", 9)]));
    }

    #[test]
    fn a_refusal_has_a_slug_a_detail_and_a_name() {
        let refusal = UploadRefusal::RangeMismatch { range_len: 9, file_len: 8 };
        assert_eq!(refusal.slug(), "video-content-range-by-bytes-range-mismatch");
        assert_eq!(refusal.detail().unwrap(), "The range has 9 bytes, the file has 8.");
        assert_eq!((refusal.name(), UploadRefusal::NoFile.name()), ("Content-Range", "file"));
    }
}
