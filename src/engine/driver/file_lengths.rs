//! The lengths of opened files, from which those of waiting files are estimated.

/// The lengths of the files that a client has opened.
#[derive(Debug, Default)]
pub(super) struct FileLengths {
    files: u64,
    bytes: u64,
}

impl FileLengths {
    pub(super) fn add(&mut self, len: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(len);
    }

    /// Returns the mean length in bytes; `None` before the first file.
    pub(super) fn mean(&self) -> Option<u64> {
        self.bytes.checked_div(self.files)
    }
}
