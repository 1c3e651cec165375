//! The thread that reads a stream and turns it into chunks.
//!
//! A read may block for as long as whoever writes likes, and nothing can interrupt it: the thread is
//! not joined. It ends with the stream, or once a read returns that nobody waits for any more.

use std::io::Read;
use std::thread;

use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::source::{Demand, HeldChunk, PipeReader};

/// What a stream gave.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// Its next chunk.
    Chunk(HeldChunk),
    /// It cannot be read any further.
    Failed(Error),
}

/// A stream that is being read.
pub(crate) struct StreamReader {
    pub(crate) inbox: mpsc::Receiver<StreamEvent>,
    pub(crate) demand: Demand,
}

/// Starts to read.
pub(crate) fn start(mut pipe: PipeReader<Box<dyn Read + Send>>) -> Result<StreamReader> {
    let (give, inbox) = mpsc::channel(CHUNKS_AHEAD);
    let demand = pipe.demand();
    let read = move || {
        loop {
            let stream_event = match pipe.next_chunk() {
                Ok(Some(chunk)) => StreamEvent::Chunk(chunk),
                Ok(None) => return,
                Err(error) => StreamEvent::Failed(Error::from(error)),
            };
            let is_last = matches!(stream_event, StreamEvent::Failed(_));
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

/// Chunks that may wait for the driver; their memory is bounded by the budget of all streams.
const CHUNKS_AHEAD: usize = 1;
