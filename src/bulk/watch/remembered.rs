//! The contents that a watch has returned.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// The most files that a watch remembers: 48 MiB at most. Files beyond are returned again by each scan, and are the
/// same jobs then.
pub const MOST_REMEMBERED: usize = 1 << 20;

/// The contents that a watch has returned: a hash of the path, and one of the length and the time of the last write.
///
/// Equal hashes of two paths cost a repeated job and lose none, unless the contents have equal hashes too.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    entries: HashMap<u64, ReturnedFile>,
    hasher: RandomState,
    /// The number of the current or last scan of each root.
    generations: Vec<u32>,
    limit: usize,
}

#[derive(Debug)]
struct ReturnedFile {
    content: u64,
    root: u32,
    /// The scan that last found the file.
    generation: u32,
}

impl Remembered {
    pub(super) fn new(roots: usize, limit: usize) -> Remembered {
        Remembered { generations: vec![0; roots], limit, ..Remembered::default() }
    }

    /// Returns `true` if this content was returned, and notes that the file is there.
    pub(super) fn contains(&mut self, root: u32, path: &Path, content: (u64, i128)) -> bool {
        let content = self.hasher.hash_one(content);
        let generation = self.generation(root);
        let key = self.hasher.hash_one((root, path));
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        entry.generation = generation;
        entry.content == content
    }

    /// Notes that this content was returned.
    pub(super) fn insert(&mut self, root: u32, path: &Path, content: (u64, i128)) {
        let key = self.hasher.hash_one((root, path));
        if self.entries.len() >= self.limit && !self.entries.contains_key(&key) {
            return;
        }
        let content = self.hasher.hash_one(content);
        let generation = self.generation(root);
        self.entries.insert(key, ReturnedFile { content, root, generation });
    }

    /// Begins a scan of the root.
    pub(super) fn begin_scan(&mut self, root: u32) {
        if let Some(generation) = self.generations.get_mut(root as usize) {
            // Only equality with the last number counts.
            *generation = generation.wrapping_add(1);
        }
    }

    /// Forgets the files that the whole last scan of the root did not find.
    pub(super) fn end_scan(&mut self, root: u32) {
        let generation = self.generation(root);
        self.entries.retain(|_, entry| entry.root != root || entry.generation == generation);
        // Files that were moved away once they were uploaded leave room that another table can use.
        if self.entries.capacity() > 4 * self.entries.len().max(1024) {
            self.entries.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn generation(&self, root: u32) -> u32 {
        self.generations.get(root as usize).copied().unwrap_or_default()
    }
}
