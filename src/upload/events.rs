//! The events of an upload as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::session::event::Happening;

/// What happens to an upload, as it happens. Ends with the upload.
#[derive(Debug)]
pub struct Happenings {
    next: Pin<Box<Next>>,
}

impl Happenings {
    pub(super) fn new(receiver: broadcast::Receiver<Happening>) -> Happenings {
        Happenings { next: Box::pin(Next(next(receiver))) }
    }
}

impl Stream for Happenings {
    type Item = Happening;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Happening>> {
        let Poll::Ready((receiver, happening)) = self.next.0.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        self.next.0 = next(receiver);
        Poll::Ready(happening)
    }
}

type Receiving =
    Pin<Box<dyn Future<Output = (broadcast::Receiver<Happening>, Option<Happening>)> + Send + Sync>>;

struct Next(Receiving);

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

fn next(mut receiver: broadcast::Receiver<Happening>) -> Receiving {
    Box::pin(async move {
        let happening = match receiver.recv().await {
            Ok(happening) => Some(happening),
            Err(RecvError::Lagged(count)) => Some(Happening::Missed { count }),
            Err(RecvError::Closed) => None,
        };
        (receiver, happening)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;
    use crate::engine::event_log::{Herald, queue};
    use crate::session::event::QUEUE;

    fn done(index: u32) -> Happening {
        Happening::ChunkDone { index, bytes: 1, attempt: 1, elapsed: Duration::ZERO }
    }

    #[tokio::test]
    async fn who_reads_slowly_loses_the_oldest_and_hears_how_many() {
        let (followers, receiver) = queue();
        let herald = Herald::new("movie.mp4".into(), followers);
        let all = QUEUE as u32 + 3;
        (0..all).for_each(|index| herald.tell(done(index)));
        drop(herald);
        let heard: Vec<_> = Happenings::new(receiver).collect().await;
        assert_eq!(heard[0], Happening::Missed { count: 3 });
        assert_eq!(heard[1..], (3..all).map(done).collect::<Vec<_>>());
    }

    #[test]
    fn the_stream_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Happenings>();
    }
}
