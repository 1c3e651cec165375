//! The events that the driver takes in, other than commands and lane reports.

use std::time::Instant;

use super::Driver;
use crate::engine::calls::Authorization;
use crate::engine::counters::CountedEnd;
use crate::engine::creation::Created;
use crate::engine::event::EngineEvent;
use crate::engine::restart::PendingRestart;
use crate::engine::transfer::Transfer;
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind, Result};

impl Driver {
    pub(super) fn take_event(&mut self, event: EngineEvent) {
        let now = Instant::now();
        match event {
            EngineEvent::OpenedSource(id, command, opened) => self.opened(id, *command, opened),
            EngineEvent::Checked(id, checked) => self.with(id, |transfer| transfer.checked(checked)),
            EngineEvent::Created(id, created) => match (self.transfers.get_mut(&id), created) {
                (Some(transfer), created) => transfer.created(created, now),
                (None, Ok(Created { video_id, .. })) => {
                    tracing::warn!(%video_id, "created after its upload had been given up: it is empty");
                }
                (None, Err(_)) => {}
            },
            EngineEvent::Status(id, status) => {
                self.with(id, |transfer| transfer.take_status(status, now, fastrand::f64()));
            }
            EngineEvent::Renewed(id, renewed) => {
                // For all uploads, which share the key.
                let renewed = renewed.map(|value| self.authorization.known = Some((value, now)));
                self.with(id, |transfer| transfer.session.handle_renewed(renewed));
            }
            EngineEvent::Authorized(Ok(value)) => {
                self.authorization = Authorization { known: Some((value, now)), is_requested: false };
            }
            EngineEvent::Authorized(Err(error)) => self.refuse_all(error),
            EngineEvent::StreamRead(id, stream_event, inbox) => {
                let next = self
                    .transfers
                    .get_mut(&id)
                    .map(|transfer| transfer.take_stream_event(id, stream_event, inbox));
                self.tasks.extend(next);
            }
            EngineEvent::StreamEnded(id) => self.with(id, Transfer::stream_ended),
            EngineEvent::StopRequested(id, halt, halted) => {
                let next = self.transfers.get_mut(&id).and_then(|transfer| transfer.halt(id, halt, halted));
                self.tasks.extend(next);
            }
            EngineEvent::Proved(id, proof) => self.with(id, |transfer| transfer.proved(proof)),
            EngineEvent::RestartCleaned(restart, deleted) => self.begin_anew(*restart, deleted),
            EngineEvent::TaskDone => {}
        }
    }

    pub(super) fn with(&mut self, id: SessionId, change: impl FnOnce(&mut Transfer)) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            change(transfer);
        }
    }

    /// Fails every upload that needs the API key. A creation under way ends with its own refusal, which excludes that
    /// the container exists.
    fn refuse_all(&mut self, error: Error) {
        // Forgotten, so that the next upload that needs the key requests it again.
        self.authorization = Authorization::default();
        for transfer in
            self.transfers.values_mut().filter(|transfer| transfer.needs_key() && !transfer.is_creating())
        {
            transfer.session.handle_failure(error.clone());
        }
    }

    /// Queues an upload that begins anew, if its container could be deleted.
    fn begin_anew(&mut self, restart: PendingRestart, deleted: Result<()>) {
        match &deleted {
            // After a 404 the container is gone, as requested.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.counters.ended(CountedEnd::of_error(&restart.error));
            }
            Ok(()) | Err(_) => self.counters.requeued(),
        }
        self.queue.extend(restart.deleted(deleted));
    }
}
