//! A pipe, cut into chunks that stay in memory until they are dropped.
//!
//! The length of a pipe is unknown and its bytes can be read once: a chunk stays in memory so that it can be
//! sent again. The memory comes from a budget shared by many pipes, without a dead lock: a pipe reserves a
//! whole chunk at once, and only when it has a first byte for it. A pipe that is idle between chunks holds no
//! memory, a chunk that was begun needs no further memory, and a held chunk needs nothing more to be sent.
//! While all memory is held the reader waits, and with it the process that writes to the pipe.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use tokio::sync::Notify;

use super::Source;
use super::budget::{BLOCK_BYTES, BlockPermits, MemoryBudget};
use super::error::{SilentFor, SourceError};
use crate::extent::Extent;

/// Cuts a stream into chunks. `Send`, and blocking: it needs a thread of its own.
///
/// Every chunk but the last has exactly the chunk length; the last has at least one byte. To detect the last
/// chunk it reads up to 64 KiB ahead, into memory of its own.
pub(crate) struct PipeReader<R> {
    reader: R,
    name: PathBuf,
    chunk_bytes: u64,
    offset: u64,
    /// The length that the caller stated, in bytes.
    stated_len: Option<u64>,
    /// The next bytes, empty at the end of the pipe; `None` before the next read.
    ahead: Option<Vec<u8>>,
    budget: MemoryBudget,
    shared: Arc<SharedChunk>,
}

/// A chunk of a pipe. Clones share its memory, which is freed for the next chunk with the last drop.
#[derive(Clone)]
pub struct HeldChunk {
    inner: Arc<ChunkInner>,
}

struct ChunkInner {
    name: PathBuf,
    extent: Extent,
    is_last: bool,
    blocks: Vec<Bytes>,
}

/// Keeps a pipe reader running. Dropping it cancels the reader, even during a blocked read, and frees the
/// memory of the partial chunk.
#[derive(Debug)]
#[must_use = "dropping it cancels the reader"]
pub(crate) struct CancelGuard {
    shared: Arc<SharedChunk>,
}

impl<R: Read> PipeReader<R> {
    /// Creates a reader of `reader`, named `name` in errors, with chunks of `chunk_bytes` in memory from
    /// `budget`.
    ///
    /// The caller is responsible for the smallest chunk that a server accepts.
    ///
    /// # Errors
    /// [`SourceError::Budget`] if the budget cannot hold one chunk.
    ///
    /// # Panics
    /// If `chunk_bytes` is zero.
    pub(crate) fn new(
        reader: R,
        name: impl Into<PathBuf>,
        chunk_bytes: u64,
        budget: MemoryBudget,
    ) -> Result<PipeReader<R>, SourceError> {
        assert!(chunk_bytes > 0, "a chunk has at least one byte");
        let (name, needed, budget_bytes) =
            (name.into(), MemoryBudget::least_for(chunk_bytes), budget.bytes());
        if budget_bytes < needed {
            return Err(SourceError::Budget { name, chunk_bytes, needed, budget_bytes });
        }
        let shared = Arc::new(SharedChunk::default());
        Ok(PipeReader { reader, name, chunk_bytes, offset: 0, stated_len: None, ahead: None, budget, shared })
    }

    /// Sets the length that the stream must have, in bytes. Another length is an error: the chunk that shows it is not
    /// returned, so that no caller takes a stream of another length for a whole one.
    pub(crate) fn with_stated_len(self, stated_len: Option<u64>) -> PipeReader<R> {
        PipeReader { stated_len, ..self }
    }

    /// Returns a guard that cancels the reader when it is dropped.
    pub(crate) fn cancel_guard(&self) -> CancelGuard {
        CancelGuard { shared: self.shared.clone() }
    }

    /// Reads the next chunk; `None` after the last one, or if the reader is cancelled. Blocks until bytes
    /// arrive, and then until memory is free.
    ///
    /// # Errors
    /// [`SourceError::EmptyPipe`] if the pipe ends before its first byte; [`SourceError::ShorterThanStated`] and
    /// [`SourceError::LongerThanStated`]; [`SourceError::Read`] and [`SourceError::Silent`]. The bytes of the partial
    /// chunk are lost then: the pipe cannot be read again.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<HeldChunk>, SourceError> {
        let chunk = self.cut();
        // The partial chunk cannot be completed any more, and its memory is free for other pipes.
        if !matches!(chunk, Ok(Some(_))) {
            self.shared.clear();
        }
        chunk
    }

    fn cut(&mut self) -> Result<Option<HeldChunk>, SourceError> {
        // The first byte before the memory: a pipe that is idle holds none.
        if self.look_ahead()?.is_empty() {
            return match self.offset {
                0 => Err(SourceError::EmptyPipe { name: self.name.clone() }),
                _ => Ok(None),
            };
        }
        if !self.reserve() {
            return Ok(None);
        }
        let begin = self.offset;
        let whole = Extent::new(begin, self.chunk_bytes);
        for extent in whole.blocks(BLOCK_BYTES as u64) {
            let (memory, len) = self.fill(extent)?;
            if !self.shared.keep(memory, len) {
                return Ok(None);
            }
            self.offset += len as u64;
            if (len as u64) < extent.len() {
                // A block that is not full is the last one. The empty look-ahead marks the end.
                self.ahead = Some(Vec::new());
                break;
            }
        }
        let is_last = self.look_ahead()?.is_empty();
        self.check_len(is_last)?;
        let extent = whole.take(self.offset - begin);
        let hold = |blocks| HeldChunk {
            inner: Arc::new(ChunkInner { name: self.name.clone(), extent, is_last, blocks }),
        };
        Ok(self.shared.finish().map(hold))
    }

    /// Compares the bytes read so far with the stated length.
    fn check_len(&self, is_last: bool) -> Result<(), SourceError> {
        let (name, found) = (&self.name, self.offset);
        match self.stated_len {
            Some(stated) if is_last && found < stated => {
                Err(SourceError::ShorterThanStated { name: name.clone(), stated, found })
            }
            // At the stated length, a byte read ahead is already one too many.
            Some(stated) if found > stated || (found == stated && !is_last) => {
                Err(SourceError::LongerThanStated { name: name.clone(), stated })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the first bytes of the next chunk, at least one unless the pipe ended. Blocks until they
    /// arrive.
    fn look_ahead(&mut self) -> Result<&[u8], SourceError> {
        if self.ahead.is_none() {
            // At most a chunk, because `fill` copies it into one.
            let most = usize::try_from(self.chunk_bytes).unwrap_or(AHEAD_BYTES).min(AHEAD_BYTES);
            let mut ahead = vec![0; most];
            let len = read_some(&mut self.reader, &mut ahead).map_err(|io| self.broken(0, io))?;
            ahead.truncate(len);
            self.ahead = Some(ahead);
        }
        Ok(self.ahead.as_deref().unwrap_or_default())
    }

    /// Waits for room for a chunk. Returns `false` if the reader was cancelled.
    fn reserve(&self) -> bool {
        let permits = pin!(self.budget.reserve(self.chunk_bytes));
        let cancelled = pin!(self.shared.cancelled.notified());
        // Other streams may hold the memory for long, and a reader that waits for it ends with its upload all the same.
        match pollster::block_on(select(permits, cancelled)) {
            Either::Left((Some(permits), _)) => self.shared.begin(permits),
            Either::Left((None, _)) | Either::Right(_) => false,
        }
    }

    /// Reads the pipe's next bytes; returns the memory and their number, which is lower than requested only
    /// at the end.
    fn fill(&mut self, extent: Extent) -> Result<(Vec<u8>, usize), SourceError> {
        let mut memory = self.budget.memory();
        // Only the first block of a chunk begins with bytes that were read ahead.
        let ahead = self.ahead.take().unwrap_or_default();
        memory[..ahead.len()].copy_from_slice(&ahead);
        let mut len = ahead.len();
        while (len as u64) < extent.len() {
            let room = &mut memory[len..extent.len() as usize];
            match read_some(&mut self.reader, room).map_err(|io| self.broken(len as u64, io))? {
                0 => break,
                read => len += read,
            }
        }
        Ok((memory, len))
    }

    fn broken(&self, after: u64, io: io::Error) -> SourceError {
        // The time limit of an asynchronous source arrives as an error of its read.
        if let Some(SilentFor(after)) = io.get_ref().and_then(|inner| inner.downcast_ref()) {
            return SourceError::Silent { path: self.name.clone(), after: *after };
        }
        SourceError::Read { path: self.name.clone(), offset: self.offset + after, io }
    }
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            // EINTR is not the end of the stream (read(2)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        // The state is set before the notification, so that a woken reader sees it.
        *self.shared.state() = FillState::Cancelled;
        // `notify_one` also reaches a reader that begins to wait later.
        self.shared.cancelled.notify_one();
    }
}

/// The partial chunk of the reader, shared with the guard that may take it away while a read blocks.
#[derive(Debug, Default)]
struct SharedChunk {
    state: Mutex<FillState>,
    cancelled: Notify,
}

#[derive(Debug, Default)]
enum FillState {
    #[default]
    Empty,
    Filling {
        permits: BlockPermits,
        blocks: Vec<Bytes>,
    },
    Cancelled,
}

impl SharedChunk {
    fn state(&self) -> MutexGuard<'_, FillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a chunk. Returns `false` if the reader was cancelled.
    fn begin(&self, permits: BlockPermits) -> bool {
        let mut state = self.state();
        let is_wanted = !matches!(*state, FillState::Cancelled);
        if is_wanted {
            *state = FillState::Filling { permits, blocks: Vec::new() };
        }
        is_wanted
    }

    /// Adds a block that is full or holds the last bytes. Returns `false` if the reader was cancelled.
    fn keep(&self, memory: Vec<u8>, len: usize) -> bool {
        match &mut *self.state() {
            // An empty block would keep memory for nothing.
            FillState::Filling { permits, blocks } if len > 0 => {
                let block = permits.block(memory, len);
                let is_kept = block.is_some();
                blocks.extend(block.map(Bytes::from_owner));
                is_kept
            }
            FillState::Filling { .. } => true,
            FillState::Empty | FillState::Cancelled => false,
        }
    }

    /// Returns the blocks of the chunk and releases unused permits; `None` if the reader was cancelled.
    fn finish(&self) -> Option<Vec<Bytes>> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            FillState::Filling { blocks, .. } => Some(blocks),
            other => {
                // `take` left `Empty`, which would hide a cancellation.
                *state = other;
                None
            }
        }
    }

    fn clear(&self) {
        drop(self.finish());
    }
}

impl HeldChunk {
    /// Creates the chunk `extent` of a source in memory. `bytes` are the bytes of the extent; they are not copied.
    ///
    /// # Panics
    /// If `bytes` has another length than `extent`.
    pub fn of_bytes(name: impl Into<PathBuf>, extent: Extent, is_last: bool, bytes: &Bytes) -> HeldChunk {
        assert_eq!(bytes.len() as u64, extent.len(), "the bytes of a chunk have its length");
        // Blocks of the same size as those of a pipe, since reads locate their block by division.
        let block = |begin: usize| bytes.slice(begin..bytes.len().min(begin + BLOCK_BYTES));
        let blocks = (0..bytes.len()).step_by(BLOCK_BYTES).map(block).collect();
        HeldChunk { inner: Arc::new(ChunkInner { name: name.into(), extent, is_last, blocks }) }
    }

    /// Returns the position of the chunk in the pipe, from the pipe's first byte.
    pub fn extent(&self) -> Extent {
        self.inner.extent
    }

    /// Returns `true` if the pipe ended with this chunk; otherwise at least one byte follows.
    pub fn is_last(&self) -> bool {
        self.inner.is_last
    }

    /// Returns the bytes of the extent if they lie in one block.
    fn slice(&self, extent: Extent) -> Option<Bytes> {
        let (index, within) = self.locate(extent.offset());
        let block = self.inner.blocks.get(index)?;
        let end = within.checked_add(usize::try_from(extent.len()).ok()?)?;
        (end <= block.len()).then(|| block.slice(within..end))
    }

    fn locate(&self, offset: u64) -> (usize, usize) {
        let within = (offset - self.inner.extent.offset()) as usize;
        (within / BLOCK_BYTES, within % BLOCK_BYTES)
    }

    fn gather(&self, extent: Extent) -> Bytes {
        let mut gathered = BytesMut::with_capacity(extent.len() as usize);
        let mut rest = extent;
        while !rest.is_empty() {
            let (index, within) = self.locate(rest.offset());
            let bytes = &self.inner.blocks[index][within..];
            let bytes = &bytes[..bytes.len().min(rest.len() as usize)];
            gathered.extend_from_slice(bytes);
            rest = rest.skip(bytes.len() as u64);
        }
        gathered.freeze()
    }

    fn check_extent(&self, extent: Extent) -> Result<(), SourceError> {
        let held = self.inner.extent;
        if !held.contains(extent) {
            let path = self.inner.name.clone();
            return Err(SourceError::PastEnd { path, end: extent.end(), len: held.end() });
        }
        Ok(())
    }
}

impl Source for HeldChunk {
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>> {
        match self.check_extent(extent) {
            Err(error) => Some(Err(error)),
            Ok(()) if extent.is_empty() => Some(Ok(Bytes::new())),
            Ok(()) => self.slice(extent).map(Ok),
        }
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        let chunk = self.clone();
        async move {
            chunk.check_extent(extent)?;
            Ok(chunk.slice(extent).unwrap_or_else(|| chunk.gather(extent)))
        }
    }

    fn block_bytes(&self) -> u64 {
        BLOCK_BYTES as u64
    }

    fn depth(&self) -> usize {
        // The bytes are in memory, so that nothing can be read ahead.
        1
    }
}

impl<R> fmt::Debug for PipeReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader")
            .field("name", &self.name)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HeldChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChunkInner { name, extent, is_last, .. } = &*self.inner;
        f.debug_struct("HeldChunk")
            .field("name", name)
            .field("extent", extent)
            .field("is_last", is_last)
            .finish()
    }
}

/// The capacity of a kernel pipe (`pipe(7)`): a read that waits for the first byte returns more with it.
const AHEAD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
