//! The sources of a stream that a caller can pass, as one blocking reader.
//!
//! An asynchronous source is polled on the thread of its stream, inside a runtime of its own: the source works under
//! any executor, and cannot block the driver. The runtime has timers, I/O and blocking threads, which sources made of
//! tokio's types may need. Tasks that the source spawns there run only while the stream waits for bytes.

use std::any::Any;
use std::future::poll_fn;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_core::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::source::SilentFor;

/// A source whose bytes can be read once.
pub(crate) enum StreamInput {
    /// A reader that blocks for as long as it likes.
    Blocking(Box<dyn Read + Send>),
    /// A reader that is polled.
    Async(Pin<Box<dyn AsyncRead + Send>>),
    /// A stream of pieces of any length.
    Pieces(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl StreamInput {
    /// Returns the input as a blocking reader, whose panics are errors, and the handle that ends its waits.
    ///
    /// A read of an asynchronous source fails if no byte arrives for `silence`. A blocking read cannot be interrupted.
    pub(crate) fn into_reader(self, silence: Duration) -> (Box<dyn Read + Send>, StopReading) {
        let (stop, stopped) = oneshot::channel();
        let polled = |source| {
            Box::new(PolledReader { source, stopped, silence, runtime: StreamRuntime::default() })
                as Box<dyn Read + Send>
        };
        let reader = match self {
            StreamInput::Blocking(reader) => reader,
            StreamInput::Async(reader) => polled(PolledSource::Reader(reader)),
            StreamInput::Pieces(pieces) => polled(PolledSource::Pieces { pieces, rest: Bytes::new() }),
        };
        (Box::new(PanicsAreErrors(reader)), StopReading { _stop: stop })
    }
}

/// Ends the waits of an asynchronous source when it is dropped.
#[derive(Debug)]
pub(crate) struct StopReading {
    _stop: oneshot::Sender<()>,
}

enum PolledSource {
    Reader(Pin<Box<dyn AsyncRead + Send>>),
    Pieces {
        pieces: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
        /// The bytes of the last piece that no read has taken.
        rest: Bytes,
    },
}

impl PolledSource {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            PolledSource::Reader(reader) => {
                let mut buffer = ReadBuf::new(buffer);
                poll_fn(|cx| reader.as_mut().poll_read(cx, &mut buffer)).await?;
                Ok(buffer.filled().len())
            }
            PolledSource::Pieces { pieces, rest } => {
                // An empty piece is not the end of the stream, which a read of no bytes would be.
                while rest.is_empty() {
                    match poll_fn(|cx| pieces.as_mut().poll_next(cx)).await.transpose()? {
                        Some(piece) => *rest = piece,
                        None => return Ok(0),
                    }
                    // A stream of empty pieces never waits, and would escape the time limit.
                    tokio::task::yield_now().await;
                }
                let len = rest.len().min(buffer.len());
                rest.copy_to_slice(&mut buffer[..len]);
                Ok(len)
            }
        }
    }
}

/// A polled source, read by blocking.
struct PolledReader {
    // Dropped before the runtime: types of tokio may need the runtime until they are gone.
    source: PolledSource,
    stopped: oneshot::Receiver<()>,
    silence: Duration,
    runtime: StreamRuntime,
}

impl Read for PolledReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let PolledReader { source, stopped, silence, runtime } = self;
        runtime.get()?.block_on(async {
            tokio::select! {
                biased;
                // First: a source that always has bytes would never be stopped.
                _ = stopped => Err(io::Error::other("the upload is over")),
                read = tokio::time::timeout(*silence, source.read(buffer)) => match read {
                    Ok(read) => read,
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, SilentFor(*silence))),
                },
            }
        })
    }
}

/// The runtime of one stream, made by its first read, so that it lives on the stream's thread.
#[derive(Default)]
struct StreamRuntime(Option<Runtime>);

impl StreamRuntime {
    fn get(&mut self) -> io::Result<&Runtime> {
        match &mut self.0 {
            Some(runtime) => Ok(runtime),
            none => Ok(none.insert(Builder::new_current_thread().enable_all().build()?)),
        }
    }
}

impl Drop for StreamRuntime {
    fn drop(&mut self) {
        // Do not wait for a blocking read of the source: the kernel may never finish it.
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// A reader of a caller, whose panic ends its upload and nothing else.
struct PanicsAreErrors(Box<dyn Read + Send>);

impl Read for PanicsAreErrors {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The reader is not used again after a panic: the stream ends with the error.
        catch_unwind(AssertUnwindSafe(|| self.0.read(buffer)))
            .unwrap_or_else(|panic| Err(io::Error::other(ReaderPanicked(text_of(&*panic).to_owned()))))
    }
}

/// The panic of a caller's reader, as an error of the read.
#[derive(Debug, thiserror::Error)]
#[error("its reader panicked: {0}")]
pub(crate) struct ReaderPanicked(String);

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    // `panic_any` takes a value of any type.
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn pieces(pieces: Vec<io::Result<Bytes>>) -> StreamInput {
        StreamInput::Pieces(Box::pin(stream::iter(pieces)))
    }

    fn read_all(input: StreamInput) -> io::Result<Vec<u8>> {
        let (mut reader, _stop) = input.into_reader(Duration::from_millis(50));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn pieces_of_any_length_are_read_in_order() {
        let sent = ["ab", "", "c", "def"].map(|piece| Ok(Bytes::from(piece)));
        assert_eq!(read_all(pieces(sent.into())).unwrap(), b"abcdef");
        let (mut reader, _stop) = pieces(vec![Ok(Bytes::from("abc"))]).into_reader(Duration::MAX);
        let mut two = [0; 2];
        assert_eq!((reader.read(&mut two).unwrap(), &two), (2, b"ab"));
        assert_eq!((reader.read(&mut two).unwrap(), two[0]), (1, b'c'));
    }

    #[test]
    fn an_error_of_the_source_is_passed_on() {
        let sent = vec![Ok(Bytes::from("ab")), Err(io::Error::other("the camera is gone"))];
        assert_eq!(read_all(pieces(sent)).unwrap_err().to_string(), "the camera is gone");
    }

    #[test]
    fn a_silent_source_and_one_of_empty_pieces_are_given_up() {
        let silent = StreamInput::Pieces(Box::pin(stream::pending()));
        let (never, _keep) = tokio::io::duplex(1);
        let empty = StreamInput::Pieces(Box::pin(stream::repeat_with(|| Ok(Bytes::new()))));
        for input in [silent, StreamInput::Async(Box::pin(never)), empty] {
            let error = read_all(input).unwrap_err();
            assert_eq!(error.to_string(), "no data for 50ms");
        }
    }

    #[test]
    fn a_wait_ends_when_the_upload_does() {
        let (mut reader, stop) = StreamInput::Pieces(Box::pin(stream::pending())).into_reader(Duration::MAX);
        drop(stop);
        assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), "the upload is over");
    }

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let (mut reader, _stop) =
            StreamInput::Pieces(Box::pin(stream::poll_fn(|_| panic!("no {}", "frame"))))
                .into_reader(Duration::MAX);
        assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), "its reader panicked: no frame");
    }

    #[test]
    fn a_source_may_use_timers_files_and_tasks_of_tokio() {
        let ticks = stream::unfold(0, |count| async move {
            let tick = async || tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(async move { tick().await }).await.ok()?;
            (count < 3).then(|| (Ok(Bytes::from("x")), count + 1))
        });
        assert_eq!(read_all(StreamInput::Pieces(Box::pin(ticks))).unwrap(), b"xxx");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"movie").unwrap();
        let file = tokio::fs::File::from_std(std::fs::File::open(file.path()).unwrap());
        assert_eq!(read_all(StreamInput::Async(Box::pin(file))).unwrap(), b"movie");
    }
}
