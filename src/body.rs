//! A chunk as an HTTP request body: the envelope's head, the blocks, the envelope's tail.
//!
//! The zero-copy path: hyper receives the source's own buffers. At most [`Source::depth`] blocks of a chunk
//! are in memory, and hyper polls for the next block after sending one.
//!
//! Does not depend on connections, requests or retries.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::extent::Extent;
use crate::source::{ChunkDigest, ChunkDigester, Source, SourceError};
use crate::wire::Envelope;

/// The body of the request that carries one chunk.
///
/// Yields exactly [`Envelope::content_length`] bytes, or ends with an error and without the envelope's tail,
/// so that no server accepts a partial chunk. If bytes may turn out wrong while they are used
/// (`Source::needs_check`), the tail waits until the last block is dropped. Dropping the body cancels the
/// reads in flight.
pub struct ChunkBody<S> {
    source: S,
    stage: BodyStage,
    head: Bytes,
    tail: Bytes,
    unrequested: Extent,
    reads: VecDeque<(Extent, BlockRead)>,
    /// Tasks without a read.
    idle_tasks: Vec<ReadTask>,
    last_block: Option<oneshot::Receiver<()>>,
    left: u64,
    read_bytes: Arc<AtomicU64>,
    digest: DigestState,
}

/// The digest of the chunk, computed as its blocks are yielded.
enum DigestState {
    No,
    Running(Box<ChunkDigester>, DigestCallback),
    /// The digest was reported and is being stored.
    Reported(oneshot::Receiver<()>),
    /// The upload ended before it recorded the digest.
    Abandoned,
}

type DigestCallback = Box<dyn FnOnce(ChunkDigest) -> oneshot::Receiver<()>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyStage {
    Head,
    Blocks,
    Tail,
    Done,
}

type BlockResult = Result<Bytes, SourceError>;
type PolledFrame = Poll<Option<Result<Frame<Bytes>, SourceError>>>;

enum BlockRead {
    Running(ReadTask),
    Done(BlockResult),
}

/// A reusable future that reads one extent after another: a chunk allocates a few of these instead of one
/// future per block.
struct ReadTask {
    slot: Rc<ReadSlot>,
    run: Pin<Box<dyn Future<Output = ()>>>,
}

/// The request and the result of a read task.
#[derive(Default)]
struct ReadSlot {
    wanted: Cell<Option<Extent>>,
    result: Cell<Option<BlockResult>>,
}

impl<S: Source> ChunkBody<S> {
    /// Creates the body of `extent` in its envelope. Adds the bytes of the file to `read_bytes` as hyper
    /// polls them.
    pub fn new(envelope: &Envelope, source: S, extent: Extent, read_bytes: Arc<AtomicU64>) -> ChunkBody<S> {
        ChunkBody {
            stage: BodyStage::Head,
            head: envelope.head().clone(),
            tail: envelope.tail().clone(),
            unrequested: extent,
            reads: VecDeque::with_capacity(source.depth()),
            idle_tasks: Vec::with_capacity(source.depth()),
            last_block: None,
            left: envelope.content_length(extent.len()),
            source,
            read_bytes,
            digest: DigestState::No,
        }
    }

    /// Calls `report` once with the digest of the chunk, when the body yields its last block. The envelope's tail
    /// waits until the receiver returned by `report` resolves: no server can have stored the chunk earlier. If the
    /// sender is dropped, the body never ends. `report` is not called if the body ends with an error or is dropped
    /// before its last block.
    ///
    /// The digest reads the source's bytes in user space.
    #[must_use]
    pub fn with_digest(
        mut self,
        report: impl FnOnce(ChunkDigest) -> oneshot::Receiver<()> + 'static,
    ) -> ChunkBody<S> {
        self.digest = DigestState::Running(Box::default(), Box::new(report));
        self
    }

    /// Returns the next block; `None` after the last one.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<BlockResult>> {
        // All reads are polled, not only the first: otherwise only one would be in flight.
        for (_, reading) in &mut self.reads {
            self.idle_tasks.extend(reading.advance(cx));
        }
        self.start_reads(cx);
        match self.reads.pop_front() {
            None => Poll::Ready(None),
            Some((extent, BlockRead::Done(block))) => Poll::Ready(Some(check_len(extent, block))),
            Some(running) => {
                // Blocks are sent in file order, so a later block that is ready waits for this one.
                self.reads.push_front(running);
                Poll::Pending
            }
        }
    }

    fn start_reads(&mut self, cx: &mut Context<'_>) {
        // `depth` bounds the memory of one chunk. Each read takes its memory before the next one asks for the depth.
        while self.reads.len() < self.source.depth() && !self.unrequested.is_empty() {
            let extent = self.unrequested.take(self.source.block_bytes());
            self.unrequested = self.unrequested.skip(extent.len());
            // A mapped source has its bytes at once, which saves a task for the read.
            let mut reading = match self.source.read_now(extent) {
                Some(block) => BlockRead::Done(block),
                None => {
                    let task = self.idle_tasks.pop().unwrap_or_else(|| ReadTask::new(self.source.clone()));
                    task.slot.wanted.set(Some(extent));
                    BlockRead::Running(task)
                }
            };
            self.idle_tasks.extend(reading.advance(cx));
            self.reads.push_back((extent, reading));
        }
    }

    fn emit_block(&mut self, block: Bytes) -> PolledFrame {
        // Relaxed: the counter is for progress only, and orders no other memory.
        self.read_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        if let DigestState::Running(digester, _) = &mut self.digest {
            digester.update(&block);
        }
        let is_last = self.unrequested.is_empty() && self.reads.is_empty();
        if is_last {
            // Not with the tail: the digest is stored while the last block is encrypted and sent.
            self.report_digest();
        }
        // Without a check nothing waits for the last block, so its drop need not be observed.
        if !is_last || !self.source.needs_check() {
            return self.emit(block);
        }
        let (in_use, last_block) = oneshot::channel();
        self.last_block = Some(last_block);
        self.emit(Bytes::from_owner(NotifyOnDrop { block, _in_use: in_use }))
    }

    /// Yields the tail once the blocks were used and the source confirmed them.
    fn poll_tail(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if let Some(last_block) = &mut self.last_block {
            // Blocks are sent in order: once the last one is dropped, none of them is read any more.
            let _dropped = ready!(Pin::new(last_block).poll(cx));
            self.last_block = None;
        }
        // Bytes of a truncated map may be zeros. Without the tail no server accepts them (RFC 2046, section
        // 5.1.1).
        if let Err(error) = self.source.check() {
            return self.end_with(error);
        }
        // The digest is stored before the chunk can be: a resumed upload compares stored chunks with it.
        ready!(self.poll_digest(cx));
        self.stage = BodyStage::Done;
        let tail = mem::take(&mut self.tail);
        self.emit(tail)
    }

    /// Reports the digest of all blocks, unless some of their bytes were wrong.
    fn report_digest(&mut self) {
        // The digest of a truncated map would contradict the digest of a later attempt. The tail reports the error.
        if self.source.check().is_err() {
            return;
        }
        self.digest = match mem::replace(&mut self.digest, DigestState::No) {
            DigestState::Running(digester, report) => DigestState::Reported(report(digester.finish())),
            other => other,
        };
    }

    /// Ready once the digest, if there is one, was recorded.
    fn poll_digest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.digest, DigestState::Running(..)) {
            // A chunk without a block.
            self.report_digest();
        }
        if let DigestState::Reported(written) = &mut self.digest {
            // A dropped sender means that the upload has ended, and its lane is about to. The end of the request would
            // leave the service with a chunk that no record can prove.
            let is_recorded = ready!(Pin::new(written).poll(cx)).is_ok();
            self.digest = if is_recorded { DigestState::No } else { DigestState::Abandoned };
        }
        if matches!(self.digest, DigestState::Abandoned) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn end_with(&mut self, error: SourceError) -> PolledFrame {
        self.stage = BodyStage::Done;
        // A read in flight would keep the source's buffers after the error.
        self.reads.clear();
        self.idle_tasks.clear();
        Poll::Ready(Some(Err(error)))
    }

    fn emit(&mut self, bytes: Bytes) -> PolledFrame {
        self.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl<S: Source + Unpin> Body for ChunkBody<S> {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let this = self.get_mut();
        loop {
            match this.stage {
                BodyStage::Head => {
                    this.stage = BodyStage::Blocks;
                    let head = mem::take(&mut this.head);
                    return this.emit(head);
                }
                BodyStage::Blocks => match ready!(this.poll_block(cx)) {
                    Some(Ok(block)) => return this.emit_block(block),
                    Some(Err(error)) => return this.end_with(error),
                    None => this.stage = BodyStage::Tail,
                },
                BodyStage::Tail => return this.poll_tail(cx),
                BodyStage::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == BodyStage::Done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl BlockRead {
    /// Polls the read. Returns its task once the read is done.
    fn advance(&mut self, cx: &mut Context<'_>) -> Option<ReadTask> {
        let BlockRead::Running(task) = self else { return None };
        // `read_loop` has no end, and its result arrives in the slot.
        let _never_ends = task.run.as_mut().poll(cx);
        let block = task.slot.result.take()?;
        match mem::replace(self, BlockRead::Done(block)) {
            BlockRead::Running(task) => Some(task),
            BlockRead::Done(_) => None,
        }
    }
}

impl ReadTask {
    fn new<S: Source>(source: S) -> ReadTask {
        let slot = Rc::<ReadSlot>::default();
        let run = Box::pin(read_loop(source, Rc::clone(&slot)));
        ReadTask { slot, run }
    }
}

/// Runs the reads of one task. It needs no waker of its own: the body that sets `wanted` or takes `result`
/// polls the task afterwards.
async fn read_loop<S: Source>(source: S, slot: Rc<ReadSlot>) {
    loop {
        let extent = poll_fn(|_| slot.wanted.take().map_or(Poll::Pending, Poll::Ready)).await;
        slot.result.set(Some(source.read(extent).await));
    }
}

impl<S> fmt::Debug for ChunkBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkBody")
            .field("stage", &self.stage)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// A block that closes a channel when it is dropped.
struct NotifyOnDrop {
    block: Bytes,
    _in_use: oneshot::Sender<()>,
}

impl AsRef<[u8]> for NotifyOnDrop {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

fn check_len(extent: Extent, block: BlockResult) -> BlockResult {
    let bytes = block?;
    let (offset, wanted, got) = (extent.offset(), extent.len(), bytes.len() as u64);
    if got != wanted {
        return Err(SourceError::WrongLength { offset, wanted, got });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
