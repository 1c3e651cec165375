//! The assignment of chunks to idle lanes.

use std::time::Instant;

use super::Driver;
use crate::engine::event_log::{Pauses, log_throttle};
use crate::engine::worker::SessionId;
use crate::pacing::{Class, RequestKind, Start};
use crate::session::ChunkToSend;

impl Driver {
    /// Assigns chunks to idle lanes, one chunk per session in turn.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.throttled_until = None;
        while self.has_free_lane()
            && let Some(place) = self.workers.as_ref().and_then(|workers| workers.next_idle(&self.idle))
        {
            // Without a chunk to send, the pacer would take requests from other hosts.
            if !self.transfers.values().any(|transfer| transfer.wants_lane()) {
                return;
            }
            if let Start::NotBefore(at) = self.pacer.borrow_mut().check(Class::Uploads, now) {
                self.throttled_until = Some(at);
                return;
            }
            // The pacer is asked first: a chunk taken from its session counts as sent.
            let Some((id, dispatch)) = self.next_chunk(now) else { return };
            let (Some(transfer), Some(workers)) = (self.transfers.get_mut(&id), &mut self.workers) else {
                return;
            };
            let key = transfer.needs_key().then_some(self.authorization.known.as_ref()).flatten();
            let authorization = key.and_then(|(value, _)| value.clone());
            // Repeated attempts draw on a budget of their own in the pacer.
            let turn = if dispatch.attempt > 1 { RequestKind::Retry } else { RequestKind::First };
            let index = dispatch.chunk.index;
            let Some(order) = transfer.order(id, dispatch, authorization) else {
                // Left in flight, the chunk would keep its upload from ever ending.
                transfer.cannot_send(index, now);
                continue;
            };
            let lane = self.idle.remove(place);
            let permit = self.pacer.borrow_mut().started(Class::Uploads, turn, now);
            self.permits.insert(lane, permit);
            self.counters.set_budget(Class::Uploads, self.pacer.borrow().budget(Class::Uploads, now));
            transfer.lanes.insert(lane, (index, workers.gauge(lane)));
            workers.send_order(lane, order);
        }
    }

    /// Returns `true` if one more lane may have a request. Lanes beyond a number that became smaller end their chunks.
    fn has_free_lane(&self) -> bool {
        !self.idle.is_empty() && self.permits.len() < self.lane_limit.lanes
    }

    /// Reports why requests are throttled: once in the log, and to each upload that waits. Returns the pauses.
    pub(super) fn announce_pauses(&mut self, now: Instant) -> Pauses {
        // With every lane at work, the pause delays nothing.
        let chunks_wait =
            self.has_free_lane() && self.transfers.values().any(|transfer| transfer.wants_lane());
        let mut pacer = self.pacer.borrow_mut();
        let uploads = pacer.delay(Class::Uploads, now).filter(|_| chunks_wait);
        self.counters.set_chunks_throttled(uploads.is_some());
        let mut calls = |class| {
            // Without a call that waits, the pause concerns no upload.
            pacer.delay(class, now).filter(|_| self.counters.is_call_throttled(class))
        };
        let pauses = Pauses { uploads, writes: calls(Class::Writes), reads: calls(Class::Reads) };
        if let Some(held) = uploads
            && self.announced.is_news(held, now)
        {
            log_throttle(Class::Uploads, held.by, held.until.saturating_duration_since(now));
        }
        for transfer in self.transfers.values_mut() {
            transfer.announce_pauses(&pauses, now);
        }
        pauses
    }

    fn next_chunk(&mut self, now: Instant) -> Option<(SessionId, ChunkToSend)> {
        let authorized = self.authorization.known.is_some();
        let sending = self.transfers.values().filter(|transfer| !transfer.lanes.is_empty()).count();
        // Small files are open ahead: another one has its turn when one of these has ended.
        let is_full = sending >= self.settings.transfers;
        // Sessions from `turn` on come first, so that a large upload cannot starve the others.
        for range in [self.turn..SessionId::MAX, 0..self.turn] {
            for (&id, transfer) in self.transfers.range_mut(range) {
                let has_turn = !is_full || !transfer.lanes.is_empty();
                if !has_turn || transfer.is_proving() || transfer.needs_key() && !authorized {
                    continue;
                }
                if let Some(dispatch) = transfer.session.next_chunk(now) {
                    self.turn = id + 1;
                    return Some((id, dispatch));
                }
            }
        }
        None
    }
}
