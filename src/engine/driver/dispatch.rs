//! Which chunk goes to which lane, and when.

use std::time::Instant;

use super::Driver;
use crate::engine::event_log::log_throttle;
use crate::engine::worker::SessionId;
use crate::pacing::{Class, RequestKind, Start};
use crate::session::ChunkToSend;

impl Driver {
    /// Gives chunks to idle lanes, a chunk of each session in turn.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.held_until = None;
        while let Some(place) = self.workers.as_ref().and_then(|workers| workers.next_of(&self.idle)) {
            if let Start::NotBefore(at) = self.pace.borrow_mut().check(Class::Uploads, now) {
                self.held_until = Some(at);
                return;
            }
            let Some((id, dispatch)) = self.next_chunk(now) else { return };
            let (Some(transfer), Some(workers)) = (self.transfer.get_mut(&id), &self.workers) else { return };
            let key = transfer.needs_key().then_some(self.authorization.known.as_ref()).flatten();
            let authorization = key.and_then(|(value, _)| value.clone());
            let kind = if dispatch.attempt > 1 { RequestKind::Retry } else { RequestKind::First };
            let index = dispatch.chunk.index;
            let Some(order) = transfer.order(id, dispatch, authorization) else { return };
            let lane = self.idle.remove(place);
            self.passes.insert(lane, self.pace.borrow_mut().started(Class::Uploads, kind, now));
            transfer.lanes.insert(lane, (index, workers.gauge(lane)));
            workers.give(lane, order);
        }
    }

    /// Says what chunks wait for: once in the log, and to each upload that has some.
    pub(super) fn tell_held(&mut self, now: Instant) {
        if self.idle.is_empty() || !self.transfer.values().any(|transfer| transfer.wants_lane()) {
            return;
        }
        let Some(held) = self.pace.borrow_mut().delay(Class::Uploads, now) else { return };
        if self.told.is_news(held, now) {
            log_throttle(Class::Uploads, held.by, held.until.saturating_duration_since(now));
        }
        for transfer in self.transfer.values_mut() {
            transfer.tell_held(held, now);
        }
    }

    fn next_chunk(&mut self, now: Instant) -> Option<(SessionId, ChunkToSend)> {
        let authorized = self.authorization.known.is_some();
        let (before, after): (Vec<_>, Vec<_>) =
            self.transfer.iter_mut().partition(|(id, _)| **id < self.turn);
        for (&id, transfer) in after.into_iter().chain(before) {
            if transfer.is_proving() || transfer.needs_key() && !authorized {
                continue;
            }
            if let Some(dispatch) = transfer.session.next_chunk(now) {
                self.turn = id + 1;
                return Some((id, dispatch));
            }
        }
        None
    }
}
