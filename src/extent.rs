//! A run of bytes: an offset and a length.
//!
//! Extents are half-open. The wire's ranges include their last byte: [`Extent::from_bounds`] and
//! [`Extent::last_byte`] convert between the two.
//!
//! Does not know: files, chunks, HTTP.

use std::fmt;

/// A half-open run of bytes, `offset .. offset + len`.
///
/// Both are in bytes. The end never exceeds [`u64::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    offset: u64,
    len: u64,
}

impl Extent {
    /// Creates the run of `len` bytes that starts at `offset`.
    ///
    /// # Panics
    /// If the end would exceed [`u64::MAX`]. For numbers from outside, use [`Extent::from_bounds`].
    pub const fn new(offset: u64, len: u64) -> Extent {
        assert!(offset.checked_add(len).is_some(), "an extent ends within u64");
        Extent { offset, len }
    }

    /// Creates the run from `first_byte` up to and including `last_byte`, as the wire writes it.
    ///
    /// Returns `None` if `first_byte > last_byte` or if the end does not fit into 64 bits.
    pub const fn from_bounds(first_byte: u64, last_byte: u64) -> Option<Extent> {
        match Extent::inclusive_len(first_byte, last_byte) {
            // The end would be 2^64.
            Some(_) if last_byte == u64::MAX => None,
            Some(len) => Some(Extent::new(first_byte, len)),
            None => None,
        }
    }

    /// Returns the number of bytes from `first_byte` to `last_byte`, both inclusive.
    ///
    /// `None` if `first_byte > last_byte`, or if the number exceeds [`u64::MAX`].
    pub const fn inclusive_len(first_byte: u64, last_byte: u64) -> Option<u64> {
        match last_byte.checked_sub(first_byte) {
            Some(distance) => distance.checked_add(1),
            None => None,
        }
    }

    /// Returns the position of the first byte.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Returns the number of bytes.
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Returns `true` if the extent has no byte.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Returns the position after the last byte.
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }

    /// Returns the position of the last byte, as `Content-Range` writes it; `None` for an empty extent.
    pub const fn last_byte(self) -> Option<u64> {
        match self.len {
            0 => None,
            _ => Some(self.end() - 1),
        }
    }

    /// Returns the first `len` bytes, or the whole extent if it is shorter.
    pub const fn take(self, len: u64) -> Extent {
        Extent { offset: self.offset, len: if len < self.len { len } else { self.len } }
    }

    /// Returns the bytes after the first `len`. If the extent is shorter, the result is empty, at its end.
    pub const fn skip(self, len: u64) -> Extent {
        // Clamped, so that the end never moves and cannot overflow.
        let skipped = if len < self.len { len } else { self.len };
        Extent { offset: self.offset + skipped, len: self.len - skipped }
    }

    /// Returns `true` if the two extents share a byte.
    pub const fn overlaps(self, other: Extent) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// Returns `true` if every byte of `other` is in this extent.
    pub const fn contains(self, other: Extent) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }

    /// Returns the smallest surrounding extent whose bounds are multiples of `alignment`.
    ///
    /// # Panics
    /// If `alignment` is zero, or the aligned end exceeds [`u64::MAX`].
    pub const fn align_out(self, alignment: u64) -> Extent {
        // Rounded down here and up below: the aligned extent must cover every byte.
        let offset = self.offset - self.offset % alignment;
        let Some(end) = self.end().checked_next_multiple_of(alignment) else {
            panic!("an aligned extent ends within u64");
        };
        Extent { offset, len: end - offset }
    }

    /// Cuts the extent into runs of `block_bytes`. The last one may be shorter.
    ///
    /// # Panics
    /// If `block_bytes` is zero.
    pub fn blocks(self, block_bytes: u64) -> impl ExactSizeIterator<Item = Extent> + use<> {
        assert!(block_bytes > 0, "a block has at least one byte");
        Blocks { rest: self, block_bytes }
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.len)
    }
}

/// The iterator of [`Extent::blocks`].
struct Blocks {
    rest: Extent,
    block_bytes: u64,
}

impl Iterator for Blocks {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.rest.is_empty() {
            return None;
        }
        let block = self.rest.take(self.block_bytes);
        self.rest = self.rest.skip(self.block_bytes);
        Some(block)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.len().div_ceil(self.block_bytes) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Blocks {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_byte_is_inclusive() {
        assert_eq!(Extent::new(0, 104_857_600).last_byte(), Some(104_857_599));
        assert_eq!(Extent::new(7, 0).last_byte(), None);
        assert_eq!(Extent::from_bounds(0, 104_857_599), Some(Extent::new(0, 104_857_600)));
        assert_eq!(Extent::from_bounds(200, 100), None);
        assert_eq!(Extent::from_bounds(0, u64::MAX), None);
    }

    #[test]
    fn inclusive_lengths_never_overflow() {
        assert_eq!(Extent::inclusive_len(0, 0), Some(1));
        assert_eq!(Extent::inclusive_len(200, 100), None);
        assert_eq!(Extent::inclusive_len(0, u64::MAX), None);
        assert_eq!(Extent::inclusive_len(1, u64::MAX), Some(u64::MAX));
        assert_eq!(Extent::inclusive_len(u64::MAX, u64::MAX), Some(1));
        assert_eq!(Extent::from_bounds(u64::MAX, u64::MAX), None);
        assert_eq!(Extent::from_bounds(1, u64::MAX - 1), Some(Extent::new(1, u64::MAX - 1)));
    }

    #[test]
    fn alignment_grows_outwards() {
        assert_eq!(Extent::new(4095, 2).align_out(4096), Extent::new(0, 8192));
        assert_eq!(Extent::new(4096, 4096).align_out(4096), Extent::new(4096, 4096));
        assert_eq!(Extent::new(5000, 0).align_out(4096), Extent::new(4096, 4096));
    }

    proptest! {
        #[test]
        fn blocks_tile_the_extent(offset in 0..u64::MAX / 2, len in 0u64..100_000, block in 1u64..9_000) {
            let extent = Extent::new(offset, len);
            let mut at = offset;
            for block_extent in extent.blocks(block) {
                prop_assert_eq!(block_extent.offset(), at);
                prop_assert!(!block_extent.is_empty() && block_extent.len() <= block);
                at = block_extent.end();
            }
            prop_assert_eq!(at, extent.end());
            prop_assert_eq!(extent.blocks(block).len() as u64, len.div_ceil(block));
        }

        #[test]
        fn take_and_skip_split_without_loss(offset in 0..u64::MAX / 2, len in 0u64..100, at in 0u64..200) {
            let extent = Extent::new(offset, len);
            prop_assert_eq!(extent.take(at).end(), extent.skip(at).offset());
            prop_assert_eq!(extent.take(at).len() + extent.skip(at).len(), len);
        }
    }
}
