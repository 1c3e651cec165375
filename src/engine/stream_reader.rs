//! The thread that reads a stream and turns it into chunks.
//!
//! A blocking read takes as long as the writer of the stream likes, and cannot be interrupted, so the thread is not
//! joined. It ends with the stream, or at the first read that returns after the upload ended. The read of an
//! asynchronous source returns at once when the upload ends.

use std::io::Read;
use std::thread;

use tokio::sync::mpsc;

use crate::engine::stream_input::{ReaderPanicked, StopReading};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{CancelGuard, HeldChunk, PipeReader, SourceError};

/// The result of reading a stream.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// The next chunk.
    Chunk(HeldChunk),
    /// The stream cannot be read any further.
    Failed(Error),
}

/// A stream that is being read.
pub(crate) struct StreamReader {
    pub(crate) inbox: mpsc::Receiver<StreamEvent>,
    pub(crate) demand: StreamDemand,
}

/// Keeps the stream's reader running. Dropping it stops the reader.
#[derive(Debug)]
pub(crate) struct StreamDemand {
    _guard: CancelGuard,
    _stop: StopReading,
}

/// Starts the thread.
pub(crate) fn start(mut pipe: PipeReader<Box<dyn Read + Send>>, stop: StopReading) -> Result<StreamReader> {
    let (give, inbox) = mpsc::channel(CHUNKS_AHEAD);
    let demand = StreamDemand { _guard: pipe.cancel_guard(), _stop: stop };
    let read = move || {
        loop {
            let stream_event = match pipe.next_chunk() {
                Ok(Some(chunk)) => StreamEvent::Chunk(chunk),
                Ok(None) => return,
                Err(error) => StreamEvent::Failed(failure(error)),
            };
            let is_last = matches!(stream_event, StreamEvent::Failed(_));
            // A closed channel means that the upload has ended: reading on would only consume the source.
            if give.blocking_send(stream_event).is_err() || is_last {
                return;
            }
        }
    };
    thread::Builder::new().name("ringlift-stream".to_owned()).spawn(read).map_err(|error| {
        Error::new(ErrorKind::Internal, "start the thread that reads the stream").with_source(error)
    })?;
    Ok(StreamReader { inbox, demand })
}

/// Returns the failure of a read. A panic is a defect of the program, not of its source.
fn failure(error: SourceError) -> Error {
    let panic = match &error {
        SourceError::Read { path, io, .. } => {
            let panic = io.get_ref().and_then(|cause| cause.downcast_ref::<ReaderPanicked>());
            panic.map(|panic| (format!("read {}", path.display()), panic.to_string()))
        }
        _ => None,
    };
    match panic {
        Some((doing, reason)) => Error::new(ErrorKind::Internal, doing).because(reason),
        None => Error::from(error),
    }
}

/// The chunks that may wait for the driver; the budget of all streams bounds their memory.
const CHUNKS_AHEAD: usize = 1;
