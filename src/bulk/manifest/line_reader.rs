//! Lines of bounded length.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// The longest line of a manifest in bytes; a CSV row may have several lines of this length together.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// A reader of lines. A line that is too long is passed over in constant memory.
pub(crate) struct LineReader {
    input: BufReader<Box<dyn Read + Send>>,
    separator: u8,
    line: Vec<u8>,
    number: u64,
    is_ended: bool,
    is_too_long: bool,
}

impl LineReader {
    /// Creates a reader of the lines of `input`, each of which ends with `separator`.
    pub(crate) fn new(input: Box<dyn Read + Send>, separator: u8) -> LineReader {
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        LineReader { input, separator, line: Vec::new(), number: 0, is_ended: false, is_too_long: false }
    }

    /// Reads the next line. Returns `false` at the end of the input.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        self.line.clear();
        (self.is_ended, self.is_too_long) = (false, false);
        let mut is_begun = false;
        while !self.is_ended {
            let found = match self.input.fill_buf() {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if found.is_empty() {
                break;
            }
            is_begun = true;
            let end = memchr::memchr(self.separator, found);
            let piece = &found[..end.unwrap_or(found.len())];
            if self.line.len() + piece.len() > MAX_LINE_BYTES {
                self.is_too_long = true;
                self.line.clear();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(piece);
            }
            self.is_ended = end.is_some();
            let read = piece.len() + usize::from(self.is_ended);
            self.input.consume(read);
        }
        self.number += u64::from(is_begun);
        Ok(is_begun)
    }

    /// Returns the line without its separator; empty if the line is too long.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Removes the first `len` bytes of the line.
    pub(crate) fn drop_front(&mut self, len: usize) {
        self.line.drain(..len.min(self.line.len()));
    }

    /// Returns the number of the line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns `true` if the separator stood after the line, which a write that was cut off lacks.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Returns `true` if the line was longer than [`MAX_LINE_BYTES`].
    pub(crate) fn is_too_long(&self) -> bool {
        self.is_too_long
    }
}

impl fmt::Debug for LineReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader").field("number", &self.number).finish_non_exhaustive()
    }
}

const BUFFER_BYTES: usize = 64 << 10;
