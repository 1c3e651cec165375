//! Division of a file into chunks.
//!
//! A plan is two numbers and an addressing. Chunks are computed by index, so a plan of ten thousand chunks
//! takes no more memory than a plan of one, and chunks can be sent in any order.

use serde::{Deserialize, Serialize};

use crate::extent::Extent;
use crate::wire::content_range::ContentRange;
use crate::wire::limits::{
    MAX_CHUNK_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, MAX_TOTAL_BYTES, MIB, MIN_CHUNK_BYTES,
};

/// The way a chunk is identified on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    /// The whole file in one request, without `Content-Range`.
    Single,
    /// `Content-Range: bytes A-B/T`.
    ByteRange,
    /// `Content-Range: part N/M`.
    Part,
}

/// A piece of the file that travels in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// The position among the chunks, counted from 0.
    pub index: u32,
    /// The bytes of the file; never empty.
    pub extent: Extent,
}

/// The division of a file of known length into chunks, and their addressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    len: u64,
    chunk_bytes: u64,
    addressing: Addressing,
}

/// The reason why a file cannot be sent. Nothing has been sent or created when it is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The file is empty, which the service refuses.
    #[error("the file is empty, and the service accepts no empty files")]
    Empty,
    /// The file is longer than [`MAX_TOTAL_BYTES`].
    #[error("the file has {len} bytes, over the protocol's limit of {MAX_TOTAL_BYTES} bytes")]
    TooLong {
        /// The file's length in bytes.
        len: u64,
    },
    /// The file is longer than [`MAX_SINGLE_BYTES`], the limit of one request.
    #[error("the file has {len} bytes, over the limit of {MAX_SINGLE_BYTES} bytes for one request")]
    TooLongForOneRequest {
        /// The file's length in bytes.
        len: u64,
    },
    /// The chunk size is below [`MIN_CHUNK_BYTES`].
    #[error("a chunk size of {chunk_bytes} bytes is below the limit of {MIN_CHUNK_BYTES} bytes (5 MiB)")]
    ChunkTooSmall {
        /// The requested chunk size in bytes.
        chunk_bytes: u64,
    },
    /// The chunk size is over [`MAX_CHUNK_BYTES`].
    #[error("a chunk size of {chunk_bytes} bytes is over the limit of {MAX_CHUNK_BYTES} bytes (200 MiB)")]
    ChunkTooLarge {
        /// The requested chunk size in bytes.
        chunk_bytes: u64,
    },
    /// There would be more than [`MAX_PARTS`] chunks.
    #[error(
        "{len} bytes in chunks of {chunk_bytes} bytes make {chunks} chunks, over the limit of {MAX_PARTS}: \
         a chunk size of {least_mib} MiB or more fits"
    )]
    TooManyChunks {
        /// The file's length in bytes.
        len: u64,
        /// The requested chunk size in bytes.
        chunk_bytes: u64,
        /// The resulting number of chunks.
        chunks: u64,
        /// The smallest chunk size that fits, in whole MiB.
        least_mib: u64,
    },
    /// A stream went on past the last byte that its chunks may carry.
    #[error(
        "the stream has more than {max_bytes} bytes, the most that the service takes in chunks of {chunk_bytes} bytes"
    )]
    StreamTooLong {
        /// The most bytes that such a stream may have.
        max_bytes: u64,
        /// The chunk size in bytes.
        chunk_bytes: u64,
    },
}

impl Plan {
    /// Divides a file of `len` bytes into chunks of `chunk_bytes`. The last chunk may be shorter.
    ///
    /// [`Addressing::Single`] ignores the chunk size.
    ///
    /// # Errors
    /// If the file or the chunk size is outside the limits of [`limits`](crate::wire::limits).
    pub fn new(len: u64, chunk_bytes: u64, addressing: Addressing) -> Result<Plan, PlanError> {
        // Refused here, so that no container is created for a file that the service would refuse afterwards.
        if len == 0 {
            return Err(PlanError::Empty);
        }
        if len > MAX_TOTAL_BYTES {
            return Err(PlanError::TooLong { len });
        }
        if addressing == Addressing::Single {
            if len > MAX_SINGLE_BYTES {
                return Err(PlanError::TooLongForOneRequest { len });
            }
            return Ok(Plan { len, chunk_bytes: len, addressing });
        }
        // `Single` has returned before: one request may be smaller than the smallest chunk.
        check_chunk_bytes(chunk_bytes)?;
        let chunks = len.div_ceil(chunk_bytes);
        if chunks > MAX_PARTS {
            // Rounded up twice, so that the suggested size is a whole number of MiB that fits.
            let least_mib = len.div_ceil(MAX_PARTS).div_ceil(MIB);
            return Err(PlanError::TooManyChunks { len, chunk_bytes, chunks, least_mib });
        }
        Ok(Plan { len, chunk_bytes, addressing })
    }

    /// Returns the file's length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns `false`: no plan is empty.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Returns the length of every chunk but the last, in bytes.
    pub const fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Returns the way the chunks are identified on the wire.
    pub const fn addressing(&self) -> Addressing {
        self.addressing
    }

    /// Returns the number of chunks, 1 to [`MAX_PARTS`].
    pub const fn chunks(&self) -> u32 {
        // `new` bounds the quotient by `MAX_PARTS`, so it fits.
        self.len.div_ceil(self.chunk_bytes) as u32
    }

    /// Returns the chunk at `index`, counted from 0.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub const fn chunk(&self, index: u32) -> Chunk {
        assert!(index < self.chunks(), "the plan has no such chunk");
        let offset = index as u64 * self.chunk_bytes;
        Chunk { index, extent: Extent::new(offset, self.len - offset).take(self.chunk_bytes) }
    }

    /// Returns the `Content-Range` of the chunk at `index`; `None` for a single request.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub const fn content_range(&self, index: u32) -> Option<ContentRange> {
        let chunk = self.chunk(index);
        match self.addressing {
            Addressing::Single => None,
            Addressing::ByteRange => {
                Some(ContentRange::Bytes { extent: chunk.extent, total: Some(self.len) })
            }
            Addressing::Part => Some(ContentRange::Part { number: index + 1, total: Some(self.chunks()) }),
        }
    }
}

/// Checks that the service takes chunks of this size.
///
/// # Errors
/// [`PlanError::ChunkTooSmall`] or [`PlanError::ChunkTooLarge`].
pub(crate) const fn check_chunk_bytes(chunk_bytes: u64) -> Result<(), PlanError> {
    if chunk_bytes < MIN_CHUNK_BYTES {
        return Err(PlanError::ChunkTooSmall { chunk_bytes });
    }
    if chunk_bytes > MAX_CHUNK_BYTES {
        return Err(PlanError::ChunkTooLarge { chunk_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_guide_is_cut_as_in_the_guide() {
        let plan = Plan::new(281_905_832, 100 * MIB, Addressing::ByteRange).unwrap();
        let headers: Vec<String> =
            (0..plan.chunks()).map(|i| plan.content_range(i).unwrap().to_string()).collect();
        assert_eq!(
            headers,
            [
                "bytes 0-104857599/281905832",
                "bytes 104857600-209715199/281905832",
                "bytes 209715200-281905831/281905832",
            ],
        );
        let plan = Plan::new(281_905_832, 100 * MIB, Addressing::Part).unwrap();
        assert_eq!(plan.content_range(0).unwrap().to_string(), "part 1/3");
        assert_eq!(plan.content_range(2).unwrap().to_string(), "part 3/3");
    }

    #[test]
    fn a_single_request_has_one_chunk_and_no_header() {
        let plan = Plan::new(MAX_SINGLE_BYTES, 0, Addressing::Single).unwrap();
        assert_eq!((plan.chunks(), plan.content_range(0)), (1, None));
        assert_eq!(plan.chunk(0).extent, Extent::new(0, MAX_SINGLE_BYTES));
        assert_eq!(
            Plan::new(MAX_SINGLE_BYTES + 1, 0, Addressing::Single),
            Err(PlanError::TooLongForOneRequest { len: MAX_SINGLE_BYTES + 1 }),
        );
    }

    #[test]
    fn a_length_equal_to_the_chunk_size_is_one_chunk() {
        for (len, chunks) in [
            (1, 1),
            (MIN_CHUNK_BYTES - 1, 1),
            (MIN_CHUNK_BYTES, 1),
            (MIN_CHUNK_BYTES + 1, 2),
            (3 * MIN_CHUNK_BYTES, 3),
        ] {
            let plan = Plan::new(len, MIN_CHUNK_BYTES, Addressing::Part).unwrap();
            assert_eq!(plan.chunks(), chunks, "{len}");
        }
    }

    #[test]
    fn a_plan_outside_the_limits_is_refused_with_the_limit() {
        let refuse = |len, chunk| Plan::new(len, chunk, Addressing::ByteRange).unwrap_err();
        assert_eq!(refuse(0, MIN_CHUNK_BYTES), PlanError::Empty);
        assert!(refuse(1, MIN_CHUNK_BYTES - 1).to_string().contains("(5 MiB)"));
        assert!(refuse(1, MAX_CHUNK_BYTES + 1).to_string().contains("(200 MiB)"));
        assert!(refuse(MAX_TOTAL_BYTES + 1, MAX_CHUNK_BYTES).to_string().contains("52428800000"));
        assert!(Plan::new(MAX_TOTAL_BYTES, MIN_CHUNK_BYTES, Addressing::Part).is_ok());
    }

    #[test]
    fn a_sparse_file_of_30_gib_is_planned_past_32_bits() {
        let plan = Plan::new(30 << 30, 64 * MIB, Addressing::ByteRange).unwrap();
        assert_eq!(plan.chunks(), 480);
        assert_eq!(plan.content_range(479).unwrap().to_string(), "bytes 32145145856-32212254719/32212254720",);
    }

    proptest! {
        #[test]
        fn chunks_tile_the_file(
            len in prop_oneof![1..=MAX_TOTAL_BYTES, 1..=64 * MIB],
            chunk_bytes in MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES,
            parts in any::<bool>(),
        ) {
            let addressing = if parts { Addressing::Part } else { Addressing::ByteRange };
            let plan = Plan::new(len, chunk_bytes, addressing).unwrap();
            prop_assert!(u64::from(plan.chunks()) <= MAX_PARTS);
            let mut at = 0;
            for index in 0..plan.chunks() {
                let chunk = plan.chunk(index);
                prop_assert_eq!((chunk.index, chunk.extent.offset()), (index, at));
                prop_assert!(!chunk.extent.is_empty());
                let last = index + 1 == plan.chunks();
                prop_assert!(chunk.extent.len() == chunk_bytes || (last && chunk.extent.len() < chunk_bytes));
                at = chunk.extent.end();
            }
            prop_assert_eq!(at, len);
        }
    }
}
