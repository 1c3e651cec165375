//! The ends of jobs and the fetches that go on beside the events of the uploads.

use std::future::{Future, pending};
use std::pin::{Pin, pin};

use futures_util::stream::{FuturesUnordered, StreamExt};

/// The end or the checkpoint of a job, being recorded.
pub(super) type Finish = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The futures that go on beside the events of the uploads.
#[derive(Default)]
pub(super) struct Background {
    pub(super) finishing: FuturesUnordered<Finish>,
    pub(super) fetching: FuturesUnordered<Finish>,
}

impl Background {
    pub(super) fn is_empty(&self) -> bool {
        self.finishing.is_empty() && self.fetching.is_empty()
    }

    /// Goes on. Never ready if there is nothing to go on with.
    pub(super) async fn advance(&mut self) {
        tokio::select! {
            Some(()) = self.finishing.next() => {}
            Some(()) = self.fetching.next() => {}
            else => pending().await,
        }
    }

    /// Goes on while `work` sends events. A finish that was given a place in the queue of events takes it only when it is
    /// polled: with as many of them as there are places, `work` would wait for ever.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.advance() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_event_is_sent_though_ends_have_the_next_places_in_the_queue() {
        let (sender, mut events) = mpsc::channel(1);
        let end = |text| -> Finish {
            let sender = sender.clone();
            Box::pin(async move { sender.send(text).await.unwrap() })
        };
        sender.send("first").await.unwrap();
        let mut background = Background::default();
        background.finishing.push(end("end of a file"));
        background.fetching.push(end("end of a fetch"));
        // Polled once, so that both wait in front of the event below.
        assert!(background.advance().now_or_never().is_none());
        let read = async {
            let mut texts = Vec::new();
            while texts.len() < 4 {
                texts.extend(events.recv().await);
            }
            texts
        };
        let (sent, texts) = tokio::join!(background.beside(sender.send("event")), read);
        sent.unwrap();
        assert_eq!((texts[0], texts[3]), ("first", "event"));
    }

    #[test]
    fn without_an_end_there_is_nothing_to_go_on_with() {
        let mut background = Background::default();
        assert!(background.is_empty() && background.advance().now_or_never().is_none());
    }
}
