//! The set of acknowledged chunks of a row.

/// A set of chunk indexes, one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkSet(Vec<u8>);

impl ChunkSet {
    /// Restores a set from the bytes of [`ChunkSet::bytes`].
    pub(super) fn from_bytes(bytes: Vec<u8>) -> ChunkSet {
        ChunkSet(bytes)
    }

    pub(super) fn insert(&mut self, index: u32) {
        let byte = index as usize / 8;
        if byte >= self.0.len() {
            // Grows with the indexes: a stream has no number of chunks in advance.
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= 1 << (index % 8);
    }

    /// Iterates over the indexes in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let is_set = |&index: &u32| self.0[index as usize / 8] & (1 << (index % 8)) != 0;
        (0..self.0.len() as u32 * 8).filter(is_set)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
