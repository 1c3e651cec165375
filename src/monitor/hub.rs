//! The state that every viewer sees, and the stream of its changes.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use serde_json::{Map, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::timeout;

use super::document::{RunDocument, difference};
use super::options::MonitorLimits;
use super::view::{RunSource, RunView};

/// The published state of a run, and its viewers.
pub(super) struct Hub {
    source: Arc<dyn RunSource>,
    state: Mutex<Published>,
    viewers: Arc<Semaphore>,
    limits: MonitorLimits,
}

/// The state that every viewer has received or is about to receive.
struct Published {
    fields: Map<String, Value>,
    /// The number of the last event.
    id: u64,
    /// One queue for all viewers: each has a position in it. `None` after the end.
    events: Option<broadcast::Sender<Bytes>>,
    /// Speeds of the last minutes, oldest first.
    history: VecDeque<u64>,
}

impl Hub {
    pub(super) fn new(source: Arc<dyn RunSource>, limits: MonitorLimits) -> Hub {
        let events = Some(broadcast::Sender::new(QUEUED_EVENTS));
        let published = Published { fields: Map::new(), id: 0, events, history: VecDeque::new() };
        let viewers = Arc::new(Semaphore::new(limits.viewers));
        Hub { source, state: Mutex::new(published), viewers, limits }
    }

    pub(super) fn source(&self) -> &dyn RunSource {
        &*self.source
    }

    pub(super) fn view(&self) -> RunView {
        self.source.view()
    }

    /// Returns speeds of the last minutes in bytes per second, oldest first, one for each [`SAMPLE_TICKS`] ticks.
    pub(super) fn history(&self) -> Vec<u64> {
        self.state().history.iter().copied().collect()
    }

    /// Publishes changes and records the speed once each tick, and never ends.
    pub(super) async fn run(&self) {
        let mut ticks = tokio::time::interval(self.limits.tick);
        // After a pause of the machine the missed ticks would come at once.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            let is_watched = self.state().events.as_ref().is_some_and(|events| events.receiver_count() > 0);
            let is_sample = tick % SAMPLE_TICKS == 0;
            if is_watched || is_sample {
                let view = self.view();
                if is_sample {
                    let history = &mut self.state().history;
                    if history.len() == SAMPLES {
                        history.pop_front();
                    }
                    history.push_back(view.totals.bytes_per_second.now);
                }
                self.publish(&view);
            }
        }
    }

    /// Publishes the last state, and ends the stream of every viewer.
    pub(super) fn end(&self) {
        self.publish(&self.view());
        self.state().events = None;
    }

    /// Returns a stream for one more viewer: first the whole state, then the changes. `None` if there are too many
    /// viewers, or the monitor ends.
    pub(super) fn subscribe(self: &Arc<Hub>) -> Option<impl Stream<Item = Bytes> + Send + use<>> {
        let permit = self.viewers.clone().try_acquire_owned().ok()?;
        // What the others have not yet received must not be missing in this viewer's snapshot.
        self.publish(&self.view());
        let state = self.state();
        let events = state.events.as_ref()?.subscribe();
        let first = Bytes::from(format!("retry: {RETRY_MS}\n\n{}", state.snapshot_event()));
        drop(state);
        let viewer = Viewer { hub: self.clone(), events, first: Some(first), _permit: permit };
        Some(stream::unfold(viewer, |mut viewer| async move { Some((viewer.next().await?, viewer)) }))
    }

    fn publish(&self, view: &RunView) {
        let fields = RunDocument::new(view).fields();
        let mut state = self.state();
        if let Some(changed) = difference(&state.fields, &fields) {
            state.id += 1;
            let event = Bytes::from(event_text("delta", state.id, &changed));
            state.fields = fields;
            if let Some(events) = &state.events {
                // An error means that there are no viewers.
                let _ = events.send(event);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Published> {
        // No code that can panic runs while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Published {
    fn snapshot_event(&self) -> String {
        event_text("snapshot", self.id, &self.fields)
    }
}

/// One viewer of the stream.
struct Viewer {
    hub: Arc<Hub>,
    events: broadcast::Receiver<Bytes>,
    first: Option<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    /// Returns the next part of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match timeout(self.hub.limits.ping, self.events.recv()).await {
            Ok(Ok(event)) => Some(event),
            // The viewer was too slow, and events were dropped. The whole state replaces the rest of the queue.
            Ok(Err(RecvError::Lagged(_))) => {
                let state = self.hub.state();
                // Under the lock, so that no event lies between the snapshot and the new place in the queue.
                self.events = self.events.resubscribe();
                Some(Bytes::from(state.snapshot_event()))
            }
            Ok(Err(RecvError::Closed)) => None,
            // Browsers ignore a line that begins with a colon (HTML, "Interpreting an event stream").
            Err(_) => Some(Bytes::from_static(b": ping\n\n")),
        }
    }
}

/// Returns a server-sent event. JSON has no line breaks outside of strings, and escapes them in strings.
fn event_text(name: &str, id: u64, fields: &Map<String, Value>) -> String {
    let mut text = format!("id: {id}\nevent: {name}\ndata: ");
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", serde_json::to_string(fields).unwrap_or_default());
    text.push_str("\n\n");
    text
}

/// The most events that wait for a viewer: half a minute. A slower viewer receives a snapshot.
pub(super) const QUEUED_EVENTS: usize = 128;

/// The time after which a browser connects again.
const RETRY_MS: u32 = 2000;

/// The ticks between two samples of the speed: two seconds.
const SAMPLE_TICKS: u64 = 8;

/// The number of samples: five minutes.
const SAMPLES: usize = 150;
