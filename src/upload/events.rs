//! The events of an upload as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::session::event::UploadEvent;

/// A stream of the events of an upload. Ends with the upload.
pub struct Events {
    events: Pin<Box<dyn Stream<Item = UploadEvent> + Send + Sync>>,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<UploadEvent>) -> Events {
        let events = stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(count)) => Some((UploadEvent::Missed { count }, receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        // `unfold` panics when it is polled after its end.
        Events { events: Box::pin(events.fuse()) }
    }
}

impl Stream for Events {
    type Item = UploadEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<UploadEvent>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::counters::Counters;
    use crate::engine::event_log::{EventSink, queue};
    use crate::engine::settings::Settings;
    use crate::session::event::QUEUE;

    fn done(index: u32) -> UploadEvent {
        UploadEvent::ChunkDone { index, bytes: 1, attempt: 1, elapsed: Duration::ZERO }
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_and_receives_their_number() {
        let (followers, receiver) = queue();
        let event_sink = EventSink::new("movie.mp4".into(), followers, Counters::new(&Settings::default()));
        let all = QUEUE as u32 + 3;
        (0..all).for_each(|index| event_sink.emit(done(index)));
        drop(event_sink);
        let heard: Vec<_> = Events::new(receiver).collect().await;
        assert_eq!(heard[0], UploadEvent::Missed { count: 3 });
        assert_eq!(heard[1..], (3..all).map(done).collect::<Vec<_>>());
    }

    #[test]
    fn the_stream_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Events>();
    }
}
