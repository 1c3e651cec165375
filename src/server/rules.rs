//! What a container accepts. Pure: from what it holds and what a request says to yes or a [`Refusal`].
//!
//! The service documents each refusal but not their order. Here it is: the state of the source, the
//! header's syntax, the mode, zeros, bounds, totals, sizes, duplicates, and the body last, so that all but
//! the last can be settled before the body is read.

use std::collections::BTreeMap;

use crate::extent::Extent;
use crate::wire::limits::{MAX_CHUNK_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, MAX_TOTAL_BYTES, MIN_CHUNK_BYTES};
use crate::wire::{ContentRange, ContentRangeError};

pub(super) use super::refusal::Refusal;

/// Where a video's source comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Upload,
    Url,
    Copy,
}

impl Origin {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Origin::Upload => "upload",
            Origin::Url => "url",
            Origin::Copy => "copy",
        }
    }

    pub(super) fn from_name(name: &str) -> Origin {
        match name {
            "url" => Origin::Url,
            "copy" => Origin::Copy,
            _ => Origin::Upload,
        }
    }
}

/// What a container holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Received {
    #[default]
    Nothing,
    /// A whole file of this many bytes, in one request.
    Whole(u64),
    /// Byte ranges: the length of each by its offset.
    Bytes { pieces: BTreeMap<u64, u64>, total: Option<u64> },
    /// Parts: the length of each by its number.
    Parts { pieces: BTreeMap<u32, u64>, total: Option<u32> },
}

/// A video as far as uploading is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) origin: Origin,
    pub(super) received: Received,
}

impl Container {
    /// Whether its source is whole.
    pub(super) fn is_complete(&self) -> bool {
        match &self.received {
            Received::Nothing => self.origin != Origin::Upload,
            Received::Whole(_) => true,
            Received::Bytes { total, .. } => Some(self.received_bytes()) == *total,
            Received::Parts { pieces, total } => Some(pieces.len() as u64) == total.map(u64::from),
        }
    }

    /// How many bytes arrived so far.
    pub(super) fn received_bytes(&self) -> u64 {
        match &self.received {
            Received::Nothing => 0,
            Received::Whole(len) => *len,
            Received::Bytes { pieces, .. } => pieces.values().sum(),
            Received::Parts { pieces, .. } => pieces.values().sum(),
        }
    }

    /// Takes in what [`check_header`] and [`check_body`] let pass.
    pub(super) fn add(&mut self, range: Option<ContentRange>, file_len: u64) {
        match range {
            None => self.received = Received::Whole(file_len),
            Some(ContentRange::Bytes { extent, total }) => {
                if self.received == Received::Nothing {
                    self.received = Received::Bytes { pieces: BTreeMap::new(), total: None };
                }
                if let Received::Bytes { pieces, total: known } = &mut self.received {
                    pieces.insert(extent.offset(), file_len);
                    *known = known.or(total);
                }
            }
            Some(ContentRange::Part { number, total }) => {
                if self.received == Received::Nothing {
                    self.received = Received::Parts { pieces: BTreeMap::new(), total: None };
                }
                if let Received::Parts { pieces, total: known } = &mut self.received {
                    pieces.insert(number, file_len);
                    *known = known.or(total);
                }
            }
        }
    }
}

/// All that can be said before the body arrives; gives the header, read.
pub(super) fn check_header(
    container: &Container,
    header: Option<&str>,
) -> Result<Option<ContentRange>, Refusal> {
    check_source(container)?;
    let range = read_header(header)?;
    match (range, &container.received) {
        (None, Received::Bytes { .. } | Received::Parts { .. }) => Err(Refusal::AlreadyInitiated),
        (Some(ContentRange::Part { .. }), Received::Bytes { .. }) => Err(Refusal::StartedWithBytes),
        (Some(ContentRange::Bytes { .. }), Received::Parts { .. }) => Err(Refusal::StartedWithPart),
        (Some(ContentRange::Bytes { extent, total }), received) => check_bytes(received, extent, total),
        (Some(ContentRange::Part { number, total }), received) => check_part(received, number, total),
        (None, _) => Ok(()),
    }?;
    Ok(range)
}

/// What is left to say once the file part arrived, `file_len` bytes of it.
pub(super) fn check_body(
    container: &Container,
    range: Option<ContentRange>,
    file_len: u64,
) -> Result<(), Refusal> {
    if file_len == 0 {
        return Err(Refusal::EmptyFile);
    }
    match range {
        Some(ContentRange::Bytes { extent, .. }) if extent.len() != file_len => {
            Err(Refusal::RangeMismatch { range_len: extent.len(), file_len })
        }
        Some(ContentRange::Bytes { .. }) => Ok(()),
        Some(ContentRange::Part { .. }) if file_len > MAX_CHUNK_BYTES => {
            Err(Refusal::FileTooLarge { file_len })
        }
        Some(ContentRange::Part { number, total }) => {
            let is_last = total.or(known_parts(&container.received)) == Some(number);
            if file_len < MIN_CHUNK_BYTES && !is_last {
                return Err(Refusal::PartTooSmall { file_len });
            }
            Ok(())
        }
        None if file_len > MAX_SINGLE_BYTES => Err(Refusal::FileTooLarge { file_len }),
        None => Ok(()),
    }
}

fn check_source(container: &Container) -> Result<(), Refusal> {
    match container.origin {
        Origin::Url => Err(Refusal::AlreadyDownloaded),
        Origin::Copy => Err(Refusal::AlreadyCopied),
        Origin::Upload if container.is_complete() => Err(Refusal::AlreadyUploaded),
        Origin::Upload => Ok(()),
    }
}

fn read_header(header: Option<&str>) -> Result<Option<ContentRange>, Refusal> {
    match header.map(str::parse::<ContentRange>) {
        None => Ok(None),
        Some(Ok(range)) => Ok(Some(range)),
        Some(Err(ContentRangeError::Malformed)) => Err(Refusal::Malformed),
        Some(Err(ContentRangeError::FromByteTooHigh { from, to })) => {
            Err(Refusal::FromByteTooHigh { from, to })
        }
    }
}

fn check_bytes(received: &Received, extent: Extent, total: Option<u64>) -> Result<(), Refusal> {
    let to = extent.end() - 1;
    if total == Some(0) {
        return Err(Refusal::TotalBytesZero);
    }
    if to >= MAX_TOTAL_BYTES {
        return Err(Refusal::ToByteTooHighAllowed { to });
    }
    if let Some(total) = total.filter(|total| *total > MAX_TOTAL_BYTES) {
        return Err(Refusal::TotalBytesTooHigh { total });
    }
    check_total_bytes(received, total)?;
    let total = total.or(known_bytes(received));
    if let Some(total) = total.filter(|total| to >= *total) {
        return Err(Refusal::ToByteTooHighTotal { to, total });
    }
    if extent.len() > MAX_CHUNK_BYTES {
        return Err(Refusal::RangeTooLarge { range_len: extent.len() });
    }
    if extent.len() < MIN_CHUNK_BYTES && total != Some(extent.end()) {
        return Err(Refusal::RangeTooSmall { range_len: extent.len() });
    }
    check_overlap(received, extent)
}

fn check_total_bytes(received: &Received, total: Option<u64>) -> Result<(), Refusal> {
    let Some(total) = total else { return Ok(()) };
    if let Some(earlier) = known_bytes(received).filter(|earlier| *earlier != total) {
        return Err(Refusal::DifferentTotalBytes { earlier });
    }
    if let Received::Bytes { pieces, .. } = received
        && let Some((offset, len)) = pieces.last_key_value()
        && total < offset + len
    {
        return Err(Refusal::TotalBytesTooLow { total, received_to: offset + len - 1 });
    }
    Ok(())
}

/// Pieces never overlap, so the last one that starts before the end is the only one that can.
fn check_overlap(received: &Received, extent: Extent) -> Result<(), Refusal> {
    if let Received::Bytes { pieces, .. } = received
        && let Some((offset, len)) = pieces.range(..extent.end()).next_back()
        && extent.overlaps(Extent::new(*offset, *len))
    {
        return Err(Refusal::RangeOverlap { received: Extent::new(*offset, *len) });
    }
    Ok(())
}

fn check_part(received: &Received, number: u32, total: Option<u32>) -> Result<(), Refusal> {
    if number == 0 {
        return Err(Refusal::PartZero);
    }
    if total == Some(0) {
        return Err(Refusal::TotalPartsZero);
    }
    if u64::from(number) > MAX_PARTS {
        return Err(Refusal::PartTooHighAllowed { number });
    }
    if let Some(total) = total.filter(|total| u64::from(*total) > MAX_PARTS) {
        return Err(Refusal::TotalPartsTooHigh { total });
    }
    check_total_parts(received, total)?;
    if let Some(total) = total.or(known_parts(received)).filter(|total| number > *total) {
        return Err(Refusal::PartTooHighTotal { number, total });
    }
    match received {
        Received::Parts { pieces, .. } if pieces.contains_key(&number) => {
            Err(Refusal::PartAlreadySent { number })
        }
        _ => Ok(()),
    }
}

/// A total equal to the highest part is fine: parts may arrive in any order.
fn check_total_parts(received: &Received, total: Option<u32>) -> Result<(), Refusal> {
    let Some(total) = total else { return Ok(()) };
    if let Some(earlier) = known_parts(received).filter(|earlier| *earlier != total) {
        return Err(Refusal::DifferentTotalParts { earlier });
    }
    match received {
        Received::Parts { pieces, .. } => match pieces.last_key_value() {
            Some((highest, _)) if total < *highest => {
                Err(Refusal::TotalPartsTooLow { total, highest: *highest })
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn known_bytes(received: &Received) -> Option<u64> {
    match received {
        Received::Bytes { total, .. } => *total,
        _ => None,
    }
}

fn known_parts(received: &Received) -> Option<u32> {
    match received {
        Received::Parts { total, .. } => *total,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = MIN_CHUNK_BYTES;

    /// Offers each chunk in turn to a fresh container, with a file of the given length.
    fn offer_all(chunks: &[(&str, u64)]) -> (Container, Result<(), Refusal>) {
        let mut container = Container::default();
        for (header, len) in chunks {
            if let Err(refusal) = offer(&mut container, Some(header), *len) {
                return (container, Err(refusal));
            }
        }
        (container, Ok(()))
    }

    fn offer(container: &mut Container, header: Option<&str>, len: u64) -> Result<(), Refusal> {
        let range = check_header(container, header)?;
        check_body(container, range, len)?;
        container.add(range, len);
        Ok(())
    }

    fn refusal(chunks: &[(&str, u64)]) -> Refusal {
        offer_all(chunks).1.unwrap_err()
    }

    fn complete(chunks: &[(&str, u64)]) -> bool {
        let (container, result) = offer_all(chunks);
        assert_eq!(result, Ok(()), "{chunks:?}");
        container.is_complete()
    }

    #[test]
    fn chunks_may_come_in_any_order() {
        assert!(complete(&[
            ("bytes 10485760-10485769/10485770", 10),
            ("bytes 0-5242879/*", MIN),
            ("bytes 5242880-10485759/10485770", MIN),
        ]));
        assert!(complete(&[("part 3/*", MIN), ("part 2/*", MIN), ("part 1/3", MIN)]));
        assert!(complete(&[("part 1/*", MIN), ("part 2/2", 1)]));
    }

    #[test]
    fn one_small_chunk_is_first_and_last() {
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
    fn a_finished_container_takes_nothing_more() {
        let mut container = Container::default();
        offer(&mut container, None, 7).unwrap();
        for header in [None, Some("part 1/2"), Some("bytes 0-6/7"), Some("nonsense")] {
            assert_eq!(offer(&mut container, header, MIN), Err(Refusal::AlreadyUploaded));
        }
        assert_eq!(refusal(&[("part 1/1", MIN), ("part 1/1", MIN)]), Refusal::AlreadyUploaded);
    }

    #[test]
    fn a_video_with_another_source_takes_no_upload() {
        for (origin, expected) in
            [(Origin::Url, Refusal::AlreadyDownloaded), (Origin::Copy, Refusal::AlreadyCopied)]
        {
            let mut container = Container { origin, received: Received::Nothing };
            assert_eq!(offer(&mut container, None, 7), Err(expected));
        }
    }

    #[test]
    fn what_is_not_the_grammar_is_malformed() {
        for header in ["part%201%2F3", "bytes 0-5242879", "part 1", "", "bytes 0-1/2 "] {
            assert_eq!(refusal(&[(header, MIN)]), Refusal::Malformed, "{header:?}");
        }
    }

    #[test]
    fn a_whole_file_cannot_join_chunks() {
        let (mut container, _) = offer_all(&[("part 1/2", MIN)]);
        assert_eq!(offer(&mut container, None, 7), Err(Refusal::AlreadyInitiated));
    }

    #[test]
    fn bytes_and_parts_do_not_mix() {
        assert_eq!(refusal(&[("bytes 0-5242879/*", MIN), ("part 1/2", MIN)]), Refusal::StartedWithBytes);
        assert_eq!(refusal(&[("part 1/2", MIN), ("bytes 0-5242879/*", MIN)]), Refusal::StartedWithPart);
    }

    #[test]
    fn an_empty_file_is_refused_everywhere() {
        let mut container = Container::default();
        assert_eq!(offer(&mut container, None, 0), Err(Refusal::EmptyFile));
        assert_eq!(refusal(&[("part 1/1", 0)]), Refusal::EmptyFile);
        assert_eq!(refusal(&[("bytes 0-0/1", 0)]), Refusal::EmptyFile);
    }

    #[test]
    fn two_hundred_mib_of_file_fit_and_one_byte_more_does_not() {
        let file_len = MAX_SINGLE_BYTES + 1;
        let mut container = Container::default();
        assert_eq!(offer(&mut container, None, file_len), Err(Refusal::FileTooLarge { file_len }));
        assert_eq!(offer(&mut container, None, MAX_SINGLE_BYTES), Ok(()));
        assert_eq!(refusal(&[("part 1/2", file_len)]), Refusal::FileTooLarge { file_len });
        assert!(!complete(&[("part 1/2", MAX_CHUNK_BYTES)]));
    }

    #[test]
    fn byte_ranges_are_checked() {
        for (chunks, expected) in [
            (&[("bytes 2-1/9", 1)][..], Refusal::FromByteTooHigh { from: 2, to: 1 }),
            (&[("bytes 0-8/9", 8)], Refusal::RangeMismatch { range_len: 9, file_len: 8 }),
            (
                &[("bytes 0-5242879/*", MIN), ("bytes 5242879-10485759/*", MIN)],
                Refusal::RangeOverlap { received: Extent::new(0, MIN) },
            ),
            (
                &[("bytes 0-5242879/*", MIN), ("bytes 0-5242879/*", MIN)],
                Refusal::RangeOverlap { received: Extent::new(0, MIN) },
            ),
            (
                &[("bytes 5242880-10485759/*", MIN), ("bytes 0-20971519/*", 4 * MIN)],
                Refusal::RangeOverlap { received: Extent::new(MIN, MIN) },
            ),
            (&[("bytes 0-5242878/*", MIN - 1)], Refusal::RangeTooSmall { range_len: MIN - 1 }),
            (&[("bytes 0-8/10", 9)], Refusal::RangeTooSmall { range_len: 9 }),
            (&[("bytes 0-209715200/*", 1)], Refusal::RangeTooLarge { range_len: MAX_CHUNK_BYTES + 1 }),
            (
                &[("bytes 52428799999-52428800000/*", 2)],
                Refusal::ToByteTooHighAllowed { to: MAX_TOTAL_BYTES },
            ),
            (&[("bytes 0-9/9", 10)], Refusal::ToByteTooHighTotal { to: 9, total: 9 }),
            (
                &[("bytes 0-5242879/5242889", MIN), ("bytes 5242880-5242889/*", 10)],
                Refusal::ToByteTooHighTotal { to: 5_242_889, total: 5_242_889 },
            ),
            (&[("bytes 0-0/0", 1)], Refusal::TotalBytesZero),
            (
                &[("bytes 0-5242879/52428800001", MIN)],
                Refusal::TotalBytesTooHigh { total: MAX_TOTAL_BYTES + 1 },
            ),
            (
                &[("bytes 5242880-10485759/*", MIN), ("bytes 0-5242878/10485759", MIN)],
                Refusal::TotalBytesTooLow { total: 10_485_759, received_to: 10_485_759 },
            ),
            (
                &[("bytes 0-5242879/10485760", MIN), ("bytes 5242880-10485759/10485761", MIN)],
                Refusal::DifferentTotalBytes { earlier: 10_485_760 },
            ),
        ] {
            assert_eq!(refusal(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn the_largest_upload_is_exactly_within_bounds() {
        assert!(!complete(&[("bytes 52428799999-52428799999/52428800000", 1)]));
        assert!(!complete(&[("part 10000/10000", 1)]));
    }

    #[test]
    fn parts_are_checked() {
        for (chunks, expected) in [
            (&[("part 0/3", MIN)][..], Refusal::PartZero),
            (&[("part 1/0", MIN)], Refusal::TotalPartsZero),
            (&[("part 10001/*", MIN)], Refusal::PartTooHighAllowed { number: 10_001 }),
            (&[("part 1/10001", MIN)], Refusal::TotalPartsTooHigh { total: 10_001 }),
            (&[("part 3/2", MIN)], Refusal::PartTooHighTotal { number: 3, total: 2 }),
            (&[("part 1/2", MIN), ("part 3/*", MIN)], Refusal::PartTooHighTotal { number: 3, total: 2 }),
            (&[("part 3/*", MIN), ("part 1/2", MIN)], Refusal::TotalPartsTooLow { total: 2, highest: 3 }),
            (&[("part 1/3", MIN), ("part 2/4", MIN)], Refusal::DifferentTotalParts { earlier: 3 }),
            (&[("part 1/3", MIN), ("part 1/3", MIN)], Refusal::PartAlreadySent { number: 1 }),
            (&[("part 1/3", MIN - 1)], Refusal::PartTooSmall { file_len: MIN - 1 }),
            (&[("part 3/*", 9)], Refusal::PartTooSmall { file_len: 9 }),
        ] {
            assert_eq!(refusal(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_total_stated_before_allows_a_small_last_chunk_without_one() {
        assert!(complete(&[("part 1/2", MIN), ("part 2/*", 9)]));
        assert!(complete(&[("bytes 0-5242879/5242889", MIN), ("bytes 5242880-5242888/*", 9)]));
    }

    #[test]
    fn every_refusal_is_worded() {
        let refusal = Refusal::RangeMismatch { range_len: 9, file_len: 8 };
        assert_eq!(refusal.slug(), "video-content-range-by-bytes-range-mismatch");
        assert_eq!(refusal.detail().unwrap(), "The range has 9 bytes, the file has 8.");
        assert_eq!((refusal.name(), Refusal::NoFile.name()), ("Content-Range", "file"));
    }
}
