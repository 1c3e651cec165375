//! Which chunk goes to which lane, and when.

use std::time::Instant;

use super::Driver;
use crate::engine::event_log::log_throttle;
use crate::engine::worker::SessionId;
use crate::pacing::{Class, Start, Turn};
use crate::session::Dispatch;

impl Driver {
    /// Gives chunks to idle lanes, a chunk of each session in turn.
    pub(super) fn dispatch(&mut self, now: Instant) {
        self.held_until = None;
        while let Some(place) = self.crew.as_ref().and_then(|crew| crew.next_of(&self.idle)) {
            if let Start::NotBefore(at) = self.pace.borrow_mut().may_start(Class::Uploads, now) {
                self.held_until = Some(at);
                return;
            }
            let Some((id, dispatch)) = self.next_chunk(now) else { return };
            let (Some(active), Some(crew)) = (self.active.get_mut(&id), &self.crew) else { return };
            let key = active.needs_key().then_some(self.authorization.known.as_ref()).flatten();
            let authorization = key.and_then(|(value, _)| value.clone());
            let turn = if dispatch.attempt > 1 { Turn::Again } else { Turn::First };
            let index = dispatch.chunk.index;
            let Some(order) = active.order(id, dispatch, authorization) else { return };
            let lane = self.idle.remove(place);
            self.passes.insert(lane, self.pace.borrow_mut().started(Class::Uploads, turn, now));
            active.lanes.insert(lane, (index, crew.gauge(lane)));
            crew.give(lane, order);
        }
    }

    /// Says what chunks wait for: once in the log, and to each upload that has some.
    pub(super) fn tell_held(&mut self, now: Instant) {
        if self.idle.is_empty() || !self.active.values().any(|active| active.wants_lane()) {
            return;
        }
        let Some(held) = self.pace.borrow_mut().held(Class::Uploads, now) else { return };
        if self.told.is_news(held, now) {
            log_throttle(Class::Uploads, held.by, held.until.saturating_duration_since(now));
        }
        for active in self.active.values_mut() {
            active.tell_held(held, now);
        }
    }

    fn next_chunk(&mut self, now: Instant) -> Option<(SessionId, Dispatch)> {
        let authorized = self.authorization.known.is_some();
        let (before, after): (Vec<_>, Vec<_>) = self.active.iter_mut().partition(|(id, _)| **id < self.turn);
        for (&id, active) in after.into_iter().chain(before) {
            if active.is_proving() || active.needs_key() && !authorized {
                continue;
            }
            if let Some(dispatch) = active.session.next_chunk(now) {
                self.turn = id + 1;
                return Some((id, dispatch));
            }
        }
        None
    }
}
