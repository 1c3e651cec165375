//! A pipe, cut into chunks that are held until somebody drops them.
//!
//! Bytes of unknown number, readable once: a chunk stays in memory so that it can be sent again.
//! The memory is a fixed number of blocks. When all are held the reader waits, and with it the
//! process that writes to the pipe.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::{Bytes, BytesMut};

use super::Source;
use super::error::SourceError;
use crate::extent::Extent;

/// Cuts whatever it reads into chunks. `Send`, and blocking: it wants a thread of its own.
///
/// Every chunk but the last has exactly the chunk length, the last has at least one byte. To know
/// which one is last it reads one block ahead.
pub struct PipeReader<R> {
    reader: R,
    name: PathBuf,
    chunk_bytes: u64,
    offset: u64,
    ahead: Option<Bytes>,
    blocks: Receiver<Vec<u8>>,
    give_back: SyncSender<Vec<u8>>,
}

/// A chunk of a pipe. A clone shares its memory, which is free for the next chunk after the last drop.
#[derive(Clone)]
pub struct HeldChunk {
    inner: Arc<Inner>,
}

struct Inner {
    name: PathBuf,
    extent: Extent,
    place: Place,
    blocks: Vec<Bytes>,
}

/// Whether more comes after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At least one byte follows.
    Middle,
    /// The pipe ended with this chunk.
    Last,
}

impl<R: Read> PipeReader<R> {
    /// Reads `reader`, called `name` in errors, in chunks of `chunk_bytes` held in at most `budget_bytes`.
    ///
    /// Memory is taken when first needed. The smallest chunk that a server takes is for the caller to keep.
    ///
    /// # Errors
    /// [`SourceError::Budget`] when the budget cannot hold one chunk and one block.
    ///
    /// # Panics
    /// When `chunk_bytes` is zero.
    pub fn new(
        reader: R,
        name: impl Into<PathBuf>,
        chunk_bytes: u64,
        budget_bytes: u64,
    ) -> Result<PipeReader<R>, SourceError> {
        assert!(chunk_bytes > 0, "a chunk has at least one byte");
        let (name, chunk_blocks) = (name.into(), chunk_bytes.div_ceil(BLOCK_BYTES as u64));
        let needed = (chunk_blocks + 1) * BLOCK_BYTES as u64;
        if budget_bytes < needed {
            return Err(SourceError::Budget { name, chunk_bytes, needed, budget_bytes });
        }
        let count = usize::try_from(budget_bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
        let (give_back, blocks) = sync_channel(count);
        (0..count).try_for_each(|_| give_back.try_send(Vec::new())).expect("there is room for every block");
        Ok(PipeReader { reader, name, chunk_bytes, offset: 0, ahead: None, blocks, give_back })
    }

    /// The next chunk; `None` after the last one. Waits for bytes, and for memory while all is held.
    ///
    /// # Errors
    /// [`SourceError::EmptyPipe`] when the pipe ends before its first byte, and [`SourceError::Read`],
    /// after which the bytes of the chunk begun are lost: the pipe cannot be read again.
    pub fn next_chunk(&mut self) -> Result<Option<HeldChunk>, SourceError> {
        let whole = Extent::new(self.offset, self.chunk_bytes);
        let mut blocks = Vec::new();
        for extent in whole.blocks(BLOCK_BYTES as u64) {
            let block = match self.ahead.take() {
                Some(block) => block,
                None => self.fill(extent)?,
            };
            let is_full = block.len() as u64 == extent.len();
            self.offset += block.len() as u64;
            blocks.extend((!block.is_empty()).then_some(block));
            if !is_full {
                return self.finish(whole, blocks);
            }
        }
        let ahead = self.fill(Extent::new(self.offset, self.chunk_bytes).take(BLOCK_BYTES as u64))?;
        let place = if ahead.is_empty() { Place::Last } else { Place::Middle };
        self.ahead = Some(ahead);
        Ok(Some(self.hold(whole, place, blocks)))
    }

    /// What the last bytes of the pipe make up: a short chunk, nothing, or an error.
    fn finish(&mut self, whole: Extent, blocks: Vec<Bytes>) -> Result<Option<HeldChunk>, SourceError> {
        self.ahead = Some(Bytes::new());
        let extent = whole.take(self.offset - whole.offset());
        match (extent.is_empty(), extent.offset()) {
            (true, 0) => Err(SourceError::EmptyPipe { name: self.name.clone() }),
            (true, _) => Ok(None),
            (false, _) => Ok(Some(self.hold(extent, Place::Last, blocks))),
        }
    }

    fn hold(&self, extent: Extent, place: Place, blocks: Vec<Bytes>) -> HeldChunk {
        HeldChunk { inner: Arc::new(Inner { name: self.name.clone(), extent, place, blocks }) }
    }

    /// A block with the pipe's next bytes: fewer than asked for only at its end.
    fn fill(&mut self, extent: Extent) -> Result<Bytes, SourceError> {
        let mut memory = self.blocks.recv().expect("this reader keeps a sender");
        memory.resize(BLOCK_BYTES, 0);
        let mut block = Block { memory, len: 0, give_back: self.give_back.clone() };
        while (block.len as u64) < extent.len() {
            match self.reader.read(&mut block.memory[block.len..extent.len() as usize]) {
                Ok(0) => break,
                Ok(read) => block.len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(io) => {
                    let (path, offset) = (self.name.clone(), extent.offset() + block.len as u64);
                    return Err(SourceError::Read { path, offset, io });
                }
            }
        }
        // An empty block would keep memory for nothing.
        Ok(if block.len == 0 { Bytes::new() } else { Bytes::from_owner(block) })
    }
}

impl HeldChunk {
    /// Where its bytes are in the pipe, counted from the pipe's first byte.
    pub fn extent(&self) -> Extent {
        self.inner.extent
    }

    /// Whether more comes after it.
    pub fn place(&self) -> Place {
        self.inner.place
    }

    /// The bytes of the extent in one block; `None` where they lie in several.
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
        match held.contains(extent) {
            true => Ok(()),
            false => Err(SourceError::PastEnd {
                path: self.inner.name.clone(),
                end: extent.end(),
                len: held.end(),
            }),
        }
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
        1
    }
}

/// Memory with bytes of the pipe at its start, on loan from the reader.
struct Block {
    memory: Vec<u8>,
    len: usize,
    give_back: SyncSender<Vec<u8>>,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // There is room for every block; fails only when the reader is gone and nobody needs it.
        let _ = self.give_back.try_send(std::mem::take(&mut self.memory));
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
        let Inner { name, extent, place, .. } = &*self.inner;
        f.debug_struct("HeldChunk").field("name", name).field("extent", extent).field("place", place).finish()
    }
}

/// The memory that a pipe's chunks are made of comes in pieces of this size.
const BLOCK_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    /// Reads as pipes do: a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(self.1);
            self.0.read(&mut buffer[..len])
        }
    }

    fn bytes_of(chunk: &HeldChunk) -> Vec<u8> {
        let read = |block| chunk.read_now(block).unwrap().unwrap();
        chunk.extent().blocks(chunk.block_bytes()).flat_map(read).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn chunks_tile_the_pipe_and_only_the_last_is_short(
            len in 1..6 * BLOCK as usize,
            chunk_bytes in BLOCK / 2..3 * BLOCK,
            at_once in 1000..2 * BLOCK as usize,
        ) {
            let sent = pattern(len);
            let mut pipe = PipeReader::new(Trickle(&sent, at_once), "-", chunk_bytes, 4 * BLOCK).unwrap();
            let mut received = Vec::new();
            while let Some(chunk) = pipe.next_chunk().unwrap() {
                prop_assert_eq!(chunk.extent().offset(), received.len() as u64);
                received.extend(bytes_of(&chunk));
                let is_last = received.len() == len;
                prop_assert_eq!(chunk.place() == Place::Last, is_last);
                prop_assert!(is_last || chunk.extent().len() == chunk_bytes);
                prop_assert!(!chunk.extent().is_empty());
            }
            prop_assert!(received == sent);
            prop_assert!(pipe.next_chunk().unwrap().is_none());
        }
    }

    #[test]
    fn a_pipe_that_ends_with_a_chunk_has_no_empty_last_chunk() {
        let sent = pattern(2 * BLOCK_BYTES);
        let mut pipe = PipeReader::new(&sent[..], "-", BLOCK, 2 * BLOCK).unwrap();
        assert_eq!(pipe.next_chunk().unwrap().unwrap().place(), Place::Middle);
        assert_eq!(pipe.next_chunk().unwrap().unwrap().place(), Place::Last);
        assert!(pipe.next_chunk().unwrap().is_none());
    }

    #[test]
    fn an_empty_pipe_is_an_error() {
        let mut pipe = PipeReader::new(io::empty(), "standard input", BLOCK, 2 * BLOCK).unwrap();
        let error = pipe.next_chunk().unwrap_err();
        assert_eq!(error.to_string(), "standard input: empty, there is nothing to upload");
    }

    #[test]
    fn a_broken_pipe_names_the_byte() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let sent = pattern(10);
        let mut pipe = PipeReader::new(sent.chain(Broken), "-", BLOCK, 2 * BLOCK).unwrap();
        let error = pipe.next_chunk().unwrap_err();
        assert!(matches!(error, SourceError::Read { offset: 10, .. }), "{error:?}");
    }

    #[test]
    fn a_budget_that_cannot_hold_a_chunk_says_what_would() {
        let error = PipeReader::new(io::empty(), "-", 5 * BLOCK, 5 * BLOCK).unwrap_err();
        assert!(matches!(error, SourceError::Budget { needed, .. } if needed == 6 * BLOCK), "{error:?}");
    }

    #[test]
    fn the_reader_waits_until_a_chunk_is_dropped() {
        let (ready, chunks) = mpsc::channel();
        let reading = thread::spawn(move || {
            let sent = pattern(3 * BLOCK_BYTES);
            let mut pipe = PipeReader::new(&sent[..], "-", BLOCK, 2 * BLOCK).unwrap();
            while let Some(chunk) = pipe.next_chunk().unwrap() {
                ready.send(chunk).unwrap();
            }
        });
        let (first, clone) = chunks.recv().map(|chunk| (chunk.clone(), chunk)).unwrap();
        drop(first);
        // It holds block two and has asked for block three, which is this one.
        assert!(chunks.recv_timeout(Duration::from_millis(100)).is_err());
        drop(clone);
        assert_eq!(chunks.iter().count(), 2);
        reading.join().unwrap();
    }

    #[test]
    fn a_chunk_gives_the_same_bytes_again_and_across_its_blocks() {
        let sent = pattern(3 * BLOCK_BYTES);
        let mut pipe = PipeReader::new(&sent[..], "-", 3 * BLOCK, 4 * BLOCK).unwrap();
        let chunk = pipe.next_chunk().unwrap().unwrap();
        assert!(bytes_of(&chunk) == sent && bytes_of(&chunk.clone()) == sent);
        let across = Extent::new(BLOCK - 3, 2 * BLOCK - 3);
        assert!(chunk.read_now(across).is_none());
        assert!(chunk.gather(across) == sent[across.offset() as usize..across.end() as usize]);
    }
}
