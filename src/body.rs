//! A chunk as a hyper `Body`: envelope, blocks, envelope.
//!
//! The zero-copy path, whole: what the source hands out is what hyper is given. Of a chunk at most
//! [`Source::depth`] blocks are in memory, and hyper asks for the next one when it has sent one.
//!
//! Does not know: connections, requests, how often a chunk was sent before.

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
/// Gives exactly [`Envelope::content_length`] bytes or ends with an error, and then without the
/// envelope's tail, so that no server takes what it got for a chunk. Where bytes may turn out wrong
/// while they are used ([`Source::needs_check`]), the tail waits until the last block is dropped.
/// Dropping the body gives up the reads in flight.
pub struct ChunkBody<S> {
    source: S,
    stage: Stage,
    head: Bytes,
    tail: Bytes,
    unasked: Extent,
    reads: VecDeque<(Extent, Reading)>,
    /// Those that read nothing now.
    fetchers: Vec<Fetcher>,
    last_block: Option<oneshot::Receiver<()>>,
    left: u64,
    read_bytes: Arc<AtomicU64>,
    digesting: Digesting,
}

/// The digest of the chunk's blocks as they are given to hyper.
enum Digesting {
    No,
    Running(Box<ChunkDigester>, Report),
    /// It was reported, and is being written down.
    Reported(oneshot::Receiver<()>),
}

type Report = Box<dyn FnOnce(ChunkDigest) -> oneshot::Receiver<()>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Blocks,
    Tail,
    Done,
}

type Block = Result<Bytes, SourceError>;
type PolledFrame = Poll<Option<Result<Frame<Bytes>, SourceError>>>;

enum Reading {
    Running(Fetcher),
    Done(Block),
}

/// Reads one extent after another: a chunk allocates a few of these rather than one read for each block.
struct Fetcher {
    desk: Rc<Desk>,
    run: Pin<Box<dyn Future<Output = ()>>>,
}

/// What a fetcher is to read, and what it has read.
#[derive(Default)]
struct Desk {
    wanted: Cell<Option<Extent>>,
    fetched: Cell<Option<Block>>,
}

impl<S: Source> ChunkBody<S> {
    /// The bytes of `extent` in their envelope. Bytes of the file are added to `read_bytes` as hyper takes them.
    pub fn new(envelope: &Envelope, source: S, extent: Extent, read_bytes: Arc<AtomicU64>) -> ChunkBody<S> {
        ChunkBody {
            stage: Stage::Head,
            head: envelope.head().clone(),
            tail: envelope.tail().clone(),
            unasked: extent,
            reads: VecDeque::with_capacity(source.depth()),
            fetchers: Vec::with_capacity(source.depth()),
            last_block: None,
            left: envelope.content_length(extent.len()),
            source,
            read_bytes,
            digesting: Digesting::No,
        }
    }

    /// Calls `report` with the digest of the chunk, once, and gives the end of the envelope when the receiver that
    /// `report` returned has received, or its sender is gone: no server can have stored the chunk earlier.
    /// It is not called for a body that ends with an error or is dropped.
    ///
    /// The source's bytes are read in user space for it.
    #[must_use]
    pub fn digesting(
        mut self,
        report: impl FnOnce(ChunkDigest) -> oneshot::Receiver<()> + 'static,
    ) -> ChunkBody<S> {
        self.digesting = Digesting::Running(Box::default(), Box::new(report));
        self
    }

    /// The next block; `None` when all of them were given.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Block>> {
        self.ask();
        // Every read, not only the first: that is what keeps several in flight.
        for (_, reading) in &mut self.reads {
            self.fetchers.extend(reading.advance(cx));
        }
        match self.reads.pop_front() {
            None => Poll::Ready(None),
            Some((extent, Reading::Done(block))) => Poll::Ready(Some(of_length(extent, block))),
            Some(running) => {
                self.reads.push_front(running);
                Poll::Pending
            }
        }
    }

    fn ask(&mut self) {
        while self.reads.len() < self.source.depth() && !self.unasked.is_empty() {
            let extent = self.unasked.take(self.source.block_bytes());
            self.unasked = self.unasked.skip(extent.len());
            let reading = match self.source.read_now(extent) {
                Some(block) => Reading::Done(block),
                None => {
                    let fetcher = self.fetchers.pop().unwrap_or_else(|| Fetcher::new(self.source.clone()));
                    fetcher.desk.wanted.set(Some(extent));
                    Reading::Running(fetcher)
                }
            };
            self.reads.push_back((extent, reading));
        }
    }

    fn give_block(&mut self, block: Bytes) -> PolledFrame {
        self.read_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        if let Digesting::Running(digester, _) = &mut self.digesting {
            digester.update(&block);
        }
        let is_last = self.unasked.is_empty() && self.reads.is_empty();
        if !is_last || !self.source.needs_check() {
            return self.give(block);
        }
        let (in_use, last_block) = oneshot::channel();
        self.last_block = Some(last_block);
        self.give(Bytes::from_owner(Watched { block, _in_use: in_use }))
    }

    /// The tail, once the blocks were used and were what they had to be.
    fn poll_tail(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if let Some(last_block) = &mut self.last_block {
            // Blocks are sent in order: when the last one is gone, nobody reads any of them.
            let _dropped = ready!(Pin::new(last_block).poll(cx));
            self.last_block = None;
        }
        if let Err(error) = self.source.check() {
            return self.end_with(error);
        }
        ready!(self.poll_digest(cx));
        self.stage = Stage::Done;
        let tail = mem::take(&mut self.tail);
        self.give(tail)
    }

    /// Ready when the digest, if there is one, was written down or cannot be.
    fn poll_digest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.digesting = match mem::replace(&mut self.digesting, Digesting::No) {
            Digesting::Running(digester, report) => Digesting::Reported(report(digester.finish())),
            other => other,
        };
        if let Digesting::Reported(written) = &mut self.digesting {
            let _gone = ready!(Pin::new(written).poll(cx));
            self.digesting = Digesting::No;
        }
        Poll::Ready(())
    }

    fn end_with(&mut self, error: SourceError) -> PolledFrame {
        self.stage = Stage::Done;
        self.reads.clear();
        self.fetchers.clear();
        Poll::Ready(Some(Err(error)))
    }

    fn give(&mut self, bytes: Bytes) -> PolledFrame {
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
                Stage::Head => {
                    this.stage = Stage::Blocks;
                    let head = mem::take(&mut this.head);
                    return this.give(head);
                }
                Stage::Blocks => match ready!(this.poll_block(cx)) {
                    Some(Ok(block)) => return this.give_block(block),
                    Some(Err(error)) => return this.end_with(error),
                    None => this.stage = Stage::Tail,
                },
                Stage::Tail => return this.poll_tail(cx),
                Stage::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Reading {
    /// The fetcher, when it has just become free.
    fn advance(&mut self, cx: &mut Context<'_>) -> Option<Fetcher> {
        let Reading::Running(fetcher) = self else { return None };
        let _never_ends = fetcher.run.as_mut().poll(cx);
        let block = fetcher.desk.fetched.take()?;
        match mem::replace(self, Reading::Done(block)) {
            Reading::Running(fetcher) => Some(fetcher),
            Reading::Done(_) => None,
        }
    }
}

impl Fetcher {
    fn new<S: Source>(source: S) -> Fetcher {
        let desk = Rc::<Desk>::default();
        let run = Box::pin(fetch(source, Rc::clone(&desk)));
        Fetcher { desk, run }
    }
}

/// Whoever takes what was fetched, or wants more, polls again: that is what wakes it.
async fn fetch<S: Source>(source: S, desk: Rc<Desk>) {
    loop {
        let extent = poll_fn(|_| desk.wanted.take().map_or(Poll::Pending, Poll::Ready)).await;
        desk.fetched.set(Some(source.read(extent).await));
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

/// A block that tells when it is dropped.
struct Watched {
    block: Bytes,
    _in_use: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

fn of_length(extent: Extent, block: Block) -> Block {
    let bytes = block?;
    let (offset, wanted, got) = (extent.offset(), extent.len(), bytes.len() as u64);
    if got != wanted {
        return Err(SourceError::WrongLength { offset, wanted, got });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
