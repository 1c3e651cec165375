//! Division of a stream of unknown length into chunks.

use crate::extent::Extent;
use crate::wire::content_range::ContentRange;
use crate::wire::limits::{MAX_PARTS, MAX_TOTAL_BYTES};
use crate::wire::plan::{Addressing, PlanError, check_chunk_bytes};

/// The way the chunks of a stream of unknown length are identified on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamAddressing {
    /// `Content-Range: bytes A-B/*`, and `bytes A-B/T` once the length is known.
    ByteRange,
    /// `Content-Range: part N/*`, and `part N/N` for the last chunk.
    Part,
}

/// The division of a stream of unknown length: every chunk but the last has the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamPlan {
    chunk_bytes: u64,
    addressing: StreamAddressing,
}

impl StreamPlan {
    /// Divides a stream into chunks of `chunk_bytes`. The last chunk may be shorter, and is never empty.
    ///
    /// # Errors
    /// [`PlanError::ChunkTooSmall`] or [`PlanError::ChunkTooLarge`].
    pub const fn new(chunk_bytes: u64, addressing: StreamAddressing) -> Result<StreamPlan, PlanError> {
        match check_chunk_bytes(chunk_bytes) {
            Ok(()) => Ok(StreamPlan { chunk_bytes, addressing }),
            Err(error) => Err(error),
        }
    }

    /// Returns the length of every chunk but the last, in bytes.
    pub const fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Returns the way the chunks are identified on the wire.
    pub const fn addressing(&self) -> Addressing {
        match self.addressing {
            StreamAddressing::ByteRange => Addressing::ByteRange,
            StreamAddressing::Part => Addressing::Part,
        }
    }

    /// Returns the length in bytes of the longest stream that the plan can send.
    pub fn max_bytes(&self) -> u64 {
        match self.addressing {
            StreamAddressing::ByteRange => MAX_TOTAL_BYTES,
            // `/reference/video-content-range-by-part-part-too-high-allowed` limits parts, not bytes.
            StreamAddressing::Part => MAX_TOTAL_BYTES.min(self.chunk_bytes.saturating_mul(MAX_PARTS)),
        }
    }

    /// Checks that the service takes the chunk `extent`. `is_last` is `true` if the stream ends with the chunk.
    ///
    /// # Errors
    /// [`PlanError::StreamTooLong`], as soon as it is known: a chunk up to the limit is refused if more bytes follow.
    pub fn check(&self, extent: Extent, is_last: bool) -> Result<(), PlanError> {
        let max_bytes = self.max_bytes();
        // A chunk that ends at the limit is sent only as the last one: a following byte could not be sent.
        if extent.end() > max_bytes || (extent.end() == max_bytes && !is_last) {
            return Err(PlanError::StreamTooLong { max_bytes, chunk_bytes: self.chunk_bytes });
        }
        Ok(())
    }

    /// Returns the `Content-Range` of the chunk at `index`, counted from 0. `total` is the length of the stream in
    /// bytes; `None` while it is unknown.
    ///
    /// The last chunk always states the total: the service takes a chunk below the smallest length only as the last
    /// one, and only a total shows which one that is. Byte ranges state the total as soon as it is known, also those
    /// that are sent again: the service's error pages describe no range without one.
    pub fn content_range(&self, index: u32, extent: Extent, total: Option<u64>) -> ContentRange {
        match self.addressing {
            StreamAddressing::ByteRange => ContentRange::Bytes { extent, total },
            StreamAddressing::Part => {
                let number = index + 1;
                // Only the last part states a total, because the number of parts is unknown before.
                ContentRange::Part { number, total: (total == Some(extent.end())).then_some(number) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::limits::{MAX_CHUNK_BYTES, MIB, MIN_CHUNK_BYTES};

    const ADDRESSINGS: [StreamAddressing; 2] = [StreamAddressing::ByteRange, StreamAddressing::Part];

    /// Returns the headers of a stream of `len` bytes, each as it is when its chunk is read.
    fn headers(len: u64, chunk_bytes: u64, addressing: StreamAddressing) -> Vec<String> {
        let plan = StreamPlan::new(chunk_bytes, addressing).unwrap();
        let extents = Extent::new(0, len).blocks(chunk_bytes);
        let header = |(index, extent): (usize, Extent)| {
            let total = (extent.end() == len).then_some(len);
            plan.content_range(index as u32, extent, total).to_string()
        };
        extents.enumerate().map(header).collect()
    }

    #[test]
    fn a_stream_in_byte_ranges_states_its_length_with_the_last_chunk() {
        assert_eq!(
            headers(12 * MIB + 1, 5 * MIB, StreamAddressing::ByteRange),
            ["bytes 0-5242879/*", "bytes 5242880-10485759/*", "bytes 10485760-12582912/12582913"],
        );
        assert_eq!(
            headers(12 * MIB + 1, 5 * MIB, StreamAddressing::Part),
            ["part 1/*", "part 2/*", "part 3/3"]
        );
    }

    #[test]
    fn a_stream_that_ends_with_a_whole_chunk_has_no_empty_one() {
        assert_eq!(
            headers(10 * MIB, 5 * MIB, StreamAddressing::ByteRange),
            ["bytes 0-5242879/*", "bytes 5242880-10485759/10485760"],
        );
        assert_eq!(headers(5 * MIB, 5 * MIB, StreamAddressing::ByteRange), ["bytes 0-5242879/5242880"]);
        assert_eq!(headers(1, 5 * MIB, StreamAddressing::ByteRange), ["bytes 0-0/1"]);
        assert_eq!(headers(1, 5 * MIB, StreamAddressing::Part), ["part 1/1"]);
    }

    #[test]
    fn a_range_that_is_sent_again_states_the_length_once_it_is_known() {
        let plan = StreamPlan::new(5 * MIB, StreamAddressing::ByteRange).unwrap();
        let again = plan.content_range(0, Extent::new(0, 5 * MIB), Some(6 * MIB));
        assert_eq!(again.to_string(), "bytes 0-5242879/6291456");
        let plan = StreamPlan::new(5 * MIB, StreamAddressing::Part).unwrap();
        assert_eq!(plan.content_range(0, Extent::new(0, 5 * MIB), Some(6 * MIB)).to_string(), "part 1/*");
    }

    #[test]
    fn a_stream_is_refused_at_the_limit_of_its_chunks() {
        let max_bytes = 10_000 * 5 * MIB;
        for addressing in ADDRESSINGS {
            let plan = StreamPlan::new(5 * MIB, addressing).unwrap();
            let last = Extent::new(max_bytes - 5 * MIB, 5 * MIB);
            assert_eq!(plan.check(last, true), Ok(()));
            let refused = PlanError::StreamTooLong { max_bytes, chunk_bytes: 5 * MIB };
            assert_eq!(plan.check(last, false), Err(refused));
            assert_eq!(plan.check(Extent::new(max_bytes, 1), true), Err(refused));
        }
        assert!(StreamPlan::new(MIN_CHUNK_BYTES - 1, StreamAddressing::Part).is_err());
        assert!(StreamPlan::new(MAX_CHUNK_BYTES + 1, StreamAddressing::ByteRange).is_err());
    }

    proptest! {
        #[test]
        fn only_the_last_header_has_a_total_and_every_header_is_in_the_grammar(
            len in 1..200 * MIB,
            chunk_bytes in MIN_CHUNK_BYTES..30 * MIB,
        ) {
            for addressing in ADDRESSINGS {
                let headers = headers(len, chunk_bytes, addressing);
                prop_assert_eq!(headers.len() as u64, len.div_ceil(chunk_bytes));
                for (index, header) in headers.iter().enumerate() {
                    let is_last = index + 1 == headers.len();
                    prop_assert_eq!(header.ends_with("/*"), !is_last);
                    let (is_small, has_total) = match header.parse().unwrap() {
                        ContentRange::Bytes { extent, total } => (extent.len() < MIN_CHUNK_BYTES, total == Some(len)),
                        ContentRange::Part { number, total } => (false, total == Some(number)),
                    };
                    prop_assert!(has_total == is_last && (!is_small || has_total));
                }
            }
        }
    }
}
